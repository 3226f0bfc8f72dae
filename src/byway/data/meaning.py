"""From the columns of one file to ours: numbers, times and satisfaction, decided over all of its rows.

Owns the order of the decisions and the words in which they are told; `times` and `scales` know the forms. It knows
neither how a file is opened nor which of its columns is which of ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byway.base import config, engine
from byway.base.errors import UserError
from byway.data import naming, scales, survey, times
from byway.data.casts import as_number, as_text, is_text
from byway.data.files import MALFORMED
from byway.data.naming import ColumnMap
from byway.data.raw import WRITTEN, Decisions
from byway.data.scales import Scale
from byway.data.survey import Profile
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

EXTRA = "watch_seconds."
"""Before the names of columns that are only looked at: they hold numbers, like the column they are named after."""

FLAGS = ("novel", "sole")
"""Yes or no, as numbers or in words."""
_TIMES = ("time", "created_at")
_KEPT = ("time", "order", "satisfaction", "watch_seconds", "propensity")
"""Columns that are converted and whose rows may be kept out: what stood in the file goes along."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One file, and how it is to be read."""

    frame: "daft.DataFrame"
    names: dict[str, str]
    """Ours to those of `frame`."""
    column_map: ColumnMap
    path: Path
    settings: config.Catalog
    propose: bool
    """Whether to take what is found, else it must stand in the settings."""

    def is_guess(self, ours: str) -> bool:
        """Whether nobody has named the column that stands for ours."""
        return self.propose or ours in self.column_map.guessed


def typed(
    frame: "daft.DataFrame",
    names: dict[str, str],
    column_map: ColumnMap,
    path: Path,
    settings: config.Catalog,
    propose: bool = False,
) -> tuple["daft.DataFrame", Decisions]:
    """Columns under our names, numbers and times as such, and beside them what stood in the file.

    `names` are ours to those of `frame`. With `propose` a scale that is found is taken, else it is asked for, and
    columns that say nothing are left out as if nobody had named them. Raises UserError for a column that is neither
    what it should be nor text, and for a whole column that cannot be read.
    """
    daft = engine.daft()
    table = _Table(frame, names, column_map, path, settings, propose)
    profiles = _profiles(table)
    decisions = Decisions()
    columns: dict[str, Any] = {}
    details: list[str] = []
    for ours, theirs in names.items():
        if ours.startswith(EXTRA):
            continue
        column, detail = None, ""
        if ours in _TIMES:
            column, detail = _time(table, ours, profiles.get(theirs))
        elif ours == "satisfaction":
            column, detail, decisions.satisfaction = _satisfaction(table, profiles.get(theirs))
        else:
            column = _READ[ours](frame, theirs) if ours in _READ else daft.col(theirs)
        if column is None:
            decisions.unread.append(ours)
        else:
            columns[ours] = column
        details += [detail] if detail else []
    written = {f"{WRITTEN}{ours}": daft.col(names[ours]) for ours in columns if ours in _KEPT}
    if MALFORMED in frame.column_names:
        columns[MALFORMED] = daft.col(MALFORMED)
    decisions.notes.append("; ".join([f"{path.name}: {naming.in_words(column_map)}", *details]) + ".")
    if "user" in names and "time" not in names and "order" not in names:
        decisions.notes += _sorted(table)
    return frame.select(*(column.alias(name) for name, column in (columns | written).items())), decisions


def _profiles(table: _Table) -> dict[str, Profile]:
    """What stands in the columns of times and satisfaction, by their names, where their type does not say all.

    Raises UserError for a column of lists or objects.
    """
    asked: dict[str, None] = {}
    for ours, theirs in table.names.items():
        kind = table.frame.schema()[theirs].dtype
        listed = ours == "hashtags" and kind.is_list() and (kind.dtype.is_string() or kind.dtype.is_null())
        if not listed and (kind.is_list() or kind.is_fixed_size_list() or kind.is_struct() or kind.is_map()):
            raise UserError(
                f"{table.path}: {ours} is read from {theirs!r}, which is {kind}; give text or a number."
            )
        time = ours in _TIMES and not (kind.is_date() or kind.is_timestamp())
        if time or (ours == "satisfaction" and not kind.is_boolean()):
            asked[theirs] = None
    return survey.profile(table.frame, list(asked), table.path, [table.names.get("satisfaction", "")])


def _time(table: _Table, ours: str, profile: Profile | None) -> tuple[Any, str]:
    """Microseconds since 1970 and their form in words; None, and why, for a guess that is no time."""
    path, theirs = table.path, table.names[ours]
    try:
        # A part without rows says nothing of the others.
        if table.propose and ours == "time" and profile is not None and profile.rows and not profile.filled:
            raise UserError(
                f'{path}: {theirs!r} is empty in every row; leave it out with event_columns = {{ time = "" }}.'
            )
        return _read_time(table, ours, profile)
    except UserError as error:
        if ours == "created_at" and table.is_guess(ours):
            return None, f"{theirs} is not used after all ({str(error).partition(': ')[2].rstrip('.')})"
        if ours not in table.column_map.rivals:
            raise
        rival = table.column_map.rivals[ours][0]
        raise UserError(f"{error} Or is the time in {rival!r}? Then name that in event_columns.") from error


def _read_time(table: _Table, ours: str, profile: Profile | None) -> tuple[Any, str]:
    """Microseconds since 1970, and the form in words; UserError where it is no time."""
    daft = engine.daft()
    frame, path, theirs = table.frame, table.path, table.names[ours]
    if profile is None:
        return daft.col(theirs).cast(daft.DataType.timestamp("us")).cast(daft.DataType.int64()), ""
    kind = frame.schema()[theirs].dtype
    if kind.is_boolean() or kind.is_temporal():
        raise UserError(f"{path}: {theirs!r} is {kind}, which is no time; give a timestamp, text or a number.")
    sample = profile.sample
    wanted = table.settings.time_format
    if ours == "created_at" and wanted and 2 * times.readable(sample, times.form_of(wanted)) <= len(sample):
        wanted = ""  # the setting is for the events
    form = times.detect(sample, wanted, path, theirs)
    words = f"{theirs} is {times.in_words(form, sample)}"
    if profile.filled < profile.rows:
        words += f" ({profile.rows - profile.filled:,} of {profile.rows:,} are empty)"
    unread = sample.filter(compute.is_null(times.read(sample, form)))
    if len(unread):
        words += (
            f" ({len(unread) / len(sample):.0%} cannot be read, such as {str(unread[0])[:40]!r}, and are kept out)"
        )
    return times.as_microseconds(frame, theirs, form), words


def _satisfaction(table: _Table, profile: Profile | None) -> tuple[Any, str, Scale | None]:
    """Satisfaction on 0 to 1, its scale in words, and the scale; None, and why, for a guess that says nothing."""
    settings, theirs = table.settings, table.names["satisfaction"]
    if table.is_guess("satisfaction") and not settings.event_scale and profile is not None and _constant(profile):
        what = f"{profile.low:g}" if profile.filled else "empty"
        return None, f"{theirs} is not used after all: it is {what} in every row", None
    scale = Scale(words="true and false") if profile is None else _scale(table, profile)
    column = scales.as_satisfaction(table.frame, theirs, scale, settings.event_unrated)
    if scale.ends is not None:
        low, high = scale.ends
        return column, f"{theirs} holds {scale.words}, so that {low:g} is 0 and {high:g} is 1", scale
    return column, "" if scale.words in ("0 to 1", "nothing") else f"{theirs} holds {scale.words}", scale


def _scale(table: _Table, profile: Profile) -> Scale:
    """The scale of a column: what is found, or what the settings say."""
    settings, theirs = table.settings, table.names["satisfaction"]
    found = scales.detect(profile)
    ends = (settings.event_scale[0], settings.event_scale[1]) if settings.event_scale else None
    if table.propose and ends is None and found.ends is not None:
        return found
    mapping = settings.event_columns
    mapped = mapping.get("satisfaction", theirs) if isinstance(mapping, dict) else theirs
    if ends is not None and not found.ends and not found.unclear and (theirs != mapped or _outside(profile, ends)):
        # A log such as the service's own lies beside the others, and is on our scale.
        return found
    return scales.by_setting(found, ends, table.path, theirs)


def _constant(profile: Profile) -> bool:
    """Whether the rows of a column are empty, or one number that is not on our scale."""
    empty = profile.rows > 0 and not profile.filled
    return empty or (profile.low == profile.high > 1 and profile.numbers == profile.filled)


def _outside(profile: Profile, ends: tuple[float, float]) -> bool:
    """Whether the numbers of a column are none of a scale."""
    values = survey.numbers_of(profile.sample)
    return len(values) > 0 and bool(((values < ends[0]) | (values > ends[1])).mean() > scales.STRAY)


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


def _sorted(table: _Table) -> list[str]:
    """A warning where there is no clock and the rows of each user are sorted by a number."""
    numbers = ("satisfaction", "watch_seconds", "propensity")
    looked = [theirs for ours, theirs in table.names.items() if ours in numbers or ours.startswith(EXTRA)]
    sorting = survey.sorting(table.frame, table.names["user"], looked, table.path)
    return [
        f"{table.path.name}: there is no clock, and each user's rows stand in {way} order of {name!r}: what "
        "counts as recent are the last rows. Give a time or an order if you have one."
        for name, way in sorting.items()
    ][:1]
