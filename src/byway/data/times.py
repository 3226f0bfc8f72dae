"""Times as people and machines write them: which form a column has, and its microseconds since 1970.

Owns the decision, from a sample of the whole column, and the reading of whole columns; `forms` knows how each form
of text is read. A time without a zone is UTC. It does not know what the column is for.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base import engine
from byway.base.errors import UserError
from byway.data import survey, text
from byway.data.forms import CLEAR, ORDERS, UNITS, Ints, parsed, pattern_of
from byway.data.text import compute

if TYPE_CHECKING:
    import daft


@dataclass(frozen=True, slots=True)
class Form:
    """How the times of one column are written."""

    words: str
    """For people, for example `seconds since 1970`."""
    patterns: tuple[str, ...] = ()
    """Regular expressions with groups named as in strptime, the first that fits is believed."""
    unit: float = 0.0
    """Microseconds that a number counts; 0 where times are text."""
    origin: int = 0
    """Microseconds since 1970 of the number 0."""


_DIGITS = {
    "years": (4, r"^(?P<Y>\d{4})$", 1500),
    "year and month": (6, r"^(?P<Y>\d{4})(?P<m>\d{2})$", 1970),
    "days written as numbers": (8, r"^(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})$", 1900),
    "minutes written as numbers": (12, r"^(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?P<H>\d{2})(?P<M>\d{2})$", 1970),
    "seconds written as numbers": (
        14, r"^(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?P<H>\d{2})(?P<M>\d{2})(?P<S>\d{2})$", 1970,
    ),
}  # fmt: skip
"""Numbers that are dates where nearly all of a column are: their digits, and the first year that is believed."""
_LAST_YEAR = 2100

_UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EXCEL = Form("days of a spreadsheet", unit=86_400e6, origin=-25_569 * 86_400_000_000)
_EPOCHS = (
    (6.2e17, 6.62e17, Form("ticks of .NET", unit=0.1, origin=-62_135_596_800_000_000)),
    (1.2e17, 1.4e17, Form("tenths of a microsecond since 1601", unit=0.1, origin=-11_644_473_600_000_000)),
    (1.2e16, 1.4e16, Form("microseconds since 1601", unit=1.0, origin=-11_644_473_600_000_000)),
)
"""Numbers that as nanoseconds or microseconds since 1970 would lie before there were logs, or far ahead."""
_DATES = (2.5e8, 4.1e9)
"""1978 to 2100 in seconds."""
_SHEET = (25_569.0, 73_051.0)
"""1970 to 2100 as a spreadsheet counts days."""

_NEARLY = 0.9
_FAR = 9_000_000_000_000_000_000


def detect(sample: pa.Array, wanted: str, where: Path, name: str) -> Form:
    """The form of the times of which `sample` is some, none missing; `wanted` is `catalog.time_format`.

    Raises UserError, with what was found, where no form fits more than half of them and where two do.
    """
    if wanted:
        form = form_of(wanted)
        if 2 * readable(sample, form) <= len(sample) and len(sample):
            odd = _first(sample.filter(compute.is_null(read(sample, form))))
            raise UserError(
                f"{where}: {name!r} holds {odd!r}, which is not as [catalog] time_format = "
                f"{wanted!r} says; mend time_format."
            )
        return form
    if not len(sample):
        return Form("nothing", (CLEAR["year, month, day"],))
    numbers = survey.numbers_of(sample)
    numbers = numbers[np.isfinite(numbers)]
    if 2 * len(numbers) > len(sample):
        return _of_numbers(sample, numbers, where, name)
    return _of_words(sample, where, name)


def form_of(wanted: str) -> Form:
    """The form that a person named: a strptime form, a unit of `UNITS`, or `excel`; UserError for another."""
    if wanted in UNITS:
        return Form(f"{_UNIT_WORDS[wanted]} since 1970", unit=UNITS[wanted])
    if wanted == "excel":
        return _EXCEL
    return Form(f"as {wanted}", (pattern_of(wanted),))


def readable(sample: pa.Array, form: Form) -> int:
    """How many of the sample a form reads."""
    return len(sample) - read(sample, form).null_count


def as_microseconds(frame: "daft.DataFrame", name: str, form: Form | None = None) -> Any:
    """A column of any type as int64 microseconds, null where it is missing or not of this form.

    Without a form each value is read by what it says itself (`read_unaided`).
    """
    daft = engine.daft()

    @daft.func.batch(return_dtype=daft.DataType.int64())
    def reading(column: Any) -> Any:
        values = column.to_arrow()
        return daft.Series.from_arrow(read_unaided(values) if form is None else read(values, form))

    return reading(daft.col(name))


def read_unaided(column: pa.Array) -> pa.Array:
    """Microseconds since 1970: of numbers, which from 10^11 on are milliseconds, before that seconds; and of text.

    >>> read_unaided(pa.array(["1000000000", "1000000000000", "2001-09-09T01:46:40Z", "soon", None])).to_pylist()
    [1000000000000000, 1000000000000000, 1000000000000000, None, None]
    """
    in_seconds, in_milliseconds = (read(column, form_of(unit)) for unit in ("s", "ms"))
    moment = compute.if_else(compute.greater_equal(in_seconds, 10**17), in_milliseconds, in_seconds)
    if moment.null_count == column.null_count:
        return moment
    return compute.coalesce(moment, read(column, Form("text", tuple(CLEAR.values()))))


def read(column: pa.Array, form: Form) -> pa.Array:
    """Microseconds since 1970 of a column of text, bytes or numbers; what no int64 can hold ends at its edge."""
    if form.unit:
        return _counted(column, form)
    words, broken = text.decoded(column)
    if form.patterns[0] == CLEAR["year, month, day"]:
        if (quick := _standard(words)) is not None:
            return quick
    else:
        words = compute.replace_substring_regex(words, r"^\s*(\d+)\.0*\s*$", r"\1")
    encoded = compute.if_else(pa.array(~broken), words, None).dictionary_encode()
    values = encoded.dictionary
    moment, known = np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    for pattern in form.patterns:
        left = np.flatnonzero(~known)
        if not len(left):
            break
        moment[left], known[left] = parsed(values.take(pa.array(left)), pattern)
    return pa.array(moment, mask=~known).take(encoded.indices)


def _of_numbers(sample: pa.Array, numbers: NDArray[np.float64], where: Path, name: str) -> Form:
    if (dated := numbers[(numbers != 0) & (numbers != -1)]).size:
        numbers = dated  # what stands for no year says nothing of the others
    for words, (digits, pattern, first) in _DIGITS.items():
        form = Form(words, (pattern,))
        low, high = first * 10.0 ** (digits - 4), (_LAST_YEAR + 1) * 10.0 ** (digits - 4)
        fits = (numbers >= low) & (numbers < high)
        if fits.mean() >= _NEARLY and readable(sample, form) >= _NEARLY * len(numbers):
            return form
    if ((numbers >= _SHEET[0]) & (numbers < _SHEET[1])).mean() >= _NEARLY:
        raise UserError(
            f"{where}: {name!r} holds {_first(sample)!r}, which looks like the days of a spreadsheet; set "
            '[catalog] time_format = "excel" (or "s" where these are seconds since 1970).'
        )
    middle = float(np.median(np.abs(numbers)))
    for low, high, form in _EPOCHS:
        if low <= middle < high:
            return form
    if odd := _of_another_unit(numbers):
        raise UserError(f"{where}: {name!r} holds {odd}, which are not of one unit; write them in one, as seconds.")
    # 1e11 seconds are the year 5138, and 1e11 milliseconds March 1973: between them lies every log.
    unit = next((u for limit, u in ((1e11, "s"), (1e14, "ms"), (1e17, "us")) if middle < limit), "ns")
    return form_of(unit)


def _of_another_unit(numbers: NDArray[np.float64]) -> str:
    """Two of the numbers that are dates in different units, where nearly all are dates in some; else empty."""
    # Between the units lie numbers that are no date, which times from any other start would hold too.
    dated = [(numbers >= _DATES[0] * 1000.0**n) & (numbers < _DATES[1] * 1000.0**n) for n in range(len(UNITS))]
    shares = [in_unit.mean() for in_unit in dated]
    examples = [numbers[in_unit][0] for in_unit, share in zip(dated, shares, strict=True) if share >= 0.01]
    mixed = len(examples) > 1 and sum(shares) >= 0.99
    return " and ".join(f"{number:.0f}" for number in examples[:2]) if mixed else ""


def _of_words(sample: pa.Array, where: Path, name: str) -> Form:
    known = {words: _reads(sample, pattern) for words, pattern in CLEAR.items()}
    ordered = {form: _reads(sample, pattern) for form, (_, pattern) in ORDERS.items()}
    best = max(ordered, key=lambda form: int(ordered[form].sum()))
    clear = np.any(list(known.values()), axis=0)
    used = _by_use(known)
    patterns = tuple(CLEAR[words] for words in used)
    if clear.sum() < ordered[best].sum():
        words, pattern = ORDERS[_in_order(sample, ordered, best, where, name)]
        return Form(words, (pattern, *patterns))
    if 2 * clear.sum() <= len(sample):
        odd = _first(sample.filter(pa.array(~clear)))
        raise UserError(
            f"{where}: {name!r} holds {odd!r}, which is no time that can be told by itself (nor are "
            f"{1 - clear.mean():.0%} of its values); set [catalog] time_format, for example "
            '"%d.%m.%Y %H:%M".'
        )
    return Form(used[0], patterns)


def _by_use(known: dict[str, NDArray[np.bool_]]) -> list[str]:
    """The forms that read something which no more frequent one does, the most frequent first."""
    used: list[str] = []
    done = np.zeros(len(next(iter(known.values()))), bool)
    for words in sorted(known, key=lambda words: -int(known[words].sum())):
        if (known[words] & ~done).any():
            used.append(words)
            done |= known[words]
    return used


def _in_order(sample: pa.Array, ordered: dict[str, NDArray[np.bool_]], best: str, where: Path, name: str) -> str:
    """Which comes first, day or month, by the values for which only one can."""
    rivals = [form for form in ordered if ("Y" in form) == ("Y" in best)]
    either = np.any([ordered[form] for form in rivals], axis=0)
    most = int(ordered[best].sum())
    likeliest = [form for form in rivals if int(ordered[form].sum()) == most]
    if len(likeliest) == 1 and most >= 0.99 * either.sum():
        return likeliest[0]
    shown = sample.filter(pa.array(either))
    mark = re.search(r"\d([-/.])", str(shown[0]))
    mixed = len(likeliest) == 1 or most < either.sum()
    forms = [form.replace("/", mark[1] if mark else "/") for form in (rivals if mixed else likeliest)]
    either_way = " or ".join(f'"{form}"' for form in forms)
    if mixed:
        one = ordered[likeliest[0]]
        odd = sample.filter(pa.array(either & ~one))[0].as_py()
        usual = sample.filter(pa.array(one & ~np.all([ordered[form] for form in rivals], axis=0)))[0].as_py()
        raise UserError(
            f"{where}: {name!r} holds {usual!r} and {odd!r}, which are not in one order of day and month; set "
            f"[catalog] time_format = {either_way}, and what is not so is kept out."
        )
    dotted = text.mask(compute.match_substring_regex(shown, r"^\s*\d{1,2}\.\d{1,2}\."))
    day_first = [form for form in likeliest if form.startswith("%d")]
    if dotted.all() and day_first:
        return day_first[0]
    raise UserError(
        f"{where}: {name!r} holds {_first(shown)!r}, and no value says whether day or month comes first; set "
        f"[catalog] time_format = {either_way}."
    )


def _reads(sample: pa.Array, pattern: str) -> NDArray[np.bool_]:
    return text.mask(compute.is_valid(read(sample, Form("", (pattern,)))))


def _first(sample: pa.Array) -> str:
    return str(sample[0])[:40]


def _counted(column: pa.Array, form: Form) -> pa.Array:
    """Numbers in the form's unit; whole ones exactly."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        floats = compute.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        column = compute.utf8_trim_whitespace(text.decoded(column)[0])
        floats = survey.numbers_of(column)
    known = np.isfinite(floats)
    floats = np.where(known, floats, 0.0)
    with np.errstate(over="ignore"):
        about = floats * form.unit
    moment = np.clip(np.rint(about), -_FAR, _FAR).astype(np.int64)
    exact = known & (form.unit <= 1) & (np.abs(floats) < _FAR) & (np.abs(floats) >= 2.0**53)
    if exact.any():
        # A float64 holds no nanosecond of our days.
        rows, per = np.flatnonzero(exact), max(1, round(1 / form.unit))
        moment[rows] = _integers(column.take(pa.array(rows)), moment[rows] * per) // per
    return pa.array(moment + form.origin, mask=~known)


def _integers(column: pa.Array, otherwise: Ints) -> Ints:
    """Whole numbers as int64, `otherwise` where they are none."""
    if pa.types.is_integer(column.type):
        return compute.cast(column, pa.int64()).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        return otherwise
    whole = compute.match_substring_regex(column, r"^-?(\d{1,18}|[1-8]\d{18})$")
    digits = compute.cast(compute.if_else(whole, column, None), pa.int64())
    return np.where(text.mask(whole), compute.fill_null(digits, 0).to_numpy(), otherwise)


def _standard(words: pa.Array) -> pa.Array | None:
    """Times that Arrow reads itself, which is ten times as fast; None where one is not as it wants them."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return compute.cast(compute.cast(words, kind), pa.int64())
        except pa.ArrowInvalid:
            continue
    return None


def in_words(form: Form, sample: pa.Array) -> str:
    """The form, with one of the sample and what it means."""
    moments = read(sample, form)
    at = next((i for i in range(len(moments)) if moments[i].is_valid), None)
    if at is None:
        return form.words
    moment = np.datetime64(moments[at].as_py(), "us").astype("datetime64[s]")
    return f"{form.words}: {str(sample[at])[:40]} is {str(moment).replace('T', ' ')}"
