"""`byway forget`: people taken out of a workspace, its history and the log that it was built from.

Owns the rewriting of artifacts in which ids of people stand: 01-catalog (events, users, quarantine), and
17-refresh, which numbers its users on from those of the catalog and is dropped with them. What was made from the
log (the table, models, figures) holds no id; the next run builds it anew, since its input is another one now.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import artifact
from byway.base.artifact import Outcome
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import command
from byway.data.text import compute
from byway.serving import stores
from byway.serving.history import Unavailable
from byway.workflow.stages import CATALOG, REFRESH


def forget(workspace: Path, config: Config, users: Sequence[str]) -> dict[str, Any]:
    """Delete these people; how many rows of the history and of the log they had, and whether refreshes are dropped.

    Raises UserError where a name is no text, where another process works on the workspace, and where the history
    does not answer.
    """
    for user in users:
        try:
            user.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"The user {user!a} is no text in UTF-8; name them as the log does.") from error
    gone = asyncio.run(_from_history(workspace, config, users))
    with artifact.locked(workspace):
        events, refreshes = _from_log(workspace, users)
    return {"users": len(set(users)), "history": gone, "events": events, "refreshes": refreshes}


def in_words(workspace: Path, found: dict[str, Any]) -> str:
    """What was deleted, and what is left to do."""
    text = f"{found['history']:,} rows of the history and {found['events']:,} events of the log are deleted."
    if found["refreshes"]:
        text += " The refreshes since the last full run are dropped; the bundle that they made is served on."
    if found["events"] or found["refreshes"]:
        text += " Delete them in the files that the log was read from too, and build anew what was made from it: "
        text += command("run", workspace)
    return text


async def _from_history(workspace: Path, config: Config, users: Sequence[str]) -> int:
    try:
        async with stores.opened(config.serving, workspace / "serving") as store:
            gone = sum([await store.delete(user) for user in users])
            await store.scrub(at_once=True)
            return gone
    except Unavailable as error:
        raise UserError(f"{error} Type the same command again when it does.") from error


def _from_log(workspace: Path, users: Sequence[str]) -> tuple[int, bool]:
    """Write the log anew without some people; how many events they had in it, and whether refreshes are dropped."""
    path, refreshed = workspace / CATALOG.folder, workspace / REFRESH
    record = artifact.read_record(path)
    there = record is not None and _stand_in(path, users)
    dropped = artifact.read_record(refreshed) is not None and (there or _stand_in(refreshed, users))
    if dropped:
        shutil.rmtree(refreshed)
        artifact.tidy(refreshed)
    if record is None or not there:
        return 0, dropped
    wanted = pa.array(users, pa.string())
    names = pq.read_table(path / "users.parquet")
    stays = compute.invert(compute.is_in(names["user"], value_set=wanted))
    kept = stays.to_numpy(zero_copy_only=False)
    with artifact.part(path, record.stage, record.settings, record.inputs) as work:
        shutil.copyfile(path / "items.parquet", work.out / "items.parquet")
        pq.write_table(names.filter(stays), work.out / "users.parquet", compression="zstd")
        if (path / "quarantine.parquet").exists():
            held = pq.read_table(path / "quarantine.parquet")
            theirs = compute.and_(compute.equal(held["table"], "events"), compute.is_in(held["id"], wanted))
            pq.write_table(
                held.filter(compute.invert(compute.fill_null(theirs, False))), work.out / "quarantine.parquet"
            )
        gone = _without(path / "events.parquet", work.out / "events.parquet", kept)
    counts = record.counts | {"events": record.counts.get("events", 0) - gone, "users": int(kept.sum())}
    metrics = record.metrics | {"catalog.events": counts["events"], "catalog.users": counts["users"]}
    outcome = Outcome(counts=counts, metrics=metrics, gates=record.gates, timings=record.timings)
    artifact.commit(path, record.stage, record.settings, record.inputs, outcome)
    return gone, dropped


def _stand_in(path: Path, users: Sequence[str]) -> bool:
    """Whether some people stand in the users or the quarantine of an artifact."""
    wanted = pa.array(users, pa.string())
    for file, column in (("users.parquet", "user"), ("quarantine.parquet", "id")):
        if (path / file).exists():
            ids = compute.cast(pq.read_table(path / file, columns=[column])[column], pa.string())
            if compute.any(compute.is_in(ids, value_set=wanted)).as_py():
                return True
    return False


def _without(source: Path, target: Path, kept: NDArray[np.bool_]) -> int:
    """Copy a log a row group at a time, without the users who are not `kept`, the others numbered anew; how many
    events were left out."""
    number = np.cumsum(kept) - 1
    gone = 0
    with pq.ParquetFile(source) as log, pq.ParquetWriter(target, log.schema_arrow, compression="zstd") as out:
        for group in range(log.num_row_groups):
            table = log.read_row_group(group)
            user = table["user"].to_numpy()
            stays = kept[user]
            gone += int((~stays).sum())
            table = table.filter(pa.array(stays))
            column = table.schema.get_field_index("user")
            numbers = pa.array(number[user[stays]].astype(np.int32))
            out.write_table(table.set_column(column, table.schema.field("user"), numbers))
    return gone
