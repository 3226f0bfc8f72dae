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
from byway.data import containers, files, survey, tables, text, times
from byway.data.casts import as_number, as_text, concat
from byway.data.files import MALFORMED
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
    time_format: str = ""
    """How `time` is written, as `catalog.time_format` says it; empty where each value says so by itself."""
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
    """The files that `matching` finds; UserError, which calls the data set `name`, where there is none."""
    if paths := matching(folder, *patterns):
        return paths
    shown = " or ".join(pattern.partition(" ")[0] for pattern in patterns)
    raise UserError(f"{folder} is not {name}: it has no {shown}, nor has its data folder.")


def matching(folder: Path, *patterns: str) -> list[Path]:
    """Files of the first pattern that matches anything in the folder or its `data/`, by name.

    A second word of a pattern, after a blank, is a pattern left out.
    """
    for pattern in patterns:
        wanted, _, without = pattern.partition(" ")
        for place in (folder, folder / "data"):
            paths = [path for path in sorted(place.glob(wanted)) if not (without and fnmatch(path.name, without))]
            if paths:
                return paths
    return []


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
    given_at = matching(folder, *layout.tags.given.files)
    if not given_at:
        return items.exclude(*aside)
    names_at = find(folder, layout.name, *layout.tags.names.files)
    given = _table(_opened(layout.tags.given, given_at, scratch), given_at[0])
    names = _table(_opened(layout.tags.names, names_at, scratch), names_at[0])
    tag = names["title"].take(compute.index_in(given["title"], value_set=names["item"].combine_chunks()))
    uses = np.ones(len(given))
    if "description" in given.column_names:
        written = compute.utf8_trim_whitespace(given["description"].combine_chunks())
        uses = np.nan_to_num(survey.numbers_of(written))
    most = most_used(pa.table({"item": given["item"], "tag": tag, "uses": uses}))
    whole = _table(items, folder)
    hashtags = pa.array([most.get(item, []) for item in whole[key].to_pylist()], pa.list_(pa.string()))
    return engine.daft().from_arrow(whole.append_column("hashtags", hashtags).drop_columns(list(aside)))


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


def _events(table: PublicTable, log: "daft.DataFrame") -> "daft.DataFrame":
    """Ratings on our scale, times in microseconds."""
    daft = engine.daft()
    if "time" in log.column_names:
        form = times.form_of(table.time_format) if table.time_format else None
        log = log.with_column("time", times.as_microseconds(log, "time", form))
    if table.scale is not None:
        low, high = table.scale
        rating = as_number(log, "satisfaction")
        unrated = (rating < low) & rating.not_nan()
        scaled = daft.functions.when(unrated, daft.lit(HALF)).otherwise((rating - low) / (high - low))
        log = log.with_column("satisfaction", scaled)
    return log
