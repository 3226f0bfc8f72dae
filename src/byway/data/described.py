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

from byway.base import config, engine
from byway.base.errors import UserError
from byway.data import containers, dialect, files, tables, text
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
class Table:
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

    given: Table
    """`item`, the tag's number as `title`, and as `description` how many gave it where a row says so."""
    names: Table
    """The tag's number as `item`, its name as `title`."""
    key: str = "item"
    """Column of items that the tags' `item` means; where it is not their id, `thumbnail` stands for it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A public data set."""

    name: str
    items: Table
    events: Table
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


def _find(folder: Path, name: str, table: Table) -> list[Path]:
    """Files of the first pattern that matches anything in the folder or its `data/`, by name."""
    for pattern in table.files:
        wanted, _, without = pattern.partition(" ")
        for place in (folder, folder / "data"):
            found = [file for file in sorted(place.glob(wanted)) if not (without and fnmatch(file.name, without))]
            if found:
                return found
    shown = " or ".join(pattern.partition(" ")[0] for pattern in table.files)
    raise UserError(f"{folder} is not {name}: it has no {shown}, nor has its data folder.")


def _opened(table: Table, paths: list[Path], scratch: Path) -> "daft.DataFrame":
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


def _events(table: Table, log: "daft.DataFrame") -> "daft.DataFrame":
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


def _games(items: "daft.DataFrame") -> "daft.DataFrame":
    """Each game of the log once; its name is all that is known of it."""
    daft = engine.daft()
    col = daft.col
    items = items.with_column("row", daft.functions.monotonically_increasing_id())
    items = items.where(~col(MALFORMED)).groupby("item").agg(col("row").min()).sort("row")
    return items.select(col("item"), col("item").alias("title"))


def _played(log: "daft.DataFrame") -> "daft.DataFrame":
    """Bought 0.25, played 0.5, two hours 0.75, ten hours 1."""
    daft = engine.daft()
    when, lit = daft.functions.when, daft.lit
    hours = as_number(log, "watch_seconds")
    played = as_text(log, "source") == "play"
    content = (
        when(played & (hours >= 10), lit(1.0))
        .when(played & (hours >= 2), lit(0.75))
        .when(played, lit(0.5))
        .otherwise(lit(0.25))
    )
    seconds = when(played, hours * 3600)
    return log.with_columns({"satisfaction": content, "watch_seconds": seconds})


def _once(log: "daft.DataFrame") -> "daft.DataFrame":
    """One event for all tags that somebody gave an artist at one time."""
    daft = engine.daft()
    col = daft.col
    log = log.with_column("row", daft.functions.monotonically_increasing_id())
    log = log.groupby("user", "item", "time", MALFORMED).agg(col("row").min()).sort("row")
    return log.select("user", "item", "time", MALFORMED)


def _shown(log: "daft.DataFrame") -> "daft.DataFrame":
    """Each news that was shown is an event: 1 where it was clicked, else 0.

    The clicks before the log (its column `history`) have no time and are left out.
    """
    daft = engine.daft()
    col = daft.col
    written = as_text(log, "created_at")
    # What is no such time would end the reading; it is null, and kept out with its reason.
    stamp = daft.functions.when(written.regexp(_CLOCK), written).to_datetime("%m/%d/%Y %I:%M:%S %p")
    log = log.select(
        col("user"),
        stamp.cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64()).alias("time"),
        as_text(log, "source").strip().split(" ").alias("shown"),
        col(MALFORMED),
    ).explode("shown")
    shown = col("shown")
    return log.select(
        col("user"),
        shown.regexp_replace("-[01]$", "").alias("item"),
        col("time"),
        daft.functions.when(shown.endswith("-1"), daft.lit(1.0)).otherwise(daft.lit(0.0)).alias("satisfaction"),
        col(MALFORMED),
    )


def _written_down(log: "daft.DataFrame") -> "daft.DataFrame":
    """Times as the site writes them: Fri Apr 19 07:01:17 -0700 2013."""
    daft = engine.daft()
    written = as_text(log, "created_at")
    # What is no such time would end the reading; it is null, and kept out with its reason.
    stamp = daft.functions.when(written.regexp(_STAMP), written).to_datetime(
        "%a %b %d %H:%M:%S %z %Y", timezone="UTC"
    )
    time = stamp.cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64())
    return log.with_column("time", time).exclude("created_at")


_ATOMIC = {
    "title": ("item_name", "movie_title", "name", "artist_name", "book_title", "item_title"),
    "hashtags": ("class", "genre", "genres", "categories", "category", "tags", "tag", "item_category"),
    "creator": ("brand", "author", "store", "artist", "creator"),
    "item": ("item_id", "artist_id", "business_id", "venue_id", "photo_id"),
    "user": ("user_id", "session_id"),
    "time": ("timestamp",),
}


def atomic(names: list[str], typed: bool) -> dict[str, str]:
    """A column map for the names in one of RecBole's files, none for another file."""
    if not typed:
        return {}
    likely = {ours: next((name for name in usual if name in names), None) for ours, usual in _ATOMIC.items()}
    return {ours: theirs for ours, theirs in likely.items() if theirs is not None and ours not in names}


def is_atomic(path: Path) -> bool:
    """Whether a file has RecBole's typed header."""
    part = containers.parts(path, "csv")[0]
    return part.kind == "text" and dialect.is_typed(part.path)


_CLOCK = r"^(0?[1-9]|1[0-2])/(0?[1-9]|[12][0-9]|30)/[0-9]{4} (0?[1-9]|1[0-2]):[0-5][0-9]:[0-5][0-9] [AP]M$"
"""MIND's clock, of the November of 2019."""

_STAMP = (
    r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    r"(0[1-9]|[12][0-9]|30|31) ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] [+-][01][0-9][0-5][0-9] [0-9]{4}$"
)
"""Goodreads' clock."""

_STEAM = ("user", "game", "behavior", "value", "zero")
_NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")

DESCRIBED: dict[config.Source, Layout] = {
    "amazon": Layout(
        "Amazon Reviews",
        Table(
            ("meta_*.json*", "meta_*"),
            {
                "item": "parent_asin|asin",
                "title": "title",
                "description": "features|feature+description",
                "hashtags": "categories|category",
                "creator": "store|brand",
            },
        ),
        Table(
            ("*.json* meta_*", "*.csv* meta_*"),
            {
                "user": "user_id|reviewerID",
                "item": "parent_asin|asin",
                "time": "timestamp|unixReviewTime",
                "satisfaction": "rating|overall",
            },
            scale=(1, 5),
        ),
    ),
    "anime": Layout(
        "the anime recommendations of Kaggle",
        Table(("anime.csv",), {"item": "anime_id|MAL_ID", "title": "name|Name", "hashtags": "genre|Genres"}),
        Table(
            ("rating.csv", "animelist.csv", "rating_complete.csv"),
            {"user": "user_id", "item": "anime_id", "satisfaction": "rating"},
            scale=(1, 10),
        ),
    ),
    "goodbooks": Layout(
        "goodbooks-10k",
        Table(
            ("books.csv",),
            {"item": "book_id", "title": "title", "creator": "authors", "thumbnail": "goodreads_book_id"},
        ),
        Table(("ratings.csv",), {"user": "user_id", "item": "book_id", "satisfaction": "rating"}, scale=(1, 5)),
        Tags(
            Table(("book_tags.csv",), {"item": "goodreads_book_id", "title": "tag_id", "description": "count"}),
            Table(("tags.csv",), {"item": "tag_id", "title": "tag_name"}),
            key="goodreads_book_id",
        ),
    ),
    "goodreads": Layout(
        "Goodreads (UCSD Book Graph)",
        Table(
            ("goodreads_books*.json*",),
            {"item": "book_id", "title": "title", "description": "description", "hashtags": "popular_shelves"},
        ),
        Table(
            ("goodreads_interactions*.json*", "goodreads_reviews*.json*"),
            {"user": "user_id", "item": "book_id", "created_at": "date_added", "satisfaction": "rating"},
            scale=(1, 5),
        ),
        events_from=_written_down,
    ),
    "lastfm": Layout(
        "Last.fm (HetRec 2011)",
        Table(("artists.dat",), {"item": "id", "title": "name"}, quoted=False, latin=True),
        Table(
            ("user_taggedartists-timestamps.dat",),
            {"user": "userID", "item": "artistID", "time": "timestamp"},
        ),
        Tags(
            Table(
                ("user_taggedartists.dat", "user_taggedartists-timestamps.dat"),
                {"item": "artistID", "title": "tagID"},
            ),
            Table(("tags.dat",), {"item": "tagID", "title": "tagValue"}, quoted=False, latin=True),
        ),
        events_from=_once,
    ),
    "mind": Layout(
        "MIND",
        Table(
            ("news.tsv",),
            {"item": "news", "title": "title", "description": "abstract", "hashtags": "category+subcategory"},
            header=_NEWS,
            quoted=False,
        ),
        Table(
            ("behaviors.tsv",),
            {"user": "user", "created_at": "time", "source": "impressions"},
            header=("impression", "user", "time", "history", "impressions"),
            quoted=False,
        ),
        events_from=_shown,
    ),
    "steam": Layout(
        "Steam-200k",
        Table(("steam-200k.csv", "steam*.csv"), {"item": "game"}, header=_STEAM),
        Table(
            ("steam-200k.csv", "steam*.csv"),
            {"user": "user", "item": "game", "source": "behavior", "watch_seconds": "value"},
            header=_STEAM,
        ),
        items_from=_games,
        events_from=_played,
    ),
}
