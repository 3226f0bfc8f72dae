"""A workspace of numbered artifacts, each a directory that is whole or absent.

An artifact is built in `NN-name.part/` and moved to `NN-name/` when its `record.json` has been written, so
that a reader never sees half of one. What a stage keeps in `NN-name.scratch/` (checkpoints, progress) survives
a kill and is there when the same stage is run again with the same inputs and settings. This module knows no stage.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import time
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from byway.base.errors import UserError
from byway.base.progress import say

VERSION = metadata.version("byway")

RECORD = "record.json"
LAYOUT = 4
"""Of records and artifacts. An older one is built again, a newer one refused."""


class Gate(msgspec.Struct, frozen=True):
    """A figure and the bar that it should clear: a run only shows a failed one, a refresh stops at it."""

    value: float | None
    """None where there was nothing to measure; such a gate is not passed."""
    at_least: float | None

    @property
    def passed(self) -> bool:
        return self.value is not None and self.at_least is not None and self.value >= self.at_least

    def __str__(self) -> str:
        value, bar = ("not a number" if n is None else f"{n:.4g}" for n in (self.value, self.at_least))
        return f"{value}, wanted at least {bar}"


@dataclass(frozen=True, slots=True)
class Work:
    """Where a stage builds, and its source of randomness."""

    out: Path
    """Empty directory whose files become the artifact."""
    scratch: Path
    """Directory for checkpoints: kept over a kill, thrown away when the artifact is whole."""
    rng: np.random.Generator
    """Seeded by the run's seed and the stage's name."""


@dataclass(slots=True)
class Outcome:
    """What a stage says about what it made."""

    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


class Record(msgspec.Struct, frozen=True):
    """The contents of `record.json`."""

    stage: str
    version: str
    fingerprint: str
    """Hash of stage, settings and inputs: says whether the artifact is up to date."""
    digest: str
    """Hash of the artifact's files: what the next stage takes as its input's identity."""
    settings: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, str]
    counts: dict[str, int]
    metrics: dict[str, Any]
    gates: dict[str, Gate]
    timings: dict[str, float]
    created: str
    layout: int = 1


class _Made(msgspec.Struct):
    """What a record of any layout says about itself."""

    version: str
    layout: int = 1


def hash_file(path: Path) -> str:
    """BLAKE2 hash of a file's bytes, read in blocks."""
    h = hashlib.blake2b(digest_size=16)
    with path.open("rb") as f:
        while block := f.read(1 << 22):
            h.update(block)
    return h.hexdigest()


def hash_json(value: Any) -> str:
    """BLAKE2 hash of a JSON value, independent of key order."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Identity of the artifact that `stage` would make from these settings and inputs."""
    return hash_json({"stage": stage, "settings": dict(settings), "inputs": dict(inputs)})


def read_record(path: Path) -> Record | None:
    """The record of the artifact at `path`, or None where there is no whole artifact.

    A move that a kill cut short is finished first: a `.part` directory with a record is a whole artifact.
    """
    if path.is_file():
        raise UserError(f"{path} is a file, where the folder of an artifact belongs; move it away.")
    directory = path.with_name(path.name + ".part")
    if (directory / RECORD).exists():
        with _moving(path):
            if (directory / RECORD).exists():
                _swap(directory, path)
    try:
        data = (path / RECORD).read_bytes()
        made = msgspec.json.decode(data, type=_Made)
        if made.layout <= LAYOUT:
            return msgspec.json.decode(data, type=Record)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path / RECORD} is damaged ({error}); delete {path} and run again.") from error
    raise UserError(
        f"{path} was made by Byway {made.version}, whose layout {made.layout} this version ({VERSION}) does "
        f"not know: use that version, or delete {path} and run again."
    )


def drift(record: Record, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Field by field, why `record` no longer matches: empty where it is up to date."""
    changed = [f"layout: {record.layout} → {LAYOUT}"] if record.layout != LAYOUT else []
    for kind, then, now in (("setting", record.settings, settings), ("input", record.inputs, inputs)):
        for name in sorted(set(then) | set(now)):
            if then.get(name) != now.get(name):
                change = f": {then.get(name)} → {now.get(name)}" if kind == "setting" else " changed"
                changed.append(f"{kind} {name}{change}")
    return changed


def edited(path: Path, record: Record) -> list[str]:
    """Files of the artifact that are no longer what the record says, and the record where it contradicts itself."""
    found = {name: hash_file(path / name) for name in record.files if (path / name).exists()}
    changed = [name for name, digest in record.files.items() if found.get(name) != digest]
    whole = record.digest == hash_json(record.files)
    whole &= record.fingerprint == fingerprint(record.stage, record.settings, record.inputs)
    return changed if whole else [RECORD, *changed]


@contextmanager
def part(
    path: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int = 0
) -> Generator[Work]:
    """Where to build the artifact at `path`: an empty directory, and the scratch of an interrupted build.

    Scratch is kept only where it belongs to the very same artifact; otherwise it is removed first.
    """
    directory = path.with_name(path.name + ".part")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    yield Work(directory, scratch(path, stage, settings, inputs), _rng(seed, stage))


def shared(path: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int = 0) -> Work:
    """Where one of several processes does its share of the artifact at `path`: it makes no part, only scratch."""
    return Work(path.with_name(path.name + ".part"), scratch(path, stage, settings, inputs), _rng(seed, stage))


def scratch(path: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Path:
    """The scratch of the artifact at `path`, emptied where it belongs to other settings or inputs."""
    folder = path.with_name(path.name + ".scratch")
    wanted, known = fingerprint(stage, settings, inputs), folder / "wanted"
    with _moving(path):  # two shards may start at once
        if not (known.exists() and known.read_text("utf-8") == wanted):
            _discard_scratch(path)
            folder.mkdir()
            write_atomic(known, wanted.encode())
    return folder


def _rng(seed: int, stage: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(stage.encode())])


def tidy(path: Path) -> None:
    """Remove what interrupted builds left beside the whole artifact at `path`."""
    for ending in (".part", ".old"):
        shutil.rmtree(path.with_name(path.name + ending), ignore_errors=True)
    _discard_scratch(path)


def _discard_scratch(path: Path) -> None:
    """Remove the scratch, its name first: what a kill leaves of it then belongs to no artifact."""
    scratch = path.with_name(path.name + ".scratch")
    (scratch / "wanted").unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def commit(
    path: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], outcome: Outcome
) -> Record:
    """Make the `.part` directory of `path` the artifact: flush its files, write the record last, move it."""
    directory = path.with_name(path.name + ".part")
    files: dict[str, str] = {}
    for file in sorted(p for p in directory.rglob("*") if p.is_file()):
        flush(file)
        files[file.relative_to(directory).as_posix()] = hash_file(file)
    for folder in [p for p in directory.rglob("*") if p.is_dir()]:
        flush(folder)
    record = Record(
        stage=stage,
        version=VERSION,
        fingerprint=fingerprint(stage, settings, inputs),
        digest=hash_json(files),
        settings=dict(settings),
        inputs=dict(inputs),
        files=files,
        counts=outcome.counts,
        metrics=outcome.metrics,
        gates={name: Gate(_finite(gate.value), _finite(gate.at_least)) for name, gate in outcome.gates.items()},
        timings={name: round(seconds, 3) for name, seconds in outcome.timings.items()},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        layout=LAYOUT,
    )
    with _moving(path):
        write_atomic(directory / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2))
        _swap(directory, path)
    _discard_scratch(path)
    return record


def _finite(number: float | None) -> float | None:
    """A number as JSON can hold it."""
    return number if number is not None and math.isfinite(number) else None


@contextmanager
def _moving(path: Path) -> Generator[None]:
    """Hold the moves of the workspace: a reader finishes one that was cut short, but not one that is under way."""
    with (path.parent / ".moving").open("a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _swap(directory: Path, path: Path) -> None:
    """Put the finished `directory` in the place of `path`; safe to repeat after a kill at any point."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
    os.rename(directory, path)
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held before or all of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
    flush(path.parent)


@contextmanager
def locked(workspace: Path, together: bool = False) -> Generator[None]:
    """Hold the workspace against a second run; the lock goes with the process.

    Processes that hold it `together` let one another in, and nobody else.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    with (workspace / ".lock").open("a+") as f:
        try:
            fcntl.flock(f, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            f.seek(0)
            holder = f.read().strip() or "another process"
            raise UserError(f"{workspace} is in use by {holder}; wait for it or end it.") from error
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()}")
        f.flush()
        yield


def missing(path: Path, record: Record) -> list[str]:
    """Files that the record of the artifact at `path` names and that are not there."""
    return [name for name in record.files if not (path / name).exists()]


@contextmanager
def reading(path: Path, *more: type[Exception]) -> Generator[None]:
    """Say of an artifact whose files cannot be read that it is damaged, and what to do; `more` are such errors."""
    try:
        yield
    except PermissionError:  # the file may well be whole
        raise
    except (OSError, ValueError, KeyError, EOFError, *more) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise UserError(f"{path} is damaged ({why}); delete it and run again.") from error


@contextmanager
def alone(path: Path, waiting: str) -> Generator[None]:
    """Hold the file `path` against other processes; where one has it, say so and wait. It goes with the process."""
    with path.open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def flush(path: Path) -> None:
    """See a file's content, or a folder's names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
