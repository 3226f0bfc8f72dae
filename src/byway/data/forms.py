"""A time written as text: regular expressions with groups named as in strptime, and what they read.

Owns the expressions of the forms that are told apart by themselves, those made of a person's strptime form, and the
arithmetic from their groups to microseconds. Which form a column has is decided in `times`.
"""

import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data import text
from byway.data.text import compute

Ints = NDArray[np.int64]

UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds of the units that `catalog.time_format` takes beside strptime's forms, and `excel`."""

_SEPARATOR = r"(?:[Tt_:-]|\s*,?\s+(?:at\s+)?|,)"
_CLOCK = (
    r"(?P<H>\d{1,2})(?::(?P<M>\d{1,2})(?::(?P<S>\d{1,2})(?:[.,](?P<f>\d{1,9})\d*)?)?)?"
    r"(?:\s*(?P<p>[AaPp])\.?[Mm]\.?)?"
)
_ZONES = {
    "UTC": 0, "GMT": 0, "Z": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420, "MDT": -360,
    "PST": -480, "PDT": -420,
}  # fmt: skip
"""Minutes to the east; RFC 822 has these names and no others."""
_ZONE = (
    r"(?:\s*(?P<z>[Zz]|(?:UTC|GMT)?[+-]\d{1,2}:?\d{2}(?::\d{2})?|(?:UTC|GMT)?[+-]\d{1,2}|"
    rf"{'|'.join(zone for zone in _ZONES if len(zone) > 1)}))?"
)
_TRAIL = r"(?:\s*(?:\[[\w/+:-]+\]|\([\w ]+\)|UTC|GMT))*"
_WEEKDAY = r"(?:[A-Za-z]{2,9}\.?,?\s+)?"
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_MONTH = r"(?P<b>[A-Za-z]{3,9})\.?"


def _whole(date: str) -> str:
    """A date, and a time of day and a zone where they are."""
    return rf"^\s*{_WEEKDAY}{date}(?:{_SEPARATOR}{_CLOCK})?{_ZONE}{_TRAIL}\s*$"


CLEAR = {
    "year, month, day": _whole(r"(?P<Y>\d{4})[-/._](?P<m>\d{1,2})[-/._](?P<d>\d{1,2})"),
    "year, month, day without marks": (
        r"^\s*(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})"
        rf"(?:[Tt _-]?(?P<H>\d{{2}}):?(?P<M>\d{{2}})(?::?(?P<S>\d{{2}})(?:[.,](?P<f>\d{{1,9}}))?)?)?{_ZONE}\s*$"
    ),
    "day, name of the month, year": _whole(
        rf"{_DAY}[-/ .]+(?:of\s+)?{_MONTH}[-/ ,.]+(?P<Y>\d{{4}})"
    ),
    "name of the month, day, year": _whole(rf"{_MONTH}[-/ ]*{_DAY}[-/ ,]+(?P<Y>\d{{4}})"),
    "year, name of the month, day": _whole(rf"(?P<Y>\d{{4}})[-/ .]+{_MONTH}[-/ .]+{_DAY}"),
    "name of the month, day, time, year": (
        rf"^\s*{_WEEKDAY}{_MONTH}\s+{_DAY}\s+{_CLOCK}{_ZONE}\s+(?P<Y>\d{{4}})\s*$"
    ),
    "day, name of the month, year of two digits": _whole(rf"{_DAY}[-/ ]+{_MONTH}[-/ ]+'?(?P<y>\d{{2}})"),
    "year, month, day in Chinese, Japanese or Korean": _whole(
        r"(?P<Y>\d{4})\s*[年년]\s*(?P<m>\d{1,2})\s*[月월]\s*(?P<d>\d{1,2})\s*[日일]"
    ),
    "year, month": r"^\s*(?P<Y>\d{4})[-/.](?P<m>\d{1,2})\s*$",
    "name of the month, year": rf"^\s*{_MONTH}[-/ ,]+(?P<Y>\d{{4}})\s*$",
}  # fmt: skip
"""Forms that can be read in one way only; a column may mix them."""

ORDERS: dict[str, tuple[str, str]] = {
    "%d/%m/%Y": ("day, month, year", _whole(r"(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<Y>\d{4})")),
    "%m/%d/%Y": ("month, day, year", _whole(r"(?P<m>\d{1,2})[-/.](?P<d>\d{1,2})[-/.](?P<Y>\d{4})")),
    "%d/%m/%y": (
        "day, month, year of two digits",
        _whole(r"(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{2})"),
    ),
    "%m/%d/%y": (
        "month, day, year of two digits",
        _whole(r"(?P<m>\d{1,2})[-/.](?P<d>\d{1,2})[-/.](?P<y>\d{2})"),
    ),
    "%y/%m/%d": ("year of two digits, month, day", _whole(r"(?P<y>\d{2})-(?P<m>\d{1,2})-(?P<d>\d{1,2})")),
}
"""Forms that only their values tell apart."""

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip


def parsed(values: pa.Array, pattern: str) -> tuple[Ints, NDArray[np.bool_]]:
    """Microseconds of the values that fit a pattern, and which do."""
    got = compute.extract_regex(values, pattern)
    names = [field.name for field in got.type]
    parts = dict(zip(names, got.flatten(), strict=True))
    fits = text.mask(compute.is_valid(got))
    size = len(values)

    def number(name: str, absent: int) -> Ints:
        if name not in parts:
            return np.full(size, absent, np.int64)
        filled = compute.if_else(compute.equal(parts[name], ""), str(absent), parts[name])
        return compute.fill_null(compute.cast(filled, pa.int64()), absent).to_numpy(zero_copy_only=False)

    year, month, day = number("Y", 1970), number("m", 1), number("d", 1)
    if "y" in parts:
        short = number("y", 70)
        year = short + np.where(short < 69, 2000, 1900)
    if "b" in parts:
        month, named = _months(parts["b"])
        fits = fits & named
    hour, minute, second = number("H", 0), number("M", 0), number("S", 0)
    if "p" in parts:
        half = compute.utf8_lower(compute.fill_null(parts["p"], "")).to_numpy(zero_copy_only=False)
        twelve = half != ""
        fits = fits & (~twelve | ((hour >= 1) & (hour <= 12)))
        hour = np.where(twelve, hour % 12 + np.where(half == "p", 12, 0), hour)
    fraction = np.zeros(size, np.int64)
    if "f" in parts:
        padded = compute.utf8_rpad(compute.fill_null(parts["f"], ""), 9, "0")
        fraction = compute.cast(padded, pa.int64()).to_numpy(zero_copy_only=False) // 1000
    end_of_day = (hour == 24) & (minute == 0) & (second == 0) & (fraction == 0)
    fits = fits & (month >= 1) & (month <= 12) & (day >= 1) & (minute <= 59) & (second <= 60)
    fits = fits & ((hour <= 23) | end_of_day)
    safe = np.where(fits, (year - 1970) * 12 + month - 1, 0)
    first = safe.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    length = (safe + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - first
    fits = fits & (day <= length)
    seconds = ((first + day - 1) * 24 + hour) * 3600 + minute * 60 + second
    if "z" in parts:
        offset, zoned = _offsets(parts["z"])
        fits = fits & zoned
        seconds = seconds - offset
    return np.where(fits, seconds * 1_000_000 + fraction, 0), fits


def _months(names: pa.Array) -> tuple[Ints, NDArray[np.bool_]]:
    """1 to 12 for English names and their beginnings."""
    encoded = compute.fill_null(names, "").dictionary_encode()
    months = [
        next((i + 1 for i, month in enumerate(_MONTHS) if len(name) > 2 and month.startswith(name[:9])), 0)
        for name in (each.lower() for each in encoded.dictionary.to_pylist())
    ]
    month = np.array(months, np.int64)[encoded.indices.to_numpy()]
    return month, month > 0


def _offsets(zones: pa.Array) -> tuple[Ints, NDArray[np.bool_]]:
    """Seconds to the east, and which zones are any."""
    encoded = compute.fill_null(zones, "").dictionary_encode()
    offsets = [_offset(zone) for zone in encoded.dictionary.to_pylist()]
    known = np.array([offset is not None for offset in offsets], bool)
    seconds = np.array([offset or 0 for offset in offsets], np.int64)
    return seconds[encoded.indices.to_numpy()], known[encoded.indices.to_numpy()]


def _offset(zone: str) -> int | None:
    """Seconds to the east, 0 where no zone is said, None where it is none.

    >>> _offset("-07:30"), _offset("UTC+2"), _offset("est"), _offset(""), _offset("+19:00")
    (-27000, 7200, -18000, 0, None)
    """
    numeric = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?(?::(\d{2}))?", zone)
    if not numeric:
        minutes = _ZONES.get(zone.upper(), None if zone else 0)
        return None if minutes is None else 60 * minutes
    sign, hours, minutes, seconds = numeric.groups(default="0")
    if int(hours) > 18 or int(minutes) > 59:
        return None
    east = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return -east if sign == "-" else east


# --- Forms that a person gives --------------------------------------------------------------------------------

_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})", "m": r"(?P<m>\d{1,2})", "d": r"(?P<d>\d{1,2})", "e": r"(?P<d>\d{1,2})",
    "y": r"(?P<y>\d{2})", "H": r"(?P<H>\d{1,2})", "I": r"(?P<H>\d{1,2})", "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})", "f": r"(?P<f>\d{1,9})", "p": r"(?P<p>[AaPp])\.?[Mm]\.?", "b": _MONTH, "B": _MONTH,
    "h": _MONTH, "a": r"[^\W\d]{2,}\.?", "A": r"[^\W\d]{2,}\.?", "%": "%",
    "z": r"(?P<z>[Zz]|[+-]\d{2}:?\d{2}|[+-]\d{2})", "Z": r"(?P<z>[A-Za-z]{1,4})",
}  # fmt: skip
_SHORTHANDS = {"%T": "%H:%M:%S", "%F": "%Y-%m-%d", "%D": "%m/%d/%y", "%R": "%H:%M"}


def pattern_of(form: str) -> str:
    """A strptime form as a regular expression; a time of day after a form without one is read too.

    Raises UserError for a directive that is not known, comes twice, or where no year is among them.
    """
    whole = form.strip()
    for short, long in _SHORTHANDS.items():
        whole = whole.replace(short, long)
    pieces = re.findall(r"%-?.|\s+|[^%\s]+|%$", whole)
    parts: list[str] = []
    for i, piece in enumerate(pieces):
        if not piece.startswith("%"):
            parts.append(r"\s+" if piece.isspace() else re.escape(piece))
            continue
        part = _DIRECTIVES.get(piece[-1] if len(piece) > 1 else "")
        if part is None:
            raise UserError(
                f"[catalog] time_format = {form!r}: {piece!r} is not known; a form is made of "
                f"{' '.join(f'%{name}' for name in _DIRECTIVES if name != '%')}, or it is one of "
                f"{', '.join(UNITS)} and excel."
            )
        beside = [pieces[k] for k in (i - 1, i + 1) if 0 <= k < len(pieces)]
        if any(each[0] == "%" and each[-1] in "YmdeyHIMSf" for each in beside):
            part = part.replace(r"\d{1,2}", r"\d{2}")
        parts.append(part)
    groups = re.findall(r"\(\?P<(\w)>", "".join(parts))
    if len(groups) != len(set(groups)) or not {"Y", "y"} & set(groups):
        what = "has no year" if not {"Y", "y"} & set(groups) else "says something twice"
        raise UserError(f'[catalog] time_format = {form!r} {what}; write it as in "%d/%m/%Y %H:%M".')
    if "H" not in groups:
        parts.append(rf"(?:{_SEPARATOR}{_CLOCK})?" + (_ZONE if "z" not in groups else ""))
    elif "f" not in groups and "S" in groups and pieces[-1] == "%S":
        parts.append(r"(?:[.,](?P<f>\d{1,9})\d*)?")
    return rf"^\s*{''.join(parts)}\s*$"
