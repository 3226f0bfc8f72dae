"""Public data sets, described: which files, which columns, what scale; and what no description can say.

To add one: a row of DESCRIBED, and its name in `config.Source`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from byway.base import config, engine
from byway.data import dialect, files
from byway.data.casts import as_number, as_text
from byway.data.containers import Part
from byway.data.described import Layout, PublicTable, Tags
from byway.data.files import MALFORMED

if TYPE_CHECKING:
    import daft


def _first(frame: "daft.DataFrame", keys: Sequence[str], *others: Any) -> "daft.DataFrame":
    """The first row of all that have the same `keys`, in the order of the file; what else is kept of them."""
    daft = engine.daft()
    frame = frame.with_column("row", daft.functions.monotonically_increasing_id())
    return frame.groupby(*keys).agg(daft.col("row").min(), *others).sort("row").exclude("row")


def _games(items: "daft.DataFrame") -> "daft.DataFrame":
    """Each game of the log once; its name is all that is known of it."""
    col = engine.daft().col
    return _first(items.where(~col(MALFORMED)), ["item"]).select(col("item"), col("item").alias("title"))


def _played(log: "daft.DataFrame") -> "daft.DataFrame":
    """One event a game: bought 0.25, played 0.5, two hours 0.75, ten hours 1.

    A purchase by itself would be the first event in an interest, and playing it then nothing new.
    """
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
    log = log.with_columns({"satisfaction": content, "watch_seconds": when(played, hours * 3600)})
    best = [daft.col(name).max() for name in ("satisfaction", "watch_seconds")]
    return _first(log, ["user", "item", MALFORMED], *best)


def _once(log: "daft.DataFrame") -> "daft.DataFrame":
    """One event for all tags that somebody gave an artist at one time."""
    return _first(log, ["user", "item", "time", MALFORMED])


def _shown(log: "daft.DataFrame") -> "daft.DataFrame":
    """Each news that was shown is an event: 1 where it was clicked, else 0.

    The clicks before the log (its column `history`) have no time and are left out.
    """
    daft = engine.daft()
    col = daft.col
    log = log.select(
        col("user"),
        col("time"),
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


_ATOMIC = {
    "title": ("item_name", "movie_title", "name", "artist_name", "book_title", "item_title"),
    "hashtags": ("class", "genre", "genres", "categories", "category", "tags", "tag", "item_category"),
    "creator": ("brand", "author", "store", "artist", "creator"),
    "item": ("item_id", "artist_id", "business_id", "venue_id", "photo_id"),
    "user": ("user_id", "session_id"),
    "time": ("timestamp",),
}


def atomic(part: Part, names: list[str]) -> dict[str, str]:
    """A column map for the `names` in one of RecBole's files, none for another file."""
    if part.kind != "text" or not dialect.typed(files.header(part.path, *dialect.sniff(part.path))):
        return {}
    likely = {ours: next((name for name in usual if name in names), None) for ours, usual in _ATOMIC.items()}
    return {ours: theirs for ours, theirs in likely.items() if theirs is not None and ours not in names}


_STEAM = ("user", "game", "behavior", "value", "zero")
_NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


DESCRIBED: dict[config.Source, Layout] = {
    "amazon": Layout(
        "Amazon Reviews",
        PublicTable(
            ("meta_*.json*", "meta_*"),
            {
                "item": "parent_asin|asin",
                "title": "title",
                "description": "features|feature+description",
                "hashtags": "categories|category",
                "creator": "store|brand",
            },
        ),
        PublicTable(
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
        PublicTable(("anime.csv",), {"item": "anime_id|MAL_ID", "title": "name|Name", "hashtags": "genre|Genres"}),
        PublicTable(
            ("rating.csv", "animelist.csv", "rating_complete.csv"),
            {"user": "user_id", "item": "anime_id", "satisfaction": "rating"},
            scale=(1, 10),
        ),
    ),
    "goodbooks": Layout(
        "goodbooks-10k",
        PublicTable(
            ("books.csv",),
            {"item": "book_id", "title": "title", "creator": "authors", "thumbnail": "goodreads_book_id"},
        ),
        PublicTable(
            ("ratings.csv",), {"user": "user_id", "item": "book_id", "satisfaction": "rating"}, scale=(1, 5)
        ),
        Tags(
            PublicTable(
                ("book_tags.csv",), {"item": "goodreads_book_id", "title": "tag_id", "description": "count"}
            ),
            PublicTable(("tags.csv",), {"item": "tag_id", "title": "tag_name"}),
            key="goodreads_book_id",
        ),
    ),
    "goodreads": Layout(
        "Goodreads (UCSD Book Graph)",
        PublicTable(
            ("goodreads_books*.json*",),
            {"item": "book_id", "title": "title", "description": "description", "hashtags": "popular_shelves"},
        ),
        PublicTable(
            ("goodreads_interactions*.json*", "goodreads_reviews*.json*"),
            {"user": "user_id", "item": "book_id", "time": "date_added", "satisfaction": "rating"},
            scale=(1, 5),
            time_format="%a %b %d %H:%M:%S %z %Y",
        ),
    ),
    "lastfm": Layout(
        "Last.fm (HetRec 2011)",
        PublicTable(("artists.dat",), {"item": "id", "title": "name"}, quoted=False, latin=True),
        PublicTable(
            ("user_taggedartists-timestamps.dat",),
            {"user": "userID", "item": "artistID", "time": "timestamp"},
        ),
        Tags(
            PublicTable(
                ("user_taggedartists.dat", "user_taggedartists-timestamps.dat"),
                {"item": "artistID", "title": "tagID"},
            ),
            PublicTable(("tags.dat",), {"item": "tagID", "title": "tagValue"}, quoted=False, latin=True),
        ),
        events_from=_once,
    ),
    "mind": Layout(
        "MIND",
        PublicTable(
            ("news.tsv",),
            {"item": "news", "title": "title", "description": "abstract", "hashtags": "category+subcategory"},
            header=_NEWS,
            quoted=False,
        ),
        PublicTable(
            ("behaviors.tsv",),
            {"user": "user", "time": "time", "source": "impressions"},
            header=("impression", "user", "time", "history", "impressions"),
            quoted=False,
            time_format="%m/%d/%Y %I:%M:%S %p",
        ),
        events_from=_shown,
    ),
    "steam": Layout(
        "Steam-200k",
        PublicTable(("steam-200k.csv", "steam*.csv"), {"item": "game"}, header=_STEAM),
        PublicTable(
            ("steam-200k.csv", "steam*.csv"),
            {"user": "user", "item": "game", "source": "behavior", "watch_seconds": "value"},
            header=_STEAM,
        ),
        items_from=_games,
        events_from=_played,
    ),
}
