"""Public tables in a few lines each: which files, which columns, what scale, what stands where a header is missing.

Owns the descriptions and the one way to read what they describe; what no description can say is a function of a few
lines beside it. `layouts` has the data sets that need more than that. Nothing is cleaned here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from byway.base import engine
from byway.base.errors import UserError
from byway.data import containers, files, tables, text
from byway.data.casts import as_bytes, as_number, as_text, concat
from byway.data.files import MALFORMED
from byway.data.raw import Raw
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

MAX_TAGS = 10
"""Tags kept an item, those that most people gave."""

HALF = 0.5
"""Satisfaction of who saw it and gave no rating."""


@dataclass(frozen=True, slots=True)
class PublicTable:
    """One table of a public data set."""

    files: tuple[str, ...]
    """Patterns, the first that matches counts; a second word after a blank is a pattern left out."""
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
    items_at = _find(folder, layout.name, layout.items)
    events_at = [events] if events else _find(folder, layout.name, layout.events)
    items = _items(layout, folder, _opened(layout.items, items_at, scratch), scratch)
    log = _events(layout.events, _opened(layout.events, events_at, scratch))
    return Raw(layout.items_from(items), layout.events_from(log), items_at[0], events_at[0])


def _find(folder: Path, name: str, table: PublicTable) -> list[Path]:
    """Files of the first pattern that matches anything in the folder or its `data/`, by name."""
    for pattern in table.files:
        wanted, _, without = pattern.partition(" ")
        for place in (folder, folder / "data"):
            found = [file for file in sorted(place.glob(wanted)) if not (without and fnmatch(file.name, without))]
            if found:
                return found
    shown = " or ".join(pattern.partition(" ")[0] for pattern in table.files)
    raise UserError(f"{folder} is not {name}: it has no {shown}, nor has its data folder.")


def _opened(table: PublicTable, paths: list[Path], scratch: Path) -> "daft.DataFrame":
    """All files of a table with our columns, still as text."""
    frames: list[Any] = []
    for part in (part for path in paths for part in containers.parts(path, "csv")):
        if table.latin:
            part = containers.in_utf8(part, scratch)
        found = list(table.header) or tables.column_names(part.path, "csv")
        chosen = {ours: _there(theirs, found) for ours, theirs in table.columns.items()}
        each = {
            name: theirs
            for ours, several in chosen.items()
            for name, theirs in zip((ours, f"{ours}.2", f"{ours}.3"), several, strict=False)
        }
        required = tuple(each[name] for name in ("user", "item") if name in each)
        frame, names = tables.frame(part, tables.Wanted(each, required, table.header, table.quoted), scratch)
        frames.append(_together(frame, chosen, names))
    columns = dict.fromkeys(name for frame in frames for name in frame.column_names)
    return concat([_filled(frame, list(columns)) for frame in frames])


def _there(theirs: str, found: list[str]) -> list[str]:
    """The columns that a description means, in a file that has those `found`."""
    return [
        next((name for name in each.split("|") if name in found), each.split("|")[0]) for each in theirs.split("+")
    ]


def _together(frame: "daft.DataFrame", chosen: dict[str, list[str]], names: dict[str, str]) -> "daft.DataFrame":
    """Under our names, with one text of several columns."""
    daft = engine.daft()
    columns: list[Any] = []
    for ours, several in chosen.items():
        there = [names[name] for name in (ours, f"{ours}.2", f"{ours}.3")[: len(several)] if name in names]
        if len(there) == 1:
            columns.append(daft.col(there[0]).alias(ours))
        elif there:
            blank = "|" if ours == "hashtags" else " "
            columns.append(daft.functions.concat_ws(blank, *(as_text(frame, name) for name in there)).alias(ours))
    broken = daft.col(MALFORMED) if MALFORMED in frame.column_names else daft.lit(False)
    return frame.select(*columns, broken.alias(MALFORMED))


def _filled(frame: "daft.DataFrame", columns: list[str]) -> "daft.DataFrame":
    daft = engine.daft()
    kinds = frame.schema()
    there = frame.column_names
    return frame.select(
        *(
            (as_bytes(daft.col(name)) if name != MALFORMED and not kinds[name].dtype.is_list() else daft.col(name))
            if name in there
            else daft.lit(None).cast(daft.DataType.binary()).alias(name)
            for name in columns
        )
    )


def _items(layout: Layout, folder: Path, items: "daft.DataFrame", scratch: Path) -> "daft.DataFrame":
    """With the tags that were given most, where the data set has any.

    In Arrow: these tables are small, and after a join Daft 0.7 gave every group the sum of all.
    """
    if layout.tags is None:
        return items
    key = "item" if layout.tags.key == "item" else "thumbnail"
    if not any(folder.glob(layout.tags.given.files[0])):
        return items.exclude(*({"thumbnail"} if key == "thumbnail" else ()))
    given = _table(_opened(layout.tags.given, _find(folder, layout.name, layout.tags.given), scratch), folder)
    named = _table(_opened(layout.tags.names, _find(folder, layout.name, layout.tags.names), scratch), folder)
    whole = _table(items, folder)
    name = named["title"].take(compute.index_in(given["title"], value_set=named["item"].combine_chunks()))
    uses = compute.cast(given["description"], pa.int64()) if "description" in given.column_names else None
    uses = pa.chunked_array([np.ones(len(given), np.int64)]) if uses is None else uses
    counted = pa.table({"item": given["item"], "name": name, "uses": uses}).filter(compute.is_valid(name))
    counted = counted.group_by(["item", "name"]).aggregate([("uses", "sum")])
    counted = counted.sort_by([("item", "ascending"), ("uses_sum", "descending"), ("name", "ascending")])
    most: dict[str, list[str]] = {}
    for item, tag in zip(counted["item"].to_pylist(), counted["name"].to_pylist(), strict=True):
        if len(tags := most.setdefault(item, [])) < MAX_TAGS:
            tags.append(tag)
    column = pa.array([sorted(most.get(each, ())) for each in whole[key].to_pylist()], pa.list_(pa.string()))
    if key == "thumbnail":
        whole = whole.drop_columns("thumbnail")
    return engine.daft().from_arrow(whole.append_column("hashtags", column))


def _table(frame: "daft.DataFrame", where: Path) -> pa.Table:
    """A small table at once, its bytes as text; rows that are not UTF-8 have � there."""
    pieces = list(files.batches(frame, where, 1 << 16))
    if not pieces:
        raise UserError(f"{where} has a table without rows.")
    table = pa.Table.from_batches(pieces)
    columns = {
        name: table[name] if name == MALFORMED else text.decoded(table[name].combine_chunks())[0]
        for name in table.column_names
    }
    return pa.table(columns)


def _events(table: PublicTable, log: "daft.DataFrame") -> "daft.DataFrame":
    """Ratings on our scale, times in microseconds: numbers from 10^11 on are milliseconds, before that seconds."""
    daft = engine.daft()
    if "time" in log.column_names:
        number = as_number(log, "time")
        unit = daft.functions.when(number >= 1e11, daft.lit(1e3)).otherwise(daft.lit(1e6))
        stamp = daft.functions.when(number.not_nan(), number) * unit
        log = log.with_column("time", stamp.round().clip(-9e18, 9e18).cast(daft.DataType.int64()))
    if table.scale is not None:
        low, high = table.scale
        rating = as_number(log, "satisfaction")
        unrated = (rating < low) & rating.not_nan()
        scaled = daft.functions.when(unrated, daft.lit(HALF)).otherwise((rating - low) / (high - low))
        log = log.with_column("satisfaction", scaled)
    return log


# --- What no description says -------------------------------------------------------------------------------
