"""Text as people and machines write it, made safe: all of it in columns, no Python object a row.

Owns: bytes to UTF-8, control characters and blanks, ids of any type as strings. It does not decide which text is
good enough.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

compute: Any = pyarrow.compute
"""Arrow's functions. They are made when Arrow is imported, where no type checker sees them."""

NOTHING = (
    "", "nan", "NaN", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "none", "None", "NONE", "na", "NA", "N/A",
    "n/a", "<NA>", "#N/A", "#NA", "NaT", "\\N", "undefined",
)  # fmt: skip
"""What other systems write where an id is missing."""

MAX_ID = 256
"""Characters of an id; what is longer is most likely rows that an unclosed quote swallowed."""

_CONTROL = r"[\p{Cc}\p{Zl}\p{Zp}\x{FEFF}\x{200B}\x{202A}-\x{202E}\x{2066}-\x{2069}]"
"""Control characters, line and paragraph separators, byte order marks, and what reverses the reading direction.
The joiners inside emoji and Indic words stay."""


def decoded(column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column as large_string, and which rows held bytes that are not UTF-8 (there � stands for them).

    Numbers become their decimal digits; a float that is whole (an id that met a missing value) loses its `.0`, and
    NaN is null.
    """
    kind = column.type
    invalid = np.zeros(len(column), bool)
    if pa.types.is_floating(kind):
        whole = compute.and_(
            compute.equal(column, compute.floor(column)), compute.less(compute.abs(column), 2.0**53)
        )
        column = compute.if_else(compute.is_nan(column), None, column)
        safe = compute.if_else(compute.fill_null(whole, False), column, None)
        digits = compute.cast(compute.cast(safe, pa.int64()), pa.large_string())
        return compute.coalesce(digits, compute.cast(column, pa.large_string())), invalid
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return compute.cast(column, pa.large_string()), invalid
    bad = _not_utf8(column, 0)
    if not bad:
        return compute.cast(column, pa.large_string()), invalid
    invalid[bad] = True
    repaired = pa.array([column[i].as_py().decode("utf-8", "replace") for i in bad], pa.large_string())
    valid = compute.cast(compute.if_else(pa.array(invalid), pa.scalar(None, kind), column), pa.large_string())
    return compute.replace_with_mask(valid, pa.array(invalid), repaired), invalid


def _not_utf8(column: pa.Array, start: int) -> list[int]:
    """Row numbers, from `start`, of bytes that are not UTF-8: by halves, since most columns have none."""
    try:
        compute.cast(column, pa.large_string())
    except pa.ArrowInvalid:
        if len(column) == 1:
            return [start]
        middle = len(column) // 2
        return _not_utf8(column.slice(0, middle), start) + _not_utf8(column.slice(middle), start + middle)
    return []


def stripped(column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Text on one line without control characters and surplus blanks, and which rows had a control character."""
    had = compute.match_substring_regex(column, _CONTROL)
    # A separator becomes a blank, so that "one\ntwo" stays two words.
    text = compute.replace_substring_regex(column, _CONTROL, " ")
    text = compute.utf8_trim_whitespace(compute.replace_substring_regex(text, r"\s+", " "))
    return text, mask(had)


def checked_ids(column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Ids without blanks around them, and which rows cannot be ids: control characters, or over `MAX_ID` long."""
    ids = compute.utf8_trim_whitespace(column)
    bad = compute.or_(
        compute.match_substring_regex(ids, _CONTROL), compute.greater(compute.utf8_length(ids), MAX_ID)
    )
    return ids, mask(bad)


def missing_ids(ids: pa.Array) -> NDArray[np.bool_]:
    """Which rows have no id: null, or what other systems write for it (`NOTHING`)."""
    return mask(compute.or_(compute.is_null(ids), compute.is_in(ids, value_set=pa.array(NOTHING, ids.type))))


def joined(*parts: pa.Array | str) -> pa.Array:
    """Columns of any type and fixed words side by side in one text a row; null counts as nothing."""
    kind = pa.large_string()
    columns = [pa.scalar(part, kind) if isinstance(part, str) else compute.cast(part, kind) for part in parts]
    return compute.binary_join_element_wise(*columns, pa.scalar("", kind), null_handling="skip")


def mask(column: pa.Array) -> NDArray[np.bool_]:
    """A boolean column as numpy, null as False."""
    return np.asarray(compute.fill_null(column, False))
