"""Public tables in a few lines each: which files, which columns, what scale, what stands where a header is missing.

Owns the descriptions and the one way to read what they describe; what no description can say is a function of a few
lines beside it. `layouts` has the data sets that need more than that. Nothing is cleaned here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from byway.base import engine
from byway.base.errors import UserError
from byway.data import containers, files, tables, text, times
from byway.data.casts import as_number, as_text, concat
from byway.data.files import MALFORMED
from byway.data.forms import CLEAR
from byway.data.raw import Raw
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

MAX_TAGS = 10
"""Tags kept an item, those that most people gave: MovieLens 32M has thousands for some films."""

HALF = 0.5
"""Satisfaction of who saw it and gave no rating."""


@dataclass(frozen=True, slots=True)
class PublicTable:
    """One table of a public data set."""

    files: tuple[str, ...]
    """Patterns for `find`."""
    columns: dict[str, str]
    """Our columns to theirs: `a|b` is the first that is there, `a+b` both, one after the other."""
    header: tuple[str, ...] = ()
    """Names of the columns where the files have none."""
    scale: tuple[float, float] | None = None
    """Ratings that are no and full satisfaction; those below count as unrated, `HALF`."""
    quoted: bool = True
    """Whether quotes mean something there."""
    latin: bool = False
    """Whether the files may be in Latin-1."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Who gave which tag: a table of item and tag, and one of the tags' names."""

    given: PublicTable
    """`item`, the tag's number as `title`, and as `description` how many gave it where a row says so."""
    names: PublicTable
    """The tag's number as `item`, its name as `title`."""
    key: str = "item"
    """Column of items that the tags' `item` means; where it is not their id, `thumbnail` stands for it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A public data set."""

    name: str
    items: PublicTable
    events: PublicTable
    tags: Tags | None = None
    items_from: Callable[["daft.DataFrame"], "daft.DataFrame"] = field(default=lambda frame: frame)
    events_from: Callable[["daft.DataFrame"], "daft.DataFrame"] = field(default=lambda frame: frame)


def read(layout: Layout, folder: Path, events: Path | None, scratch: Path) -> Raw:
    """Open a public data set in `folder`; `events` names another log than the one that is found.

    Raises UserError where a file is missing or is not what it says.
    """
    items_at = find(folder, layout.name, *layout.items.files)
    events_at = [events] if events else find(folder, layout.name, *layout.events.files)
    items = _items(layout, folder, _opened(layout.items, items_at, scratch), scratch)
    log = _events(layout.events, _opened(layout.events, events_at, scratch))
    return Raw(layout.items_from(items), layout.events_from(log), items_at[0], events_at[0])


def find(folder: Path, name: str, *patterns: str) -> list[Path]:
    """Files of the first pattern that matches anything in the folder or its `data/`, by name.

    A second word of a pattern, after a blank, is a pattern left out. Raises UserError where there is none.
    """
    for pattern in patterns:
        wanted, _, without = pattern.partition(" ")
        for place in (folder, folder / "data"):
            found = [file for file in sorted(place.glob(wanted)) if not (without and fnmatch(file.name, without))]
            if found:
                return found
    shown = " or ".join(pattern.partition(" ")[0] for pattern in patterns)
    raise UserError(f"{folder} is not {name}: it has no {shown}, nor has its data folder.")


def _opened(table: PublicTable, paths: list[Path], scratch: Path) -> "daft.DataFrame":
    """All files of a table with our columns, still as text."""
    frames: list[Any] = []
    for part in (part for path in paths for part in containers.parts(path, "csv")):
        if table.latin:
            part = containers.in_utf8(part, scratch)
        found = tables.names_of(part, table.header)
        columns: dict[str, str] = {}
        for ours, several in table.columns.items():
            for n, theirs in enumerate(several.split("+")):
                names = theirs.split("|")
                columns[f"{ours}.{n}" if n else ours] = next((name for name in names if name in found), names[0])
        required = tuple(columns[name] for name in ("user", "item") if name in columns)
        frame, names = tables.frame(part, tables.Wanted(columns, required, table.header, table.quoted), scratch)
        frames.append(_under_our_names(frame, table, names))
    return concat(frames)


def _under_our_names(frame: "daft.DataFrame", table: PublicTable, names: dict[str, str]) -> "daft.DataFrame":
    """With one text of several columns; `names` are those of `frame` for ours."""
    daft = engine.daft()
    columns: list[Any] = []
    for ours in table.columns:
        there = [theirs for name, theirs in names.items() if name.partition(".")[0] == ours]
        if len(there) == 1:
            columns.append(daft.col(there[0]).alias(ours))
        elif there:
            blank = "|" if ours == "hashtags" else " "
            columns.append(daft.functions.concat_ws(blank, *(as_text(frame, name) for name in there)).alias(ours))
    broken = daft.col(MALFORMED) if MALFORMED in frame.column_names else daft.lit(False)
    return frame.select(*columns, broken.alias(MALFORMED))


def _items(layout: Layout, folder: Path, items: "daft.DataFrame", scratch: Path) -> "daft.DataFrame":
    """With the tags that were given most, where the data set has any.

    In Arrow: these tables are small, and after a join Daft 0.7 gave every group the sum of all.
    """
    if layout.tags is None:
        return items
    key = "item" if layout.tags.key == "item" else "thumbnail"
    aside = () if key == "item" else (key,)
    if not any(folder.glob(layout.tags.given.files[0])):
        return items.exclude(*aside)
    given, named = (
        _table(_opened(table, find(folder, layout.name, *table.files), scratch), folder)
        for table in (layout.tags.given, layout.tags.names)
    )
    whole = _table(items, folder)
    tag = named["title"].take(compute.index_in(given["title"], value_set=named["item"].combine_chunks()))
    has_uses = "description" in given.column_names
    uses = compute.cast(given["description"], pa.int64()) if has_uses else pa.repeat(1, len(given))
    most = most_used(pa.table({"item": given["item"], "tag": tag, "uses": uses}))
    column = pa.array([most.get(each, []) for each in whole[key].to_pylist()], pa.list_(pa.string()))
    return engine.daft().from_arrow(whole.append_column("hashtags", column).drop_columns(list(aside)))


def most_used(given: pa.Table) -> dict[Any, list[str]]:
    """The `MAX_TAGS` tags of each `item` with the most `uses`, in the order of their names."""
    counted = given.filter(compute.is_valid(given["tag"])).group_by(["item", "tag"]).aggregate([("uses", "sum")])
    counted = counted.sort_by([("item", "ascending"), ("uses_sum", "descending"), ("tag", "ascending")])
    most: dict[Any, list[str]] = {}
    for item, tag in zip(counted["item"].to_pylist(), counted["tag"].to_pylist(), strict=True):
        if len(tags := most.setdefault(item, [])) < MAX_TAGS:
            tags.append(tag)
    return {item: sorted(tags) for item, tags in most.items()}


def _table(frame: "daft.DataFrame", where: Path) -> pa.Table:
    """A small table at once, its bytes as text; rows that are not UTF-8 have � there."""
    table = files.whole(frame, where)
    for place, name in enumerate(table.column_names):
        if name != MALFORMED:
            table = table.set_column(place, name, text.decoded(table[name].combine_chunks())[0])
    return table


def read_times(column: pa.Array) -> pa.Array:
    """Microseconds since 1970: of numbers, which from 10^11 on are milliseconds, before that seconds; and of text.

    >>> read_times(pa.array(["1000000000", "1000000000000", "2001-09-09T01:46:40Z", "soon", None])).to_pylist()
    [1000000000000000, 1000000000000000, 1000000000000000, None, None]
    """
    found, by_milliseconds = (times.read(column, times.given(unit)) for unit in ("s", "ms"))
    found = compute.if_else(compute.greater_equal(found, 10**17), by_milliseconds, found)
    if found.null_count == column.null_count:
        return found
    return compute.coalesce(found, times.read(column, times.Form("text", tuple(CLEAR.values()))))


def _events(table: PublicTable, log: "daft.DataFrame") -> "daft.DataFrame":
    """Ratings on our scale, times in microseconds."""
    daft = engine.daft()
    if "time" in log.column_names:

        @daft.func.batch(return_dtype=daft.DataType.int64())
        def microseconds(column: Any) -> Any:
            return daft.Series.from_arrow(read_times(column.to_arrow()))

        log = log.with_column("time", microseconds(daft.col("time")))
    if table.scale is not None:
        low, high = table.scale
        rating = as_number(log, "satisfaction")
        unrated = (rating < low) & rating.not_nan()
        scaled = daft.functions.when(unrated, daft.lit(HALF)).otherwise((rating - low) / (high - low))
        log = log.with_column("satisfaction", scaled)
    return log
