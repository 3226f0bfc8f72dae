"""How content somebody was, on whatever scale a table keeps it, as a number from 0 to 1.

Owns the scales that are told apart by themselves, the sentence for those that are not, and the reading of a column
by a scale. It knows neither files nor columns by name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base import engine
from byway.base.errors import UserError
from byway.data import survey, text
from byway.data.casts import as_number, as_text, at_most_one, is_text
from byway.data.survey import Profile
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

Writing = Literal["number", "percent", "comma", "word"]

STRAY = 0.1
"""A column of which a larger share lies outside 0 to 1 is on another scale."""

_YES = ("true", "t", "yes", "y", "like", "liked", "up", "recommended", "positive", "thumbs up", "good", "on")
_NO = (
    "false", "f", "no", "n", "dislike", "disliked", "down", "not recommended", "negative", "thumbs down", "bad",
    "off",
)  # fmt: skip
_WORDS = pa.array([*_YES, *_NO], pa.large_string())
_UNRATED = (0.0, -1.0)
"""What stands for no rating where the scale begins above it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What the numbers of a column are."""

    writing: Writing = "number"
    ends: tuple[float, float] | None = None
    """Worst and best; None where they are 0 and 1."""
    unrated: float = 0.0
    """Share of the rows that have no rating."""
    words: str = ""
    """For people, for example `1 to 5`."""
    unclear: str = ""
    """Why no scale can be told, empty where one can."""
    cut: bool = False
    """Whether numbers above the best count as it: the column is a ratio, such as watched over whole length."""


def detect(profile: Profile) -> Scale:
    """What a column of satisfaction holds, over all of its rows."""
    sample = profile.sample
    if not len(sample):
        return Scale(words="nothing")
    if _most(compute.match_substring_regex(sample, r"^\d+([.,]\d+)?\s*%$")):
        return Scale("percent", words=f"percentages such as {sample[0]}")
    few = 2 * profile.numbers <= profile.filled
    if (few or _commas(sample)) and _most(compute.match_substring_regex(sample, r"^-?\d+(,\d+)?$")):
        return _of_numbers("comma", compute.replace_substring(sample, ",", "."), profile)
    known = compute.is_in(compute.utf8_lower(sample), value_set=_WORDS)
    if _most(known):
        return Scale("word", words=f"words such as {sample.filter(known)[0]}{_others(sample, known)}")
    if few:
        return Scale(unclear=f"holds {str(sample[0])[:40]!r}, which is no number")
    return _of_numbers("number", sample, profile)


def _most(fits: pa.Array) -> bool:
    return bool(2 * text.mask(fits).sum() > len(fits))


def _others(sample: pa.Array, known: pa.Array) -> str:
    """In words, how many of the sample are not known, and one of them; empty where there is none."""
    others = sample.filter(compute.invert(known))
    share = len(others) / len(sample)
    return f" ({share:.0%} are others, such as {str(others[0])[:40]!r}, and kept out)" if len(others) else ""


def _commas(sample: pa.Array) -> bool:
    """Whether fractions are written with a comma beside whole numbers, which are most, and none with a point."""
    fractions, others = (
        text.mask(compute.match_substring_regex(sample, each)).any()
        for each in (r"^-?\d+,\d\d?$", r"\d\.\d|,\d{3}")
    )
    return bool(fractions and not others)


def _of_numbers(writing: Writing, sample: pa.Array, profile: Profile) -> Scale:
    values = survey.numbers_of(sample)
    values = values[np.isfinite(values)]
    if writing == "number":
        low, high, outside = profile.low, profile.high, profile.outside / profile.numbers
    else:
        low, high, outside = values.min(), values.max(), ((values < 0) | (values > 1)).mean()
    different = np.unique(values)
    span = f"{low:g} to {high:g}"
    if set(different.tolist()) <= {-1.0, 0.0, 1.0} and low == -1 and outside > 0.01:
        return Scale(writing, (-1, 1), words=" and ".join(f"{value:g}" for value in different))
    if outside <= STRAY:
        return Scale(writing, words="0 to 1" if outside == 0 else f"{span}, nearly all from 0 to 1")
    # A few rows beside all others are mistakes of rows, not of the profile.
    core = np.quantile(values, [0.002, 0.998], method="nearest") if len(values) >= 1000 else (low, high)
    core_low, core_high = float(core[0]), float(core[1])
    rated, sentinel = values, _sentinel(values, core_high)
    if sentinel:
        rated = values[~np.isin(values, sentinel)]
        core_low = float(rated.min())
    if _is_ratio(rated, core_low, core_high):
        words = f"{core_low:g} to {core_high:g}, a ratio, which counts 1 from 1 on"
        return Scale(writing, (0.0, 1.0), 1 - profile.filled / profile.rows, words, cut=True)
    scale = _natural(rated, core_low, core_high)
    if scale is None:
        # Without the largest fiftieth, where what is left is no count: of those most are 1.
        usual = rated[rated <= np.quantile(rated, 0.98, method="lower")]
        levels, counts = np.unique(usual, return_counts=True)
        if len(levels) > 1 and counts[0] < counts.max():
            core_low, core_high = float(usual.min()), float(usual.max())
            scale = _natural(usual, core_low, core_high)
    if scale is None:
        return Scale(writing, words=span, unclear=f"holds {span}, half of them up to {np.median(values):g}")
    missing, unrated = "", 1 - profile.filled / profile.rows
    if sentinel:
        unrated = (len(values) - len(rated)) / len(values)
        shown = " and ".join(f"{value:g}" for value in sentinel)
        missing = f" ({unrated:.0%} of the rows are {shown}, read as not rated"
        missing += f"; if 0 is the worst, set event_scale = {listed((0.0, scale[1]))})" if 0.0 in sentinel else ")"
    elif unrated:
        missing = f" ({unrated:.0%} of the rows are empty)"
    return Scale(writing, scale, unrated, f"{core_low:g} to {core_high:g}{missing}")


def _sentinel(values: NDArray[np.float64], high: float) -> list[float]:
    """Values below the scale that stand for no rating: -1 beside numbers from 0 on, and 0 where it is more frequent
    than the worst rating."""
    sentinel: list[float] = []
    if high > 1 and set(values[values < 0].tolist()) == {-1.0}:
        sentinel.append(-1.0)
    ratings = values[values > 0]
    halves = bool((values * 2 == np.floor(values * 2)).all())
    if halves and len(ratings) and high >= 3 and 0 < (values == 0).sum() > (ratings == ratings.min()).sum():
        sentinel.append(0.0)
    return sentinel


def _is_ratio(values: NDArray[np.float64], low: float, high: float) -> bool:
    """Whether these are parts of a whole that may be met again, as when a video is watched on and on.

    Fractions from near 0 on, of which half are at most 2: ratings with decimals lie higher.
    """
    fractions = (values * 2 != np.floor(values * 2)).mean() > 0.5
    return bool(fractions and 0 <= low < 0.5 and 1 < high <= 20 and np.median(values) <= 2)


def _natural(values: NDArray[np.float64], low: float, high: float) -> tuple[float, float] | None:
    """The scale that people know and that holds the numbers, None where none is likely."""
    middle = float(np.median(values))
    whole = bool((values == np.floor(values)).all())
    halves = bool((values * 2 == np.floor(values * 2)).all())
    if low < 0:
        ends = next((end for end in (1, 2, 3, 5, 10, 100) if -end <= low and high <= end), None)
        return None if ends is None or high < ends / 2 or low > -ends / 2 else (-ends, ends)
    start = 0.5 if halves and not whole and low >= 0.5 else 1.0 if low >= 1 else 0.0
    if high <= 5:
        # Three or four grades are believed only where many rows have no fifth.
        few = whole and start == 1 and 3 <= high < 5 and len(values) >= 50
        return (start, high if few else 5.0)
    if high <= 7 and whole and start == 1:
        return (1.0, 7.0 if high == 7 else 10.0)
    if high <= 10:
        # Counts lie low, ratings do not.
        return None if middle < 2 and high > 5 else (start, 10.0)
    if high <= 20 and high > 15 and middle >= 8:
        return (0.0, 20.0)
    if 50 < high <= 100 and middle >= 20:
        return (0.0, 100.0)
    return None


def by_setting(found: Scale, ends: tuple[float, float] | None, where: Path, name: str) -> Scale:
    """What is read by `catalog.event_scale`; UserError where the column needs one and none is given, or another."""
    if ends is not None:
        if found.unclear.endswith("no number"):
            raise UserError(f"{where}: {name!r} {found.unclear}; give numbers, percentages, or yes and no.")
        writing = "number" if found.writing in ("percent", "word") else found.writing
        return Scale(writing, ends, words=found.words.partition(" (")[0], cut=found.cut)
    if found.unclear:
        aside = 'leave it out with event_columns = { satisfaction = "" }, so that every event counts 1'
        if found.unclear.endswith("no number"):
            advice = f"; give numbers, percentages, or yes and no, or {aside}"
        else:
            best = "or say which is the worst and which the best with event_scale"
            advice = f": counts and times are no ratings; {aside}, {best}"
        raise UserError(f"{where}: {name!r} {found.unclear}{advice}.")
    if found.ends is not None:
        raise UserError(
            f"{where}: {name!r} holds {found.words}, and satisfaction goes from 0 to 1; set [catalog] "
            f"event_scale = {listed(found.ends)}, which makes {found.ends[0]:g} the worst and "
            f"{found.ends[1]:g} the best."
        )
    return found


def listed(scale: tuple[float, float]) -> str:
    """As TOML has it.

    >>> listed((0.5, 5.0))
    '[0.5, 5]'
    """
    return f"[{scale[0]:g}, {scale[1]:g}]"


def positive(scale: tuple[float, float]) -> tuple[float, str]:
    """What counts as a high-quality interaction on a scale: its upper quarter, or four stars of five; and why.

    >>> positive((1, 5))
    (0.75, '4 and more, (4 - 1) / 4 = 0.75')
    >>> positive((0.5, 5))[0], positive((0, 100))[0], positive((-1, 1))[0]
    (0.75, 0.75, 0.75)
    """
    low, high = scale
    if low == -high:
        return 0.75, f"{high / 2:g} and more"
    bar = low + 0.75 * (high - low)
    if high > 5:
        bar = round(bar * 2) / 2
    elif high == 5:
        bar = min(4.0, bar)
    share = int(100 * (bar - low) / (high - low)) / 100
    minus = f"({bar:g} - {low:g}) / {high - low:g}" if low else f"{bar:g} / {high:g}"
    return (0.75 if abs(share - 0.75) < 0.04 else share), f"{bar:g} and more, {minus} = {share:g}"


def as_satisfaction(frame: "daft.DataFrame", name: str, scale: Scale, unrated: float | None) -> Any:
    """A column as float64 on 0 to 1, outside it where it is outside its scale; null for what is no number.

    What is missing, and a 0 or -1 below the scale, becomes `unrated` where that is not None.
    """
    daft = engine.daft()
    number = _number(frame, name, scale.writing)
    low, high = scale.ends or (0.0, 1.0)
    result = (number - low) / (high - low)
    if scale.cut:
        result = at_most_one(result)
    if unrated is None:
        return result
    if is_text(frame, name):
        words = as_text(frame, name).strip()
        empty = words.is_null() | words.is_in([daft.lit(each) for each in survey.MISSING])
    else:
        empty = number.is_null() | number.is_nan()
    for value in _UNRATED:
        if scale.ends and value < low:
            empty = empty | (number == value)
    return daft.functions.when(empty, daft.lit(float(unrated))).otherwise(result)


def as_flag(frame: "daft.DataFrame", name: str) -> Any:
    """A column of yes and no as float64; numbers stay what they are."""
    number = as_number(frame, name)
    return (
        engine.daft().functions.coalesce(_number(frame, name, "word"), number) if is_text(frame, name) else number
    )


def _number(frame: "daft.DataFrame", name: str, writing: Writing) -> Any:
    daft = engine.daft()
    when, lit, double = daft.functions.when, daft.lit, daft.DataType.float64()
    if not is_text(frame, name):
        return daft.col(name).cast(double)
    words = as_text(frame, name).strip()
    if writing == "word":
        yes, no = (words.lower().is_in([lit(each) for each in some]) for some in (_YES, _NO))
        return when(yes, lit(1.0)).when(no, lit(0.0))
    if writing == "percent":
        return words.regexp_replace(r"\s*%$", "").regexp_replace(",", ".").try_cast(double) / 100
    return (words.regexp_replace(",", ".") if writing == "comma" else words).try_cast(double)
