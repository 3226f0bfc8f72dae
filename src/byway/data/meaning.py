"""From the columns of one file to ours: numbers, times and satisfaction, decided over all of its rows.

Owns the order of the decisions and the words in which they are told; `times` and `scales` know the forms. It knows
neither how a file is opened nor which of its columns is which of ours.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from byway.base import config, engine
from byway.base.errors import UserError
from byway.data import naming, scales, survey, times
from byway.data.casts import as_number, as_text, is_text
from byway.data.files import MALFORMED
from byway.data.naming import Chosen
from byway.data.raw import WRITTEN, Told
from byway.data.scales import Scale

if TYPE_CHECKING:
    import daft

EXTRA = "watch_seconds."
"""Before the names of columns that are only looked at: they hold numbers, like the column they are named after."""

FLAGS = ("novel", "sole")
"""Yes or no, as numbers or in words."""
_TIMES = ("time", "created_at")
_KEPT = ("time", "order", "satisfaction", "watch_seconds", "propensity")
"""Columns that are converted and whose rows may be kept out: what stood in the file goes along."""


def typed(
    frame: "daft.DataFrame",
    names: dict[str, str],
    chosen: Chosen,
    path: Path,
    settings: config.Catalog,
    propose: bool = False,
) -> tuple["daft.DataFrame", Told]:
    """Columns under our names, numbers and times as such, and beside them what stood in the file.

    `names` are ours to those of `frame`. With `propose` a scale that is found is taken, else it is asked for, and
    columns that say nothing are left out as if nobody had named them. Raises UserError for a column that is neither
    what it should be nor text, and for a whole column that cannot be read.
    """
    daft = engine.daft()
    told = Told()
    guessed = names.keys() if propose else chosen.guessed
    kinds: dict[str, Any] = {ours: frame.schema()[theirs].dtype for ours, theirs in names.items()}
    for ours, theirs in names.items():
        kind = kinds[ours]
        listed = ours == "hashtags" and kind.is_list() and (kind.dtype.is_string() or kind.dtype.is_null())
        if not listed and (kind.is_list() or kind.is_fixed_size_list() or kind.is_struct() or kind.is_map()):
            raise UserError(f"{path}: {ours} is read from {theirs!r}, which is {kind}; give text or a number.")
    asked = [ours for ours in (*_TIMES, "satisfaction") if ours in names and not _settled(kinds[ours], ours)]
    seen = survey.look(frame, list({names[ours] for ours in asked}), path, [names.get("satisfaction", "")])
    columns: dict[str, Any] = {}
    details: list[str] = []
    for ours, theirs in names.items():
        column = seen.get(theirs)
        if ours in _TIMES:
            try:
                # A part without rows says nothing of the others.
                if propose and ours == "time" and column is not None and column.rows and not column.filled:
                    raise UserError(
                        f"{path}: {theirs!r} is empty in every row; leave it out with event_columns = "
                        '{ time = "" }.'
                    )
                columns[ours], words = _time(frame, ours, theirs, column, path, settings)
            except UserError as error:
                if ours == "created_at" and ours in guessed:
                    told.left.append(ours)
                    details.append(f"{theirs} is not used after all ({str(error).partition(': ')[2].rstrip('.')})")
                    continue
                if ours not in chosen.rivals:
                    raise
                other = f" Or is the time in {chosen.rivals[ours][0]!r}? Then name that in event_columns."
                raise UserError(f"{error}{other}") from error
            details += [words] if words else []
        elif ours == "satisfaction":
            if ours in guessed and not settings.event_scale and column is not None and _constant(column):
                told.left.append(ours)
                what = f"{column.low:g}" if column.filled else "empty"
                details.append(f"{theirs} is not used after all: it is {what} in every row")
                continue
            found = told.satisfaction = _scale(column, chosen, path, theirs, settings, propose)
            columns[ours] = scales.as_satisfaction(frame, theirs, found, settings.event_unrated)
            if found.scale is not None:
                ends = f"so that {found.scale[0]:g} is 0 and {found.scale[1]:g} is 1"
                details.append(f"{theirs} holds {found.words}, {ends}")
            elif found.words not in ("0 to 1", "nothing"):
                details.append(f"{theirs} holds {found.words}")
        elif not ours.startswith(EXTRA):
            columns[ours] = _READ[ours](frame, theirs) if ours in _READ else daft.col(theirs)
    written = {f"{WRITTEN}{ours}": daft.col(names[ours]) for ours in columns if ours in _KEPT}
    if MALFORMED in frame.column_names:
        columns[MALFORMED] = daft.col(MALFORMED)
    told.said.append("; ".join([f"{path.name}: {naming.in_words(chosen)}", *details]) + ".")
    if "user" in names and "time" not in names and "order" not in names:
        told.said += _sorted(frame, names, path)
    return frame.select(*(column.alias(name) for name, column in (columns | written).items())), told


def _settled(kind: Any, ours: str) -> bool:
    """Whether the type of a column says all."""
    return kind.is_boolean() if ours == "satisfaction" else kind.is_date() or kind.is_timestamp()


def _time(
    frame: "daft.DataFrame",
    ours: str,
    theirs: str,
    seen: survey.Column | None,
    path: Path,
    settings: config.Catalog,
) -> tuple[Any, str]:
    """Microseconds since 1970, and the form in words."""
    daft = engine.daft()
    kind = frame.schema()[theirs].dtype
    if seen is None:
        return daft.col(theirs).cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64()), ""
    if kind.is_boolean() or kind.is_temporal():
        raise UserError(f"{path}: {theirs!r} is {kind}, which is no time; give a timestamp, text or a number.")
    sample = seen.sample
    wanted = settings.time_format
    if ours == "created_at" and wanted and 2 * times.readable(sample, times.given(wanted)) <= len(sample):
        wanted = ""  # the setting is for the events
    form = times.decide(sample, wanted, path, theirs)
    some = f"{seen.rows - seen.filled:,} of {seen.rows:,} are empty" if seen.filled < seen.rows else ""
    words = f"{theirs} is {times.in_words(form, sample)}"
    return times.as_microseconds(frame, theirs, form), f"{words} ({some})" if some else words


def _scale(
    seen: survey.Column | None, chosen: Chosen, path: Path, theirs: str, settings: config.Catalog, propose: bool
) -> Scale:
    if seen is None:
        return Scale(words="true and false")
    found = scales.look(seen)
    scale = (settings.event_scale[0], settings.event_scale[1]) if settings.event_scale else None
    if propose and scale is None and found.scale is not None:
        return found
    own = settings.event_columns
    mapped = own.get("satisfaction", theirs) if isinstance(own, dict) else theirs
    if scale is not None and not found.scale and not found.unclear and (theirs != mapped or _fits(seen, scale)):
        # A log such as the service's own lies beside the others, and is on our scale.
        return found
    return scales.chosen(found, scale, path, theirs)


def _constant(seen: survey.Column) -> bool:
    """Whether the rows of a column are empty, or one number that is not on our scale."""
    return (seen.rows > 0 and not seen.filled) or (seen.low == seen.high > 1 and seen.numbers == seen.filled)


def _fits(seen: survey.Column, scale: tuple[float, float]) -> bool:
    """Whether numbers from 0 to 1 are none of the scale."""
    values = survey.numbers_of(seen.sample)
    return len(values) > 0 and bool(((values < scale[0]) | (values > scale[1])).mean() > scales.STRAY)


def _whole(frame: "daft.DataFrame", name: str) -> Any:
    """A whole number as int64, exactly; null where it is none."""
    daft = engine.daft()
    number = as_number(frame, name)
    rounded = daft.functions.when(number.not_nan(), number).cast(daft.DataType.int64())
    if is_text(frame, name):
        return daft.functions.coalesce(as_text(frame, name).strip().try_cast(daft.DataType.int64()), rounded)
    return daft.col(name).cast(daft.DataType.int64()) if frame.schema()[name].dtype.is_integer() else rounded


_READ = {
    "order": _whole,
    **dict.fromkeys(("duration", "watch_seconds", "propensity", "share"), as_number),
    **dict.fromkeys(FLAGS, scales.as_flag),
}
"""How the columns are read that are neither times nor satisfaction; others stay as they are."""


def _sorted(frame: "daft.DataFrame", names: dict[str, str], path: Path) -> list[str]:
    """A warning where there is no clock and the rows of each user are sorted by a number."""
    sorts = ("satisfaction", "watch_seconds", "propensity")
    looked = [theirs for ours, theirs in names.items() if ours in sorts or ours.startswith(EXTRA)]
    return [
        f"{path.name}: there is no clock, and each user's rows stand in {way} order of {name!r}: what "
        "counts as recent are the last rows. Give a time or an order if you have one."
        for name, way in survey.sorting(frame, names["user"], looked, path).items()
    ][:1]
