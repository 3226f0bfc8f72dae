"""What the people of the log are answered: one of them, some as a table, or all of them into a file.

Everybody has a random generator of their own, of the seed and their id, so that the answer to one person is the
same alone, in a table and in any part of a file. This module chooses no interest and no item: `serving` does.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import artifact, engine
from byway.base.artifact import Record
from byway.base.errors import UserError
from byway.base.progress import bar, command, say
from byway.data.events import Events
from byway.serving import batch
from byway.serving.answers import ITEMS
from byway.serving.batch import Request
from byway.serving.bundle import Bundle, hash_of
from byway.serving.person import Seen, in_catalog
from byway.workflow.artifacts import Artifacts
from byway.workflow.showing import served
from byway.workflow.stages import BUNDLE, CATALOG, REFRESHED

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("cluster", pa.string()),
        ("propensity", pa.float64()),
    ]
)
"""A row for each item that a user is shown, the best (rank 1) first; score and propensity as in `Shown`."""
PART = 4096
"""Users of a part: what is done again after a kill, some seconds of work."""
WANTED = "wanted.json"
IDENTITY = b"byway.recommendations"
"""Key of the finished file's metadata under which stands what it was made for."""


def generator(seed: int, user: str) -> np.random.Generator:
    """The random generator of one user: no two users share one, and none depends on who else is answered."""
    return np.random.default_rng([seed, hash_of(user)])


@dataclass(frozen=True, slots=True)
class Histories:
    """The people of the log and what they did."""

    users: list[str]
    items: list[str]
    """Ids by row of the catalog."""
    events: Events
    starts: NDArray[np.int64]
    """[users + 1] user u has the events from starts[u] to starts[u + 1]."""

    def history(self, user: int) -> tuple[list[Seen], int | None]:
        """What a user did, and the time at which that ends; None without a clock."""
        log, (a, b) = self.events, self.starts[user : user + 2].tolist()
        times = log.time[a:b].tolist() if log.clock else [None] * (b - a)
        columns = log.item[a:b].tolist(), times, log.satisfaction[a:b].tolist()
        seen = [Seen(self.items[item], time, content) for item, time, content in zip(*columns, strict=True)]
        return seen, times[-1] if times else None


def open_log(workspace: Path) -> Histories:
    """The log that the bundle was made with.

    Raises UserError where the log is newer than the bundle. After a refresh it says that what that took in is not
    there.
    """
    if REFRESHED in _bundle_of(workspace).metrics:
        say("This is the history in the log of the last full run; what a refresh took in is not in it.")
    built = Artifacts(workspace)
    log, users = built.events, built.users
    return Histories(
        users, built.catalog.ids(), log, np.searchsorted(log.user, np.arange(len(users) + 1)).astype(np.int64)
    )


def _bundle_of(workspace: Path) -> Record:
    """The record of the bundle. Raises UserError where the log is newer: its items may stand in other rows."""
    record, used = (artifact.read_record(workspace / stage.folder) for stage in (CATALOG, BUNDLE))
    if record is None or used is None or used.inputs.get("catalog") != record.digest:
        raise UserError(f"The bundle of {workspace} is older than its catalog; run: {command('run', workspace)}")
    return used


def logged(workspace: Path, user: str) -> tuple[list[Seen], int | None]:
    """What a user of the log did, and the time at which that ends; None without a clock.

    Raises UserError where the log has no such user, or is newer than the bundle.
    """
    log = open_log(workspace)
    return log.history(numbers(workspace, log, [user])[0])


def numbers(workspace: Path, log: Histories, users: Sequence[str]) -> list[int]:
    """The numbers of users of the log. Raises UserError where it has no such user."""
    place = {user: i for i, user in enumerate(log.users)}
    for user in users:
        if user not in place:
            refreshed = REFRESHED in _bundle_of(workspace).metrics
            since = " of the last full run; give what came since as --history" if refreshed else ""
            raise UserError(f"There is no user {user!r} in the log{since}.")
    return [place[user] for user in users]


def of_users(bundle: Bundle, log: Histories, users: Sequence[int], k: int, seed: int) -> pa.Table:
    """What users of the log, by number, are shown: a table of SCHEMA, users in the order given."""
    return _answer_part(bundle, log, bundle.positions(log.items), k, seed, users)


def _answer_part(
    bundle: Bundle, log: Histories, positions: Sequence[int | None], k: int, seed: int, users: Sequence[int]
) -> pa.Table:
    """The same, with the position in the bundle of each row of the catalog."""
    names = [log.users[user] for user in users]
    return _table(bundle, names, (_asked(log, positions, user, seed) for user in users), k)


def _asked(log: Histories, positions: Sequence[int | None], user: int, seed: int) -> Request:
    seen, now = log.history(user)
    a, b = log.starts[user : user + 2].tolist()
    at = (positions[row] for row in log.events.item[a:b].tolist())
    known = [(s, p) for s, p in zip(seen, at, strict=True) if p is not None]
    return Request(known, now, generator(seed, log.users[user]))


def of_histories(bundle: Bundle, histories: Mapping[str, Sequence[Seen]], k: int, seed: int) -> pa.Table:
    """The same for people with these histories, the most recent item last, whatever the log says of them."""
    asked = (Request(in_catalog(bundle, seen), None, generator(seed, user)) for user, seen in histories.items())
    return _table(bundle, list(histories), asked, k)


def _table(bundle: Bundle, users: Sequence[str], asked: Iterable[Request], k: int) -> pa.Table:
    found = batch.answer(bundle, asked, k)
    names = pa.array(bundle.manifest.names, pa.string())
    columns = [
        pa.array(users, pa.string()).take(pa.array(found.person)),
        pa.array([bundle.ids[p] for p in found.position.tolist()], pa.string()),
        pa.array(found.rank, pa.int32()),
        pa.array(found.score),
        names.take(pa.array(bundle.clusters(found.position))),
        pa.array(found.propensity),
    ]
    return pa.table(columns, schema=SCHEMA)


def write(workspace: Path, out: Path, k: int | None = None, seed: int = 0) -> dict[str, int]:
    """What everybody in the log is shown, as the parquet file `out`; how many users and rows it has.

    Parts of PART users are kept in `<out>.parts` until all are there, and computed by whom `engine.use` chose. A
    part that is whole is not computed again, as long as bundle, k and seed are the same. Memory goes with the log
    and one part, and not with the answers.

    Raises UserError where `out` is something else than such a table, or another process writes it.
    """
    k = ITEMS if k is None else k
    digest = _bundle_of(workspace).digest
    identity = json.dumps({"bundle": digest, "k": k, "seed": seed, "part": PART}, sort_keys=True)
    with artifact.reading(workspace / CATALOG.folder):
        users = pq.read_metadata(workspace / CATALOG.folder / "users.parquet").num_rows
    known = _written(out)
    if known is not None and known[0] == identity:
        say(f"{out} is up to date.")
        return {"users": users, "rows": known[1]}
    folder = out.with_name(out.name + ".parts")
    out.parent.mkdir(parents=True, exist_ok=True)
    with artifact.locked(folder):
        _keep_only(folder, identity)
        parts = [range(start, min(start + PART, users)) for start in range(0, users, PART)]
        path_of = {part: folder / f"part-{i:06d}.parquet" for i, part in enumerate(parts)}
        left = [part for part in parts if not path_of[part].exists()]
        done = users - sum(map(len, left))
        with bar("users", users, done) as advance:
            for i, table in engine.spread(partial(_answerer, workspace.resolve(), digest, k, seed), left):
                artifact.write_atomic(path_of[left[i]], _bytes(table))
                advance(len(left[i]))
        rows = _join([path_of[part] for part in parts], out, identity)
    shutil.rmtree(folder)
    return {"users": users, "rows": rows}


def _answerer(workspace: Path, digest: str, k: int, seed: int) -> Callable[[range], pa.Table]:
    """What answers the users of a part, with the bundle of this digest."""
    if _bundle_of(workspace).digest != digest:
        raise UserError(f"The bundle of {workspace} was replaced meanwhile; type the same command again.")
    opened, log = served(workspace), open_log(workspace)
    return partial(_answer_part, opened, log, opened.positions(log.items), k, seed)


def _written(out: Path) -> tuple[str, int] | None:
    """Of the finished table at `out` what it was made for, and its rows; None where there is nothing."""
    if not out.exists():
        return None
    try:
        found = pq.read_metadata(out) if out.is_file() else None
    except pa.ArrowInvalid:
        found = None
    identity = None if found is None else (found.metadata or {}).get(IDENTITY)
    if found is None or identity is None:
        raise UserError(f"{out} is there already and is no table of recommendations; name another file.")
    return identity.decode(), found.num_rows


def _keep_only(folder: Path, identity: str) -> None:
    """Remove parts that belong to another bundle, k or seed."""
    wanted = folder / WANTED
    if not (wanted.exists() and wanted.read_text("utf-8") == identity):
        for path in folder.glob("part-*.parquet"):
            path.unlink()
        artifact.write_atomic(wanted, identity.encode())


def _join(parts: Sequence[Path], out: Path, identity: str) -> int:
    """All parts as one file, which appears whole; how many rows."""
    temporary, rows = out.with_name(out.name + ".tmp"), 0
    meta = {IDENTITY: identity.encode()}
    with pq.ParquetWriter(temporary, SCHEMA.with_metadata(meta), compression="zstd") as file:
        for path in parts:
            table = pq.read_table(path)
            file.write_table(table.replace_schema_metadata(meta))
            rows += table.num_rows
    artifact.flush(temporary)
    os.replace(temporary, out)
    artifact.flush(out.parent)
    return rows


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
