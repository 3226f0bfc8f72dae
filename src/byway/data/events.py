"""01-catalog, the log: who met which item when, and how content they were.

Owns `events.parquet` and `users.parquet`. Events are sorted by user, time and arrival; users are numbered in the
order in which the log first names them. It knows no layout: `sources` brings the raw rows.

A log has a clock (microseconds since 1970) or only an order; without a clock `time` is the event's position in
its user's own sequence. Rows that come unsorted are sorted by their clock. Where a source has both a clock and an
explicit `order`, the order is believed: an event whose clock is behind an earlier one of its user is quarantined.
Where that would be more than a tenth of the events (a purchase number, say), the clock is believed, the order only
among equal times, and that is said.

An event is quarantined, and counted, for the first of these reasons: `wrong fields`, `invalid utf-8`, `empty id`,
`bad id`, `unknown item`, `bad time` (missing, unreadable, before 1970), `future time` (more than a day from now),
`bad order`, `bad satisfaction` (missing, NaN, outside [0, 1]), `bad watch seconds`, `bad propensity`, `backward
time`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.data import files, ids, sources, text
from byway.data.files import MALFORMED
from byway.data.quarantine import Faults, Quarantine, Sieve
from byway.data.raw import WRITTEN
from byway.data.text import compute

DAY = 86_400_000_000
"""Microseconds."""

CONTRADICTED = 0.1
"""Where the clock is behind in a larger share of the events, their `order` is no order."""

SCHEMA = pa.schema(
    [
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("time", pa.int64()),
        ("satisfaction", pa.float32()),
        ("watch_seconds", pa.float32()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("propensity", pa.float32()),
    ]
)

BATCH_ROWS = 1 << 20
"""Events cleaned at a time, and rows of a row group: 30 MB of columns, and few enough batches that looking the
catalog up anew in each of them costs little."""


@dataclass(frozen=True, slots=True)
class Events:
    """The finished log as arrays of length N, sorted by (user, time, order of arrival)."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    """Row of the catalog."""
    time: NDArray[np.int64]
    """Microseconds since 1970 where `clock`, else the position in the user's own sequence."""
    satisfaction: NDArray[np.float32]
    """In [0, 1]."""
    clock: bool
    n_users: int
    n_items: int
    positive: float = 0.5
    """Satisfaction from which an event is a high-quality interaction."""
    propensity: NDArray[np.float32] | None = None
    """[N] the chance with which an item was shown, 1 where that is not known; None where it is of no event."""

    def __len__(self) -> int:
        return len(self.user)

    def starts(self) -> NDArray[np.int64]:
        """[n_users + 1] where each user's events start, and the end of the log."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    def good(self) -> NDArray[np.bool_]:
        """[N] whether each event is a high-quality interaction."""
        return self.satisfaction >= self.positive


def load(path: Path) -> Events:
    """Read the log of the finished artifact at `path`."""
    file = path / "events.parquet"
    table = pq.read_table(file, columns=["user", "item", "time", "satisfaction", "propensity"])
    metadata, chance = table.schema.metadata or {}, table["propensity"]
    known = chance.null_count < len(chance)
    return Events(
        *(table[name].to_numpy() for name in ("user", "item", "time", "satisfaction")),
        clock=metadata[b"clock"] == b"true",
        n_users=pq.read_metadata(path / "users.parquet").num_rows,
        n_items=pq.read_metadata(path / "items.parquet").num_rows,
        positive=float(metadata[b"positive"]),
        propensity=compute.fill_null(chance, 1.0).to_numpy() if known else None,
    )


def load_users(path: Path) -> list[str]:
    """The ids by which the input knows the users, in index order."""
    return pq.read_table(path / "users.parquet")["user"].to_pylist()


def traffic(events: Events) -> NDArray[np.float64]:
    """Events an item, [n_items]."""
    return np.bincount(events.item, minlength=events.n_items).astype(np.float64)


@dataclass(slots=True)
class CleanLog:
    """The clean log in memory as columns, in order of arrival.

    About 25 bytes an event; sorting takes the peak to 72 (measured at 10 and 30 million events: 1.0 and 2.4 GB).
    """

    users: pa.Array
    columns: dict[str, Any]
    """Numpy arrays; `source` is a dictionary of Arrow's."""
    clock: bool
    order: NDArray[np.int64] = field(repr=False)
    """Arrival numbers in the order of the file that is written."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of how it was ordered, in sentences."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def n_users(self) -> int:
        return len(self.users)

    def write(self, directory: Path, positive: float) -> None:
        """Write `users.parquet` and `events.parquet`, the latter a row group at a time.

        `positive` travels with the log: from it on, satisfaction counts as high quality.
        """
        users = pa.table({"user": compute.cast(self.users, pa.string())})
        pq.write_table(users, directory / "users.parquet", row_group_size=BATCH_ROWS, compression="zstd")
        schema = SCHEMA.with_metadata({"clock": "true" if self.clock else "false", "positive": str(positive)})
        with pq.ParquetWriter(directory / "events.parquet", schema, compression="zstd") as writer:
            for start in range(0, len(self), BATCH_ROWS):
                rows = self.order[start : start + BATCH_ROWS]
                writer.write_table(pa.table([self._column(f, rows) for f in SCHEMA], schema=schema))

    def _column(self, wanted: pa.Field, rows: NDArray[np.int64]) -> pa.Array:
        if wanted.name not in self.columns:
            return pa.nulls(len(rows), wanted.type)
        if wanted.name == "source":
            return self.columns["source"].take(pa.array(rows))
        nullable = wanted.name in ("watch_seconds", "propensity")
        return pa.array(self.columns[wanted.name][rows], wanted.type, from_pandas=nullable)


def cleaned(raw: sources.Raw, items: pa.Array, kept_out: Quarantine, now: int) -> CleanLog:
    """Stream the raw events once and keep the good ones, as columns.

    `items` are the catalog's ids in index order; `now` is in microseconds. Bad rows go to `kept_out`.
    """
    known, faults = ids.Lookup(items), Faults(raw.events_from)
    kept: dict[str, list[Any]] = {"user": [], "item": [], "satisfaction": []}
    first_row = 0
    for batch in files.batches(raw.events, raw.events_from, BATCH_ROWS):
        good, columns = _clean_batch(batch, first_row, known, raw.events_from, kept_out, now, faults=faults)
        for name, values in columns.items():
            worded = name in ("user", "source")
            some = values.take(pa.array(good)).dictionary_encode() if worded else values[good]
            kept.setdefault(name, []).append(some)
        first_row += batch.num_rows
    known.check(raw.events_from)
    faults.require_few()
    user = _canonical_users(_unified(kept.pop("user")), raw.events_from)
    origins = {"source": _unified(kept.pop("source"))} if "source" in kept else {}
    # One column after the other, so that none is held twice for longer than it takes.
    numbers = {name: np.concatenate(kept.pop(name) or [np.empty(0)]) for name in list(kept)}
    columns = {"user": user.indices.to_numpy(), **numbers, **origins}
    log = CleanLog(user.dictionary, columns, "time" in raw.events.column_names, np.empty(0, np.int64))
    _sort(log, kept_out)
    return log


def _clean_batch(
    batch: pa.RecordBatch,
    first_row: int,
    known: ids.Lookup,
    where: Path,
    kept_out: Quarantine,
    now: int,
    *,
    faults: Faults,
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """One batch of raw events: which rows are good, and all rows' columns."""
    there = set(batch.schema.names)
    user, bad_user = text.decoded(batch.column("user"))
    item, bad_item = text.decoded(batch.column("item"))
    user, bad_id = text.checked_ids(user)
    item = text.checked_ids(item)[0]
    index = known.rows(item, where)
    columns: dict[str, Any] = {"user": user, "item": compute.fill_null(index, -1).to_numpy()}
    invalid = bad_user | bad_item
    if "source" in there:
        origin, bad_source = text.decoded(batch.column("source"))
        columns["source"] = text.stripped(origin)[0]
        invalid |= bad_source

    sieve = Sieve(kept_out, "events", first_row, user)
    if MALFORMED in there:
        sieve.reject("wrong fields", text.mask(batch.column(MALFORMED)), item)
    sieve.reject("invalid utf-8", invalid, item)
    sieve.reject("empty id", text.missing_ids(user) | text.missing_ids(item), item)
    sieve.reject("bad id", bad_id, user)
    sieve.reject("unknown item", text.mask(compute.is_null(index)), item)
    for name in ("time", "order"):
        if name in there:
            value = columns[name] = compute.fill_null(batch.column(name), -1).to_numpy()
            bad = value < 0 if name == "time" else text.mask(compute.is_null(batch.column(name)))
            late = (value > now + DAY) & (name == "time")
            written = _written(batch, name)
            sieve.reject(f"bad {name}", bad, written)
            sieve.reject("future time", late, written)
            faults.add(name, bad | late, written)
    if {"time", "order"} <= there:
        columns["row"] = np.arange(first_row, first_row + batch.num_rows)
    columns["satisfaction"] = np.ones(batch.num_rows, np.float32)
    for name, low, high in (("satisfaction", 0.0, 1.0), ("watch_seconds", 0.0, 3.4e38), ("propensity", 1e-38, 1.0)):
        if name in there:
            value = batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
            good = (value >= low) & (value <= high)
            if name != "satisfaction":
                good |= text.mask(compute.is_null(batch.column(name)))
            written = _written(batch, name)
            sieve.reject(f"bad {name.replace('_', ' ')}", ~good, written)
            faults.add(name, ~good, written)
            columns[name] = np.where(good, value, np.nan).astype(np.float32)
    return np.flatnonzero(sieve.kept), columns


def _written(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column as it stood in the file, where it is known."""
    return batch.column(f"{WRITTEN}{name}" if f"{WRITTEN}{name}" in batch.schema.names else name)


def _unified(chunks: list[pa.DictionaryArray]) -> pa.DictionaryArray:
    """Chunks under one dictionary, its words in order of first appearance."""
    if not chunks:
        return pa.array([], pa.large_string()).dictionary_encode()
    return pa.chunked_array(chunks).unify_dictionaries().combine_chunks()


def _canonical_users(user: pa.DictionaryArray, where: Path) -> pa.DictionaryArray:
    """Users under one way of writing their ids, in order of first appearance."""
    canonical = ids.canonical(user.dictionary, where, "user").dictionary_encode()
    return pa.DictionaryArray.from_arrays(canonical.indices.take(user.indices), canonical.dictionary)


def _sort(log: CleanLog, kept_out: Quarantine) -> None:
    """Set the order of the log; without a clock, make `time` the position in the user's sequence."""
    columns, user = log.columns, log.columns["user"]
    order, row = columns.pop("order", None), columns.pop("row", None)
    if len(user) == 0:
        return
    if not log.clock:
        log.order = np.argsort(user, kind="stable") if order is None else np.lexsort((order, user))
        columns["time"] = _positions(user, log.order)
    elif order is None:
        log.order = np.lexsort((columns["time"], user))
    else:
        arrival = np.lexsort((order, user))
        behind = _behind(log, arrival)
        if behind.mean() > CONTRADICTED:
            log.notes.append(
                f"`order` contradicts `time` in {int(behind.sum()):,} of {len(behind):,} events, so it is no "
                "place in a user's sequence: the clock is believed, and `order` only where times are equal."
            )
            log.order = np.lexsort((order, columns["time"], user))
        else:
            log.order, wrong = arrival[~behind], arrival[behind]
            who = log.users.take(pa.array(user[wrong]))
            when = pa.array(columns["time"][wrong], pa.timestamp("us"))
            kept_out.put("events", "backward time", row[wrong], who, when)


def _positions(user: NDArray[Any], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2... along each user's events, taken in `order`; [N] by arrival."""
    size = len(order)
    running = np.arange(size)
    of = user[order]
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    position = np.empty(size, np.int64)
    position[order] = running - np.repeat(starts, np.diff(np.r_[starts, size]))
    return position


def _behind(log: CleanLog, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whose clock is behind that of an earlier event of their user; events are one after the other in `order`."""
    user, time = log.columns["user"][order].astype(np.int64), log.columns["time"][order]
    # Times as ranks, so that one running maximum over user * N + rank fits into 64 bits.
    rank = np.unique(time, return_inverse=True)[1]
    key = user * (len(order) + 1) + rank
    return key < np.maximum.accumulate(key)
