"""The layouts of public data sets: which files they have and how their feedback becomes satisfaction.

Each function opens the folder of one data set, in the layout of its public release (checked against GroupLens'
readmes, MicroLens' readme, kuairec.com, and the KuaiRand readme with its caption and category tables), and yields
`raw.Raw`. A second path names another log than the one the layout finds. Nothing is cleaned here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from byway.base import engine
from byway.base.errors import UserError
from byway.data import containers, files, text
from byway.data.casts import as_bytes, as_number, as_text, at_most_one, concat, known, without_hashtags
from byway.data.described import find, matching, most_used
from byway.data.files import MALFORMED
from byway.data.raw import Raw
from byway.data.times import as_microseconds

if TYPE_CHECKING:
    import daft


def movielens(folder: Path, events: Path | None) -> Raw:
    """MovieLens: latest, 20M to 32M (csv), 1M and 10M (`::`), 100K (`u.data`, `u.item`).

    Genres and the most used tags become hashtags. Satisfaction is (rating - 0.5) / 4.5, so that half a star
    is 0 and five stars are 1; four stars are 0.78. Trailing articles go to the front ("Matrix, The (1999)").
    """
    daft = engine.daft()
    columns = ["user", "item", "rating", "time"]
    if (folder / "movies.csv").exists():
        items = _films(folder)
        source = events or folder / "ratings.csv"
        columns = ["userId", "movieId", "rating", "timestamp"]
        log = files.csv(source, columns)
    elif (folder / "movies.dat").exists():
        rows = _lines(folder / "movies.dat", "::", 3)
        items = _named(rows, [row[2].split("|") for row in rows])
        source = events or folder / "ratings.dat"
        # Daft takes one byte as the delimiter: two colons are an empty column between.
        log = files.csv(source, columns, delimiter=":", names=["user", "_1", "item", "_2", "rating", "_3", "time"])
    elif (folder / "u.item").exists():
        kinds = [row[0] for row in _lines(folder / "u.genre", "|", 2)]
        rows = _lines(folder / "u.item", "|", 5 + len(kinds))
        items = _named(
            rows, [[kind for kind, flag in zip(kinds, row[5:], strict=False) if flag == "1"] for row in rows]
        )
        source = events or folder / "u.data"
        log = files.csv(source, columns, delimiter="\t", names=columns)
    else:
        raise UserError(f"{folder} is not MovieLens: it has none of movies.csv, movies.dat and u.item.")
    user, item, rating, time = columns
    log = log.select(
        daft.col(user).alias("user"),
        daft.col(item).alias("item"),
        as_microseconds(log, time).alias("time"),
        ((as_number(log, rating) - 0.5) / 4.5).alias("satisfaction"),
        daft.col(MALFORMED),
    )
    articles = r"^([^(]*), (The|An?|Les?|La|Il|El|Das|Der|Die)( \(.*)?$"
    title = as_text(items, "title").regexp_replace(articles, "$2 $1$3")
    items = items.with_column(
        "title", daft.functions.coalesce(as_bytes(title), daft.col("title").cast(daft.DataType.binary()))
    )
    return Raw(items, log, folder, source)


def _films(folder: Path) -> "daft.DataFrame":
    """Films of the csv layouts, with posters where `posters/<movieId>.jpg` lies beside them."""
    daft = engine.daft()
    items = files.csv(folder / "movies.csv", ["movieId", "title", "genres"])
    genres = as_text(items, "genres").split("|").list_filter(daft.element() != "(no genres listed)")
    films = files.whole(items.with_column("genres", genres.fill_null([])), folder / "movies.csv")
    most: dict[Any, list[str]] = {}
    if (folder / "tags.csv").exists():
        tags = files.csv(folder / "tags.csv", ["movieId", "tag"])
        given = files.whole(
            tags.select(
                as_text(tags, "movieId").alias("item"),
                as_text(tags, "tag").lower().strip().alias("tag"),
                daft.lit(1).alias("uses"),
            ),
            folder / "tags.csv",
        )
        most = most_used(given)
    names = text.decoded(films["movieId"].combine_chunks())[0].to_pylist()
    hashtags = [[*of, *most.get(name, ())] for of, name in zip(films["genres"].to_pylist(), names, strict=True)]
    columns = {"item": films["movieId"], "title": films["title"], "hashtags": hashtags, MALFORMED: films[MALFORMED]}
    if (folder / "posters").is_dir():
        there = {file.stem for file in (folder / "posters").glob("*.jpg")}
        columns["thumbnail"] = [f"posters/{name}.jpg" if name in there else None for name in names]
    return daft.from_arrow(pa.table(columns))


def _named(rows: list[list[str]], genres: list[list[str]]) -> "daft.DataFrame":
    """Films of the older layouts, which begin with a number and a title."""
    return engine.daft().from_pydict(
        {"item": [row[0] for row in rows], "title": [row[1] for row in rows], "hashtags": genres}
    )


def _lines(path: Path, delimiter: str, fields: int) -> list[list[str]]:
    """Rows of a legacy file of at most some ten thousand films: UTF-8, else Latin-1 as in 100K and 1M.

    A row with fewer fields is filled up with empty ones.
    """
    files.present(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    rows = [line.rstrip("\r").split(delimiter) for line in text.split("\n") if line.strip()]
    if not rows or len(rows[0]) < fields:
        raise UserError(f"{path} has no {fields} columns separated by {delimiter!r} in its first line.")
    return [row + [""] * (fields - len(row)) for row in rows]


def microlens(folder: Path, events: Path | None) -> Raw:
    """MicroLens: `*_pairs.csv` (user, item, milliseconds), else `*_pairs.tsv` (order only); `*title*.csv`.

    Comments count as positive feedback and nothing else is logged, so satisfaction is 1. In a title everything
    after the first `#` is hashtags, each up to the next `#` (translated tags have several words).
    """
    daft = engine.daft()
    col = daft.col
    titles = find(folder, "MicroLens", "*title*.csv")[0]
    named = not files.header(titles)[0].isdigit()
    columns = files.header(titles)[:2] if named else ["item", "title"]
    if len(columns) < 2:
        raise UserError(f"{titles} has no column 'title'; it has {columns[0]!r}.")
    raw = files.csv(titles, columns, names=None if named else columns)
    parts = as_text(raw, columns[1]).split("#")
    items = raw.select(
        col(columns[0]).alias("item"),
        daft.functions.coalesce(as_bytes(parts.get(0)), col(columns[1])).alias("title"),
        parts.slice(1).alias("hashtags"),
        col(MALFORMED),
    )
    source = events or find(folder, "MicroLens", "*_pairs.csv", "*_pairs.tsv")[0]
    if source.suffix == ".tsv":
        log = files.csv(source, ["user", "items"], delimiter="\t", names=["user", "items"])
        sequence = as_text(log, "items").strip().split(" ")
        broken = col(MALFORMED) | sequence.is_null()
        log = log.select(col("user"), sequence.alias("item"), broken.alias(MALFORMED)).explode("item")
    else:
        user, item, time = (*files.header(source), "user", "item", "timestamp")[:3]
        log = files.csv(source, [user, item, time])
        log = log.select(
            col(user).alias("user"),
            col(item).alias("item"),
            as_microseconds(log, time).alias("time"),
            col(MALFORMED),
        )
    return Raw(items, log, titles, source)


def kuairec(folder: Path, events: Path | None) -> Raw:
    """KuaiRec 2.0: `kuairec_caption_category.csv` and `big_matrix.csv`, in the folder or its `data/`.

    Satisfaction is min(watch_ratio / 2, 1): watched once to the end is 0.5, and 1 is what the paper calls
    positive (a watch ratio of 2). Rows without a timestamp are quarantined with their reason. The fully
    observed `small_matrix.csv` is read where [catalog] events names it.

    A folder with `videos.csv` and `positives_log.csv` instead holds positives only, in order, without a clock:
    satisfaction is 1. `categories.csv` there gives the names of the category ids.
    """
    if (folder / "videos.csv").exists():
        return _kuairec_positives(folder, events)
    col = engine.daft().col
    source = find(folder, "KuaiRec", "kuairec_caption_category.csv")[0]
    levels = [f"{level}_level_category_name" for level in ("first", "second", "third")]
    videos = files.csv(source, ["video_id", "caption", "topic_tag", "manual_cover_text", *levels])
    items = _kuairec_items(videos, [known(videos, name) for name in ("manual_cover_text", *levels)])
    events_from = events or find(folder, "KuaiRec", "big_matrix.csv")[0]
    log = files.csv(events_from, ["user_id", "video_id", "play_duration", "timestamp", "watch_ratio"])
    log = log.select(
        col("user_id").alias("user"),
        col("video_id").alias("item"),
        as_microseconds(log, "timestamp").alias("time"),
        at_most_one(as_number(log, "watch_ratio") / 2).alias("satisfaction"),
        (as_number(log, "play_duration") / 1000).alias("watch_seconds"),
        col(MALFORMED),
    )
    return Raw(items, log, source, events_from)


def _kuairec_positives(folder: Path, events: Path | None) -> Raw:
    """KuaiRec's positives in order, with categories by number."""
    daft = engine.daft()
    col = daft.col
    source = folder / "videos.csv"
    levels = [f"{level}_level_category_id" for level in ("first", "second", "third")]
    videos = files.csv(source, ["video_id", "caption", "topic_tag", *levels])
    videos = videos.with_column("row", daft.functions.monotonically_increasing_id())
    categories = files.csv(folder / "categories.csv", ["level", "category_id", "name_en"])
    for rank, level in enumerate(levels, 1):
        names = categories.where(col("level") == daft.lit(str(rank).encode()))
        names = names.select(col("category_id").alias(level), as_text(names, "name_en").alias(f"name{rank}"))
        videos = videos.join(names, on=level, how="left")
    items = _kuairec_items(videos.sort("row"), [col(f"name{rank}") for rank in (1, 2, 3)])
    events_from = events or folder / "positives_log.csv"
    log = files.csv(events_from, ["user_id", "video_id"])
    log = log.select(col("user_id").alias("user"), col("video_id").alias("item"), col(MALFORMED))
    return Raw(items, log, source, events_from)


def _kuairec_items(videos: "daft.DataFrame", described: list[Any]) -> "daft.DataFrame":
    """Raw items, with the texts `described` in one description."""
    daft = engine.daft()
    return videos.select(
        daft.col("video_id").alias("item"),
        without_hashtags(videos, "caption").alias("title"),
        as_text(videos, "topic_tag").regexp_extract_all(r"[^\[\],]+").alias("hashtags"),
        daft.functions.concat_ws(", ", *described).alias("description"),
        daft.col(MALFORMED),
    )


def kuairand(folder: Path, events: Path | None) -> Raw:
    """KuaiRand Pure, 1K and 27K: `video_features_basic_*.csv`, `log_standard_*.csv`, captions, categories.

    The captions (`kuairand_video_captions.csv`) and categories (`kuairand_video_categories.csv`) are a separate
    download for all three sizes and lie in the folder or its `data/`; without captions a video has no words,
    so they are required. The randomly exposed log is read where [catalog] events names it.
    """
    source = find(folder, "KuaiRand", "video_features_basic_*.csv")[0]
    logs = containers.expand(events) if events else find(folder, "KuaiRand", "log_standard_*.csv")
    return Raw(_kuairand_items(folder, source), _kuairand_log(logs), source, logs[0])


def _kuairand_items(folder: Path, source: Path) -> "daft.DataFrame":
    """Raw items: the videos in the file `source`, with their captions, and categories where there are any."""
    daft = engine.daft()
    col, row_number = daft.col, daft.functions.monotonically_increasing_id
    videos = files.csv(source, ["video_id", "author_id", "upload_dt", "video_duration"])
    videos = videos.with_column("row", row_number())
    captions = find(folder, "KuaiRand", "kuairand_video_captions.csv")[0]
    texts = files.csv(captions, ["final_video_id", "caption", "show_cover_text"])
    texts = texts.with_column("caption_row", row_number()).with_column_renamed(MALFORMED, "broken_caption")
    videos = videos.join(texts, left_on="video_id", right_on="final_video_id", how="left")
    described = [known(videos, "show_cover_text")]
    order: list[Any] = ["row", "caption_row"]
    if categories := matching(folder, "kuairand_video_categories.csv"):
        levels = [f"{level}_level_category_name" for level in ("first", "second", "third", "fourth")]
        kinds = files.csv(categories[0], ["final_video_id", *levels])
        kinds = kinds.with_column("kind_row", row_number()).exclude(MALFORMED)
        videos = videos.join(kinds, left_on="video_id", right_on="final_video_id", how="left")
        described += [known(videos, name) for name in levels]
        order.append("kind_row")
    # A video that has two captions comes twice; which one is first, and kept, must not depend on the join.
    videos = videos.sort(order)
    return videos.select(
        col("video_id").alias("item"),
        without_hashtags(videos, "caption").alias("title"),
        as_text(videos, "caption").regexp_extract_all(r"#([^\s#]+)", 1).alias("hashtags"),
        daft.functions.concat_ws(", ", *described).alias("description"),
        col("author_id").alias("creator"),
        (as_number(videos, "video_duration") / 1000).alias("duration"),
        as_microseconds(videos, "upload_dt").alias("created_at"),
        (col(MALFORMED) | col("broken_caption").fill_null(False)).alias(MALFORMED),
    )


def _kuairand_log(paths: list[Path]) -> "daft.DataFrame":
    """Raw events of all files. `source` is the log's `tab`.

    Satisfaction: 0 where the viewer hated it; else 1 for a like, follow, comment or forward; 0.75 for a long view;
    0.5 for a click (a valid play); else 0.
    """
    daft = engine.daft()
    col, lit = daft.col, daft.lit
    signals = ["is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view"]
    columns = ["user_id", "video_id", "time_ms", "play_time_ms", "tab", *signals]
    log = concat([files.csv(path, columns) for path in paths])
    given: dict[str, Any] = {name: as_number(log, name) == 1 for name in signals}
    liked = given["is_like"] | given["is_follow"] | given["is_comment"] | given["is_forward"]
    satisfaction = (
        daft.functions.when(given["is_hate"], lit(0.0))
        .when(liked, lit(1.0))
        .when(given["long_view"], lit(0.75))
        .when(given["is_click"], lit(0.5))
        .otherwise(lit(0.0))
    )
    return log.select(
        col("user_id").alias("user"),
        col("video_id").alias("item"),
        as_microseconds(log, "time_ms").alias("time"),
        satisfaction.alias("satisfaction"),
        (as_number(log, "play_time_ms") / 1000).alias("watch_seconds"),
        daft.functions.format("tab {}", as_text(log, "tab")).alias("source"),
        col(MALFORMED),
    )


LAYOUTS: dict[str, Callable[[Path, Path | None], Raw]] = {
    "movielens": movielens,
    "microlens": microlens,
    "kuairec": kuairec,
    "kuairand": kuairand,
}
