"""A log cut in two, person by person: what was known of them, and what they turned to afterwards.

Owns `later.parquet`, from which a replay takes its answers. The earlier part becomes tables of one's own, with
every item of the catalog. Nothing is lost: each event stands in one of the two, in the order of the log.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data import files

FILE = "later.parquet"
SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("satisfaction", pa.float32())])
"""Satisfaction is in [0, 1]; rows of a user are in order of time."""


def split(
    catalog: Path, out: Path, share: float = 0.3, at_least: int = 20, media: Path | None = None
) -> dict[str, int]:
    """Cut the log of the finished 01-catalog at `catalog`; write `items`, `events` and `later.parquet` to `out`.

    The last `share` of the events, rounded down, of every person with `at_least` events are later; other people's
    log stays whole. Events of one time keep the order that they have in the log. Relative names of media files,
    which start at the folder `media`, are made absolute. Returns counts. Raises UserError where the catalog is not
    built, and where nothing is later.
    """
    if not 0 < share < 1:
        raise UserError(f"A share of {share:g} leaves one part empty; choose one between 0 and 1.")
    for name in ("items", "events", "users"):
        if not (catalog / f"{name}.parquet").exists():
            raise UserError(f"{catalog} holds no {name}.parquet; build it: byway run WORKSPACE --until catalog.")
    events = pq.read_table(catalog / "events.parquet")
    user = events["user"].to_numpy()
    late = last(user, share, at_least)
    if not late.any():
        raise UserError(
            f"Nobody in {catalog} has {at_least} events of which {share:.0%} would be one at least; ask for fewer."
        )
    clock = (events.schema.metadata or {})[b"clock"] == b"true"
    items = pq.read_table(catalog / "items.parquet")
    users = pq.read_table(catalog / "users.parquet")
    named = {"user": users["user"].take(events["user"]), "item": items["item"].take(events["item"])}
    if clock:  # else the position of an event is in the order of the rows
        named["time"] = events["time"].cast(pa.timestamp("us"))
    named |= {name: events[name] for name in ("satisfaction", "watch_seconds", "propensity")}
    log = pa.table(_filled({**named, "source": events["source"].cast(pa.string())}))
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(_own(items, media), out / "items.parquet", compression="zstd")
    pq.write_table(log.filter(pa.array(~late)), out / "events.parquet", compression="zstd")
    pq.write_table(log.filter(pa.array(late)).select(SCHEMA.names).cast(SCHEMA), out / FILE, compression="zstd")
    return {
        "items": items.num_rows,
        "people": len(np.unique(user)),
        "people_with_later": len(np.unique(user[late])),
        "earlier": int((~late).sum()),
        "later": int(late.sum()),
    }


def last(user: NDArray[np.int32], share: float, at_least: int) -> NDArray[np.bool_]:
    """[N] which events, sorted by `user`, are among the last `share` of a user who has `at_least` of them."""
    size = np.bincount(user, minlength=int(user.max(initial=-1)) + 1)
    taken = np.where(size >= at_least, (size * share).astype(np.int64), 0)
    after = np.cumsum(size)[user] - np.arange(len(user))
    return after <= taken[user]


def read(path: Path) -> pa.Table:
    """Users, items and satisfaction at `path`, as in `SCHEMA`.

    Raises UserError where a column is missing or of another kind, and where satisfaction is outside [0, 1].
    """
    files.require(path, files.parquet_schema(path).names, SCHEMA.names)
    try:
        table = pq.read_table(path, columns=SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{path}: users and items must be text, satisfaction a number ({files.first_line(error)})."
        ) from error
    value = table["satisfaction"].to_numpy()
    if not ((value >= 0) & (value <= 1)).all():
        raise UserError(
            f"{path}: satisfaction is outside 0 to 1; bring it to that scale, as the log of 01-catalog is."
        )
    return table


def _own(items: pa.Table, media: Path | None) -> pa.Table:
    """The items under the ids of the input, relative names of files made absolute."""
    columns = dict(zip(items.column_names, items.columns, strict=True))
    columns["created_at"] = columns["created_at"].cast(pa.timestamp("us"))
    if media is not None:
        for name in ("thumbnail", "media"):
            paths = (
                path and (path if "://" in path else str(media.resolve() / path))
                for path in columns[name].to_pylist()
            )
            columns[name] = pa.chunked_array([pa.array(list(paths), pa.string())])
    return pa.table(_filled(columns))


def _filled(columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """Without the columns that hold nothing."""
    return {name: column for name, column in columns.items() if column.null_count < len(column)}
