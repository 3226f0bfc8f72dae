"""Publishing: which bundle is served, the checks before it is, and the way back.

Owns `published/` in the workspace: a copy of each bundle under the first letters of its digest, and `current.json`,
which is replaced at once and says which of them is served. Workers look at that file (`service`). It knows no
request and no worker.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors  # pyright: ignore[reportAttributeAccessIssue]

from byway.base import artifact, config
from byway.base.artifact import Record
from byway.base.errors import UserError
from byway.base.progress import command
from byway.serving import arms, bundle
from byway.serving.bundle import Bundle
from byway.serving.person import Seen
from byway.serving.recommend import recommend

FOLDER = "published"
KEPT = 3
"""Bundles that stay on the disk: the one that is served and those that a rollback can reach."""
FIGURES = "figures.json"
BROKEN_MODEL = (
    onnx_errors.InvalidProtobuf, onnx_errors.InvalidGraph, onnx_errors.NoModel, onnx_errors.Fail,
    onnx_errors.InvalidArgument, onnx_errors.NotImplemented, onnx_errors.RuntimeException, onnx_errors.NoSuchFile,
)  # fmt: skip
"""What opening or running a file that is no fitting model raises; they have no common class of their own."""
MATCH, RECALL = "language.match_rate", "language.recall_at_10.heldout"
POPULARITY = "baseline.popularity.recall_at_10.heldout"


class Current(msgspec.Struct, frozen=True):
    """The contents of `current.json`."""

    bundle: str
    before: list[str] = []
    """What was served before, the latest first."""


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


def publish(workspace: Path, folder: Path, settings: config.Serving, records: dict[str, Record]) -> str:
    """Check the bundle at `folder` and serve it from now on; returns its name.

    `records` are those of the workspace: its figures decide whether the bundle may be served. Raises UserError with
    every reason for which it stays out; what was served before is then served on.
    """
    record = artifact.read_record(folder)
    if record is None:
        raise UserError(f"There is no bundle at {folder}; run every stage first.")
    name = record.digest[:16]
    home = workspace / FOLDER
    home.mkdir(exist_ok=True)
    with artifact.locked(home):
        now = current(workspace)
        if now is not None and now.bundle == name and not check(home / name, record):
            if faults := _measured(records, record, settings):
                raise UserError(f"The bundle is served, and would stay out: {'; '.join(faults)}.")
            return name
        part = home / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        figures = Figures(
            {key: value for r in records.values() for key, value in r.metrics.items()},
            {key: gate for r in records.values() for key, gate in r.gates.items()},
        )
        (part / FIGURES).write_bytes(msgspec.json.encode(figures))
        faults = check(part, record) + _measured(records, record, settings)
        if faults:
            shutil.rmtree(part)
            raise UserError(f"The bundle stays out: {'; '.join(faults)}.")
        shutil.rmtree(home / name, ignore_errors=True)
        os.replace(part, home / name)
        before = [] if now is None else [b for b in (now.bundle, *now.before) if b != name][: KEPT - 1]
        _switch(workspace, Current(name, before))
        for other in home.iterdir():
            if other.is_dir() and other.name not in (name, *before, *arms.named(arms.load(workspace))):
                shutil.rmtree(other)
    return name


def require_whole(workspace: Path, served: Current) -> None:
    """UserError where the bundle that is served cannot be opened."""
    try:
        bundle.load(workspace / FOLDER / served.bundle)
    except (msgspec.DecodeError, OSError, ValueError, *BROKEN_MODEL) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"The published bundle is damaged ({why}); run: {command('publish', workspace)}") from error


def rollback(workspace: Path) -> str:
    """Serve the bundle before this one; returns its name."""
    home = workspace / FOLDER
    now = current(workspace)
    if now is None or not now.before:
        raise UserError(f"{workspace} has no earlier bundle to go back to.")
    with artifact.locked(home):
        name, *before = now.before
        _switch(workspace, Current(name, before))
    return name


def _switch(workspace: Path, to: Current) -> None:
    artifact.write_atomic(workspace / FOLDER / "current.json", msgspec.json.encode(to))


def check(folder: Path, record: Record) -> list[str]:
    """What is wrong with the bundle at `folder`: files, shapes, entries, and answers that it should give."""
    changed = artifact.edited(folder, record)
    if changed:
        return [f"file {name} is not what its record says" for name in changed]
    try:
        opened = bundle.load(folder)
        smoke = bundle.load_smoke(folder)
    except (msgspec.DecodeError, OSError, ValueError, *BROKEN_MODEL) as error:
        return [f"it cannot be opened ({error})"]
    return shapes(opened) or fits(opened) or answers(opened, smoke)


def shapes(opened: Bundle) -> list[str]:
    """What is wrong with the arrays: sizes that do not agree, entries that name nothing."""
    n, m = len(opened.ids), len(opened.manifest.names)
    table = opened.table
    a, b = np.arange(m)[:, None, None], np.arange(m)[None, :, None]
    by_position = ("rows", "traffic", "quality", "created", "id_hashes", "id_positions")
    tests = {
        "there is no item or no cluster": n > 0 and m > 0,
        "vectors are not one a item": opened.vectors.ndim == 2 and len(opened.vectors) == n,
        "arrays are not one entry an item": all(getattr(opened, name).shape == (n,) for name in by_position)
        and len(opened.titles) == len(opened.thumbnails) == n,
        "clusters are not slices that fill the items": opened.starts.shape == (m + 1,)
        and opened.starts[0] == 0
        and opened.starts[-1] == n
        and bool((np.diff(opened.starts) > 0).all()),
        "descriptions are not unique": len(set(opened.manifest.names)) == m,
        "popularity does not order the clusters": np.array_equal(np.sort(opened.popularity), np.arange(m)),
        "the table is not one ranking a pair": table.ndim == 3 and table.shape[:2] == (m, m),
    }
    faults = [fault for fault, good in tests.items() if not good]
    if faults:
        return faults
    entries = {
        "an entry of the table is no cluster": bool(((table >= -1) & (table < m)).all()),
        "an entry of the table is one of its pair": not ((table == a) | (table == b)).any(),
        "triples are not in order, or lead to no cluster or one of their own": _triples_fit(opened),
        "ids are not a permutation": np.array_equal(np.sort(opened.id_positions), np.arange(n)),
        # Not a permutation: an item that came after training is read as the one most like it.
        "a row names no item": bool(((opened.rows >= 0) & (opened.rows < n)).all()),
        "the index of ids is not sorted": bool((opened.id_hashes[1:] >= opened.id_hashes[:-1]).all()),
        "vectors are not finite": bool(np.isfinite(opened.vectors).all()),
    }
    return [fault for fault, good in entries.items() if not good]


def _triples_fit(opened: Bundle) -> bool:
    triples, m, n = opened.triples, len(opened.manifest.names), opened.table.shape[2]
    if triples is None:
        return opened.settings.interests < 3
    keys, led = triples.keys, triples.clusters
    if keys.ndim != 1 or led.ndim != 2 or len(led) != len(keys) or led.shape[1] > n:
        return False
    own = (keys[:, None] // np.array([m * m, m, 1]) % m)[:, None]
    return bool(
        (keys[1:] > keys[:-1]).all()
        and ((keys >= 0) & (keys < m**3)).all()
        and ((led >= -1) & (led < m)).all()
        and not (led[:, :, None] == own).any()
    )


def fits(opened: Bundle) -> list[str]:
    """Whether the sequence model and the item vectors belong together: also for a model that users bring."""
    inputs, outputs = opened.session.get_inputs(), opened.session.get_outputs()
    if [i.name for i in inputs] != ["history"] or inputs[0].type != "tensor(int64)" or len(inputs[0].shape) != 2:
        return ["policy.onnx does not take `history`, int64 [batch, length]"]
    if "vector" not in [o.name for o in outputs]:
        return ["policy.onnx does not give `vector`"]
    try:
        given = opened.encode([0, len(opened.ids) - 1])
    except BROKEN_MODEL as error:
        return [f"policy.onnx cannot be run ({error})"]
    if given.shape != opened.vectors.shape[1:]:
        return [f"policy.onnx gives vectors of {given.shape}, items have {opened.vectors.shape[1:]}"]
    return [] if np.isfinite(given).all() else ["policy.onnx gives vectors that are not finite"]


def answers(opened: Bundle, smoke: list[bundle.Smoke]) -> list[str]:
    """Whether the requests that the bundle carries are answered as they were when it was built."""
    if not smoke:
        return ["it carries no request to try"]
    for asked in smoke:
        given = recommend(opened, [Seen(i) for i in asked.history], np.random.default_rng(asked.seed))
        found = (given.strategy, given.cluster, [shown.item for shown in given.items])
        if found != (asked.strategy, asked.cluster, asked.items):
            return [f"request {asked.seed} of smoke.json is not answered as it was when the bundle was built"]
    return []


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
    floor = settings.min_recall or found[POPULARITY]
    if found[RECALL] < floor:
        whose = (
            "serving.min_recall" if settings.min_recall else "popularity's; serving.min_recall sets another floor"
        )
        faults.append(f"recall at 10 is {found[RECALL]:.3f}, below {floor:.3f} ({whose})")
    return faults
