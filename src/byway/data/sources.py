"""Where items and events come from: a public data set, or your own tables with a column map.

Owns the [catalog] section's way to raw rows, and its text in a new workspace. `layouts` knows the public data
sets, `raw` what a source yields; cleaning is decided in `catalog` and `events`.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from byway import config, engine
from byway.data import containers, described, files, tables
from byway.data.described import DESCRIBED
from byway.data.files import MALFORMED
from byway.data.layouts import LAYOUTS
from byway.data.raw import Raw, as_microseconds, as_number, as_text, concat
from byway.errors import UserError

if TYPE_CHECKING:
    import daft


def read(knobs: config.Catalog, workspace: Path, scratch: Path) -> Raw:
    """Open the source that the knobs name; relative paths start at `workspace`.

    Copies of files that are packed or not read as they are go to `scratch`, which must live as long as the rows.

    Raises UserError where a file of the layout is missing or is not what it says.
    """
    if not knobs.items:
        raise UserError("[catalog] items is empty; name your file of items, or the folder of a public data set.")
    items = workspace / knobs.items
    events = workspace / knobs.events if knobs.events else None
    if knobs.source in OWN:
        if events is None:
            raise UserError("[catalog] events is empty; name your file of events.")
        return _own(knobs, items, events, scratch)
    if not items.is_dir():
        raise UserError(f"{items} is not a folder; [catalog] items names the folder of {knobs.source}.")
    if knobs.source in DESCRIBED:
        return described.read(DESCRIBED[knobs.source], items, events, scratch)
    return LAYOUTS[knobs.source](items, events)


_ITEM_COLUMNS = (
    "item", "title", "hashtags", "description", "creator", "duration", "thumbnail", "media", "created_at",
)  # fmt: skip
_EVENT_COLUMNS = (
    "user", "item", "time", "order", "satisfaction", "watch_seconds", "source", "propensity",
)  # fmt: skip


OWN = ("parquet", "csv", "json")
"""Sources that are tables of one's own."""


def _own(knobs: config.Catalog, items: Path, events: Path, scratch: Path) -> Raw:
    """Tables with a column map; a pattern such as `events-*.parquet` reads several files.

    A column that the map does not name is read under our own name, where the file has it. Numbers in `time`
    are seconds, milliseconds, microseconds or nanoseconds since 1970, by the median of the first thousand;
    text is ISO 8601; a timestamp type is taken as it is. Without `satisfaction` every event counts 1.
    """
    return Raw(_items(knobs, items, scratch), _events(knobs, events, scratch), items, events)


def new_rows(knobs: config.Catalog, kind: Literal["items", "events"], path: Path, scratch: Path) -> Raw:
    """A table of your own beside a finished run, whatever that was read from; nothing else is opened.

    The one table stands in both places of what is returned. `scratch` as in `read`.
    """
    frame = _items(knobs, path, scratch) if kind == "items" else _events(knobs, path, scratch)
    return Raw(frame, frame, path, path)


def _items(knobs: config.Catalog, path: Path, scratch: Path) -> "daft.DataFrame":
    frame, names = _open(
        knobs.source, path, _ITEM_COLUMNS, knobs.item_columns, "item_columns", ("item",), knobs.item_header, scratch
    )
    if not {"title", "hashtags", "description"} & names:
        raise UserError(f"{path} has no column 'title' (nor hashtags or description); map one in item_columns.")
    return frame


def _events(knobs: config.Catalog, path: Path, scratch: Path) -> "daft.DataFrame":
    required = ("user", "item")
    return _open(
        knobs.source,
        path,
        _EVENT_COLUMNS,
        knobs.event_columns,
        "event_columns",
        required,
        knobs.event_header,
        scratch,
    )[0]


def _open(
    source: str,
    path: Path,
    ours: Sequence[str],
    mapped: dict[str, str],
    knob: str,
    required: Sequence[str],
    header: Sequence[str],
    scratch: Path,
) -> tuple["daft.DataFrame", set[str]]:
    """The rows of all files at `path` under our names, and which of our columns there are.

    Each file is typed by itself: files may have other columns and other units of time, and be of another kind
    (`source` where neither their content nor their ending says of which).
    """
    for name in mapped:
        if name not in ours:
            raise UserError(f"[catalog] {knob} has no column {name!r}; it maps {', '.join(ours)}.")
    columns = {name: mapped.get(name, name) for name in ours}
    needed = tuple(dict.fromkeys(columns[name] for name in ours if name in required or name in mapped))
    wanted = tables.Wanted(columns, needed, tuple(header))
    parts = containers.parts(path, source)
    listed = {tables.lists_tags(part, columns["hashtags"]) for part in parts} if "hashtags" in ours else set()
    frames: dict[Path, daft.DataFrame] = {}
    for part in parts:
        frame, names = tables.frame(part, wanted, scratch, flat={True, False} <= listed)
        frames[part.path] = _typed(frame, names, part.path)
    every = {name for frame in frames.values() for name in frame.column_names}
    return concat(_alike(frames)), every


def _alike(frames: dict[Path, "daft.DataFrame"]) -> list["daft.DataFrame"]:
    """The frames of several files with the same columns of the same types.

    What a file does not say is null, and its satisfaction 1; but an order of events is said by all or by none.
    """
    if len(frames) == 1:
        return list(frames.values())
    daft = engine.daft()
    kinds: dict[str, list[Any]] = {}
    for frame in frames.values():
        for name in frame.column_names:
            kinds.setdefault(name, []).append(frame.schema()[name].dtype)
    for name in ("time", "order"):
        lacks = next((file for file, frame in frames.items() if name not in frame.column_names), None)
        if name in kinds and lacks is not None:
            raise UserError(f"{lacks} has no column {name!r}, which other files beside it have.")
    alike: list[Any] = []
    filled = {"satisfaction": daft.lit(1.0), MALFORMED: daft.lit(False)}
    for frame in frames.values():
        columns: list[Any] = []
        for name, found in kinds.items():
            kind = found[0]
            if any(other != kind for other in found):
                kind = daft.DataType.binary()
            column = filled.get(name, daft.lit(None))
            if name in frame.column_names:
                column = daft.col(name)
                if frame.schema()[name].dtype != kind:  # a number or a text
                    column = column.cast(daft.DataType.string())
            columns.append(column.cast(kind).alias(name))
        alike.append(frame.select(*columns))
    return alike


def _typed(frame: "daft.DataFrame", names: dict[str, str], path: Path) -> "daft.DataFrame":
    """Columns under our names, numbers and times as such; UserError for a column that is neither nor text."""
    daft = engine.daft()
    columns: list[Any] = []
    for ours, theirs in names.items():
        kind = frame.schema()[theirs].dtype
        listed = ours == "hashtags" and kind.is_list() and (kind.dtype.is_string() or kind.dtype.is_null())
        if not listed and (kind.is_list() or kind.is_fixed_size_list() or kind.is_struct() or kind.is_map()):
            raise UserError(f"{path}: {ours} is read from {theirs!r}, which is {kind}; give text or a number.")
        if ours in ("time", "created_at"):
            column = _guessed_time(frame, theirs, path)
        elif ours == "order":
            column = as_number(frame, theirs).cast(daft.DataType.int64())
        elif ours in ("duration", "satisfaction", "watch_seconds", "propensity"):
            column = as_number(frame, theirs)
        else:
            column = daft.col(theirs)
        columns.append(column.alias(ours))
    if MALFORMED in frame.column_names:
        columns.append(daft.col(MALFORMED))
    return frame.select(*columns)


MINUTES = r"^(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2})(Z|[+-]\d{2}:?\d{2})?$"
"""A time without seconds, and where it is."""


def _guessed_time(frame: "daft.DataFrame", name: str, path: Path) -> Any:
    """Microseconds since 1970 of a column whose unit nobody wrote down."""
    daft = engine.daft()
    kind = frame.schema()[name].dtype
    if kind.is_date() or kind.is_timestamp():
        return daft.col(name).cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64())
    if kind.is_boolean() or kind.is_temporal():
        raise UserError(f"{path}: {name!r} is {kind}, which is no time; give a timestamp, ISO 8601 or a number.")
    sample = list(files.batches(frame.select(as_number(frame, name)).limit(1000), path, rows=1000))
    numbers = np.concatenate([batch.column(0).drop_null().to_numpy() for batch in sample] or [[]])
    written = len(numbers)
    numbers = numbers[~np.isnan(numbers)]
    if 2 * len(numbers) <= written and (kind.is_string() or kind.is_binary()):
        # Minutes are enough: the seconds that a timestamp must have are added.
        text = as_text(frame, name).regexp_replace(MINUTES, "${1}:00${2}")
        return text.try_cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64())
    if len(numbers) and _days_as_numbers(numbers):
        raise UserError(
            f"{path}: {name!r} looks like days written as numbers ({numbers[0]:.0f}); write 2023-01-31."
        )
    middle = np.median(np.abs(numbers)) if len(numbers) else 0.0
    # 1e11 seconds are the year 5138, and 1e11 milliseconds March 1973: between them lies every log.
    scale = next((s for limit, s in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0)) if middle < limit), 1e-3)
    return as_microseconds(frame, name, scale)


def _days_as_numbers(numbers: NDArray[np.float64]) -> bool:
    """Whether all numbers are days such as 20230131.

    >>> _days_as_numbers(np.array([20230101.0, 19991231.0])), _days_as_numbers(np.array([20230101.0, 20231301.0]))
    (True, False)
    """
    year, rest = np.divmod(numbers, 10_000)
    month, day = np.divmod(rest, 100)
    fits = (year >= 1970) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return bool(fits.all() and (numbers == np.floor(numbers)).all())


def toml_for(source_name: str, path: Path) -> str:
    """The [catalog] section of a workspace on the data set `source_name` at `path`.

    Raises UserError for a name that is not known, and where the layout is not there.
    """
    if source_name not in _INIT:
        raise UserError(f"There is no source {source_name!r}; there are {', '.join(_INIT)}.")
    source, advice = _INIT[source_name]
    path = path.resolve()
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --from {source_name} takes the folder of the data.")
    items, events = path, ""
    if source in OWN:
        items, events = tables.pair(path, source)
    item_columns = _likely(source, items) if events else {}
    event_columns = _likely(source, Path(events)) if events else {}
    with tempfile.TemporaryDirectory() as scratch:
        read(config.Catalog(source, str(items), events, item_columns, event_columns), Path(), Path(scratch))
    lines = ["[catalog]", f"source = {_quoted(source)}", f"items = {_quoted(str(items))}"]
    if events:
        lines.append(f"events = {_quoted(events)}")
    for knob, names in (("item_columns", item_columns), ("event_columns", event_columns)):
        if names:
            pairs = ", ".join(f"{ours} = {_quoted(theirs)}" for ours, theirs in names.items())
            lines += ["# Our column to yours; mend it where the guess is wrong.", f"{knob} = {{ {pairs} }}"]
    return "\n".join([*lines, *advice]) + "\n"


def _likely(source: str, path: Path) -> dict[str, str]:
    """A column map for the columns that a file has under another usual name."""
    found = tables.column_names(path, source)
    atomic = described.atomic(found, described.is_atomic(path))
    likely: dict[str, str] = {}
    for ours, usual in _USUAL.items():
        theirs = next((name for name in found if name.lower().replace("_", "") in usual), None)
        if ours not in found and theirs is not None:
            likely[ours] = theirs
    return likely | atomic


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_USUAL = {
    "user": ("userid", "uid", "user"),
    "item": ("itemid", "videoid", "movieid", "iid", "item"),
    "title": ("name", "caption", "title"),
    "time": ("timestamp", "ts", "eventtime", "time"),
}
"""Names, in lower case and without underscores, under which tables elsewhere keep our columns."""

_STARS = [
    "# Four stars of five and more are a high-quality interaction: (4 - 0.5) / 4.5 = 0.78.",
    "positive = 0.75",
]
_INIT: dict[str, tuple[config.Source, list[str]]] = {
    "microlens-50k": ("microlens", []),
    "microlens": ("microlens", []),
    "movielens-latest-small": ("movielens", _STARS),
    "movielens": ("movielens", _STARS),
    "kuairec": ("kuairec", ["# Watched once to the end is 0.5, twice is 1.", "positive = 0.5"]),
    "kuairand": ("kuairand", ["# A click is 0.5, a long view 0.75, a like or more 1.", "positive = 0.5"]),
    "parquet": ("parquet", []),
    "csv": ("csv", []),
    "json": ("json", []),
    "recbole": ("csv", []),
    **{name: (name, []) for name in DESCRIBED},
}
