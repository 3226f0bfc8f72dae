"""A bundle tried before it is served: opened, looked over and asked, in a process with bounds of time and memory.

Owns that process: `faults` is the near side, `main` the far one. A bundle that never ends, takes all memory or
breaks what reads it costs that process alone. It also chooses what is asked: the requests that the bundle carries,
and a sample of what people really did, from the history of the service and from the log that the workspace was
built from.
"""

import asyncio
import importlib.util
import json
import math
import os
import resource
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors  # pyright: ignore[reportAttributeAccessIssue]

from byway.base import config
from byway.base.errors import UserError
from byway.serving import bundle, shapes, stores
from byway.serving.bundle import Bundle
from byway.serving.history import DAY, Unavailable
from byway.serving.person import Seen
from byway.serving.recommend import recommend

SECONDS = 300.0
"""What a trial may take at the most."""
MEMORY = 2 << 30
"""Bytes that it may take beside four times the size of the bundle."""
PEOPLE = 50
"""People of the history, and as many of the log, whose requests are tried."""
LONGEST = 200
"""Events of somebody of the log that are tried."""
UNANSWERED = 0.05
"""Share of the people who may be given no item: those who have met everything."""
SAID = 300
"""Characters of a fault that are repeated."""
BROKEN_MODEL = (
    onnx_errors.InvalidProtobuf, onnx_errors.InvalidGraph, onnx_errors.NoModel, onnx_errors.Fail,
    onnx_errors.InvalidArgument, onnx_errors.NotImplemented, onnx_errors.RuntimeException, onnx_errors.NoSuchFile,
)  # fmt: skip
"""What opening or running a file that is no fitting model raises; they have no common class of their own."""


class Task(msgspec.Struct, frozen=True):
    """What is to be tried."""

    folder: str
    histories: list[list[Seen]]
    memory: int
    seconds: float
    now: int


def faults(folder: Path, histories: list[list[Seen]]) -> list[str]:
    """What is wrong with the bundle at `folder`, or with what it answers to these histories."""
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    task = Task(str(folder.resolve()), histories, MEMORY + 4 * size, SECONDS, time.time_ns() // 1000)
    # One thread: the stacks of more would count as memory, and more would only take from who answers meanwhile.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "byway.serving.trial"]
    try:
        ended = subprocess.run(
            command, input=msgspec.json.encode(task), capture_output=True, timeout=SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return [f"it cannot be tried within {SECONDS:g} seconds"]
    if ended.returncode == 0:
        return json.loads(ended.stdout)
    last = (ended.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    if "MemoryError" in last or "bad_alloc" in last:
        last = f"it takes more than {task.memory >> 20:,} MB"
    return [f"trying it ends with an error ({last[:SAID]})"]


def sample(workspace: Path, settings: config.Serving) -> list[list[Seen]]:
    """Histories of real people, without their names: of those who were here last, and of the log."""
    # In a thread of its own: whoever publishes may be in a loop already.
    with ThreadPoolExecutor(1) as own:
        found = own.submit(asyncio.run, _of_history(workspace / "serving", settings)).result()
    return found + _of_log(workspace / "01-catalog")


async def _of_history(folder: Path, settings: config.Serving) -> list[list[Seen]]:
    """Of the service's history; none where there is none, or it does not answer: that is no fault of a bundle."""
    if not settings.history and not (folder / "events.db").exists():
        return []
    oldest = time.time_ns() // 1000 - settings.forget_days * DAY
    try:
        async with stores.opened(settings, folder) as store:
            people = [await store.of(user, oldest) for user in await store.recent_users(PEOPLE)]
    except (Unavailable, OSError, sqlite3.Error):
        return []
    return [[Seen(e.item, e.time, e.satisfaction) for e in events] for events in people if events]


def _of_log(folder: Path) -> list[list[Seen]]:
    """Of the log, where it is there and can be read: a machine that only serves has no reader of tables."""
    if importlib.util.find_spec("pyarrow") is None or not (folder / "events.parquet").exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        ids = pq.read_table(folder / "items.parquet", columns=["item"])["item"].to_pylist()
        with pq.ParquetFile(folder / "events.parquet") as log:
            batch = next(log.iter_batches(1 << 16, columns=["user", "item", "time", "satisfaction"]), None)
            clock = (log.schema_arrow.metadata or {}).get(b"clock") == b"true"
    except (pa.ArrowException, OSError):
        return []
    found: dict[int, list[Seen]] = {}
    for row in [] if batch is None else batch.to_pylist():
        if row["user"] not in found and len(found) == PEOPLE:
            break
        at = row["time"] if clock else None
        found.setdefault(row["user"], []).append(Seen(ids[row["item"]], at, row["satisfaction"]))
    return [events[-LONGEST:] for events in found.values()]


def look(folder: Path, histories: list[list[Seen]], now: int) -> list[str]:
    """What is wrong with a bundle, here and now: files, shapes, and answers that it should give."""
    try:
        opened, levels, smoke = bundle.load(folder), bundle.load_levels(folder), bundle.load_smoke(folder)
    except (msgspec.DecodeError, OSError, ValueError, *BROKEN_MODEL) as error:
        return [f"it cannot be opened ({error})"]
    return (
        shapes.faults(opened, levels)
        or fits(opened)
        or repeats(opened, smoke)
        or answers(opened, [[], *([Seen(i) for i in asked.history] for asked in smoke), *histories], now)
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


def repeats(opened: Bundle, smoke: list[bundle.Smoke]) -> list[str]:
    """Whether the requests that the bundle carries are answered as they were when it was built."""
    if not smoke:
        return ["it carries no request to try"]
    for asked in smoke:
        given = recommend(opened, [Seen(i) for i in asked.history], np.random.default_rng(asked.seed))
        found = (given.strategy, given.cluster, [shown.item for shown in given.items])
        if found != (asked.strategy, asked.cluster, asked.items):
            return [f"request {asked.seed} of smoke.json is not answered as it was when the bundle was built"]
    return []


def answers(opened: Bundle, histories: list[list[Seen]], now: int) -> list[str]:
    """Whether people are given items, and what is given can be said."""
    if not opened.eligible(now).counts.any():
        settings = opened.settings
        why = f"bundle.min_quality = {settings.min_quality:g}, bundle.max_age_days = {settings.max_age_days:g}"
        return [f"no item may be shown ({why})"]
    rng, empty = np.random.default_rng(0), 0
    for history in histories:
        given = recommend(opened, history, rng, now=now).items
        empty += not given
        if not all(math.isfinite(shown.score) and 0 < shown.propensity <= 1 for shown in given):
            return ["it gives items with a score or propensity that is no number"]
        if len({shown.item for shown in given}) < len(given):
            return ["it gives an item twice"]
    if empty > UNANSWERED * len(histories):
        return [f"{empty} of {len(histories)} people are given no item"]
    return []


def main() -> None:
    """Try what standard input names, within bounds; print the faults as JSON."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + task.memory, now + task.memory))
    # Also where whoever asked is gone meanwhile.
    seconds = int(task.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = look(Path(task.folder), task.histories, task.now)
    except UserError as error:
        found = [str(error)]
    print(json.dumps([fault[:SAID] for fault in found[:20]]))


if __name__ == "__main__":
    main()
