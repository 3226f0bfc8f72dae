"""Publishing: which bundle is served, the checks before it is, and the way back.

Owns `published/` in the workspace: a copy of each bundle under the first letters of its digest, and `current.json`,
which is replaced at once and says which of them is served. Workers look at that file (`service`). What a bundle
answers is tried by `trial`. It knows no request, no worker and no other host (`hosts`).
"""

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from byway.base import artifact, config
from byway.base.artifact import Record
from byway.base.errors import UserError
from byway.base.progress import command
from byway.serving import arms, bundle, trial
from byway.serving.person import Seen

FOLDER = "published"
KEPT = 3
"""Bundles that stay on the disk: the one that is served and those that a rollback can reach."""
FIGURES = "figures.json"
MATCH, RECALL = "language.match_rate", "language.recall_at_10.heldout"
POPULARITY = "baseline.popularity.recall_at_10.heldout"


class Current(msgspec.Struct, frozen=True):
    """The contents of `current.json`."""

    bundle: str
    before: list[str] = []
    """What was served before, the latest first."""


Tell = Callable[[Path, Current], None]
"""Says what is served from now on, and in which folder it lies."""


class Figures(msgspec.Struct, frozen=True):
    """What the run that made a bundle measured, for the pages."""

    metrics: dict[str, Any]
    gates: dict[str, artifact.Gate]


def current(workspace: Path) -> Current | None:
    """What is served, or None where nothing was published yet."""
    path = workspace / FOLDER / "current.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Current)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and publish again.") from error


def publish(
    workspace: Path, folder: Path, settings: config.Serving, records: dict[str, Record], *, tell: Tell | None = None
) -> str:
    """Check the bundle at `folder` and serve it from now on; returns its name.

    `records` are those of the workspace: its figures decide whether the bundle may be served. `tell` is told before
    anything changes here, for other hosts. Raises UserError with every reason for which it stays out; what was
    served before is then served on.
    """
    record = artifact.read_record(folder)
    if record is None:
        raise UserError(f"There is no bundle at {folder}; run every stage first.")
    name = record.digest[:16]
    if not is_name(name):
        raise UserError(f"The bundle stays out: the digest in {folder / artifact.RECORD} is none.")
    histories = trial.sample(workspace, settings)
    home = workspace / FOLDER
    home.mkdir(exist_ok=True)
    with artifact.locked(home):
        now = current(workspace)
        if now is not None and now.bundle == name and not check(home / name, record, histories):
            if faults := _measured(records, record, settings):
                raise UserError(f"The bundle is served, and would stay out: {'; '.join(faults)}.")
            if tell is not None:
                tell(home, now)
            return name
        if faults := strange(folder, record):
            raise UserError(f"The bundle stays out: {'; '.join(faults)}.")
        part = home / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part, symlinks=True)
        figures = Figures(
            {key: value for r in records.values() for key, value in r.metrics.items()},
            {key: gate for r in records.values() for key, gate in r.gates.items()},
        )
        (part / FIGURES).write_bytes(msgspec.json.encode(figures))
        faults = check(part, record, histories) + _measured(records, record, settings)
        if faults:
            shutil.rmtree(part)
            raise UserError(f"The bundle stays out: {'; '.join(faults)}.")
        shutil.rmtree(home / name, ignore_errors=True)
        os.replace(part, home / name)
        before = [] if now is None else [b for b in (now.bundle, *now.before) if b != name][: KEPT - 1]
        settle(home, Current(name, before), tell)
    return name


def is_name(name: str) -> bool:
    """Whether a bundle can be called so: what comes from a file or a server is no path."""
    return re.fullmatch("[0-9a-f]{16}", name) is not None


def settle(home: Path, to: Current, tell: Tell | None = None) -> None:
    """Serve `to` on this host, and drop what can no longer be gone back to and no arm of an experiment serves."""
    _switch(home, to, tell)
    kept = (to.bundle, *to.before, *arms.named(arms.load(home.parent)))
    for other in home.iterdir():
        if other.is_dir() and other.name not in kept:
            shutil.rmtree(other)


def require_whole(workspace: Path, served: Current) -> None:
    """UserError where the bundle that is served cannot be opened."""
    try:
        bundle.load(workspace / FOLDER / served.bundle)
    except (msgspec.DecodeError, OSError, ValueError, *trial.BROKEN_MODEL) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"The published bundle is damaged ({why}); run: {command('publish', workspace)}") from error


def rollback(workspace: Path, tell: Tell | None = None) -> str:
    """Serve the bundle before this one; returns its name."""
    home = workspace / FOLDER
    with artifact.locked(home):
        now = current(workspace)
        if now is None or not now.before:
            raise UserError(f"{workspace} has no earlier bundle to go back to.")
        name, *before = now.before
        _switch(home, Current(name, before), tell)
    return name


def _switch(home: Path, to: Current, tell: Tell | None) -> None:
    # The others first: where they cannot be told, nothing changes here either.
    if tell is not None:
        tell(home, to)
    artifact.write_atomic(home / "current.json", msgspec.json.encode(to))


def check(folder: Path, record: Record, histories: list[list[Seen]]) -> list[str]:
    """What is wrong with the bundle at `folder`: its files, or what `trial` finds when it asks these histories."""
    return unfit(folder, record) or trial.faults(folder, histories)


def unfit(folder: Path, record: Record) -> list[str]:
    """Files that are not those of the record."""
    changed = strange(folder, record) or artifact.edited(folder, record)
    return [name if " " in name else f"file {name} is not what its record says" for name in changed]


def strange(folder: Path, record: Record) -> list[str]:
    """Files that a bundle does not consist of. They are not opened: a pipe or device may never end."""
    own = {artifact.RECORD, FIGURES}
    there = {path.relative_to(folder).as_posix(): path.lstat().st_mode for path in folder.rglob("*")}
    found = [
        f"{name} is no plain file" for name, mode in there.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    ]
    plain = {name for name, mode in there.items() if stat.S_ISREG(mode)}
    found += [f"file {name} is not in its record" for name in plain - own - record.files.keys()]
    return sorted(found) or [f"file {name} is missing" for name in sorted(record.files.keys() - plain)]


def _measured(records: dict[str, Record], record: Record, settings: config.Serving) -> list[str]:
    """Whether the figures of the model behind the bundle clear their bars."""
    if settings.min_match_rate == 0:
        return []
    metrics = records.get("metrics")
    if metrics is None or MATCH not in metrics.metrics:
        return ["its figures are missing: run the stage metrics, or set serving.min_match_rate = 0"]
    if metrics.inputs.get("transition_table") != record.inputs.get("transition_table"):
        return ["its figures are of another table: run the stage metrics again"]
    found, faults = metrics.metrics, list[str]()
    if found[MATCH] < settings.min_match_rate:
        faults.append(
            f"match rate {found[MATCH]:.3f} is below {settings.min_match_rate:g} (serving.min_match_rate)"
        )
    if found[RECALL] < found[POPULARITY]:
        faults.append(f"recall at 10 is {found[RECALL]:.3f}, below popularity's {found[POPULARITY]:.3f}")
    return faults
