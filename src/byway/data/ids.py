"""One id, however it is written: `7`, `7.0`, `7e+00`, and a UUID in hex, with hyphens or in capitals.

Owns which texts mean the same id, and when they may be taken for it: only where all ids of a table read as whole
numbers (or all as UUIDs), so that an id such as `1.0` among words is never touched. What a typed column becomes is
decided in `columns`.
"""

from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data import text
from byway.data.text import compute

_WHOLE = r"^-?(0|[1-9][0-9]*)$"
_DOTTED = r"^-?(0|[1-9][0-9]*)\.0*$"
_POWER = r"^-?[0-9](\.[0-9]+[eE]\+?|[eE]\+)[0-9]{1,2}$"
_UUID = r"^[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}$"
_EXACT = 2**53
_CUT = 6
"""Digits that a spreadsheet or `%g` leaves before the exponent: as many or more may have lost others."""


def canonical(ids: pa.Array, where: Path, column: str) -> pa.Array:
    """The ids of a table, each in one way of writing: whole numbers without `.0` where all are whole numbers.

    Raises UserError where digits were lost (`1.23457E+12`), and where words stand beside numbers that are written
    in two ways.
    """
    numbers, dotted, power = (_matches(ids, pattern) for pattern in (_WHOLE, _DOTTED, _POWER))
    loose = dotted | power
    filled = _known(ids)
    if not loose.any():
        return _same_uuids(ids, filled)
    if not (numbers | loose)[filled].all():
        _refuse_twins(ids, dotted, where, column)
        return ids
    return _replaced(ids, loose, where, column)


def _same_uuids(ids: pa.Array, filled: NDArray[np.bool_]) -> pa.Array:
    """UUIDs as 32 small hex digits, where all ids are UUIDs and not all are written in one way."""
    if not filled.any() or not _matches(ids.slice(int(filled.argmax()), 1), _UUID).any():
        return ids
    if not _matches(ids, _UUID)[filled].all():
        return ids
    hyphens = text.mask(compute.match_substring(ids, "-"))[filled]
    capitals = text.mask(compute.match_substring_regex(ids, "[A-F]"))[filled]
    small = text.mask(compute.match_substring_regex(ids, "[a-f]"))[filled]
    if hyphens.all() ^ hyphens.any() or (capitals.any() and small.any()):
        return _hex(ids)
    return ids


def _hex(ids: pa.Array) -> pa.Array:
    return compute.ascii_lower(compute.replace_substring(ids, "-", ""))


def _refuse_twins(ids: pa.Array, dotted: NDArray[np.bool_], where: Path, column: str) -> None:
    """Words beside numbers, most of which are there as `7` and as `7.0`: both readings would be wrong."""
    if not dotted.any():
        return
    unique = compute.unique(ids)
    wordy = unique.filter(pa.array(_matches(unique, _DOTTED)))
    whole = compute.replace_substring_regex(wordy, r"\.0*$", "")
    twins = int(compute.sum(compute.is_in(whole, value_set=unique)).as_py() or 0)
    if twins >= 3 and 2 * twins > len(wordy):
        other = unique.filter(pa.array(~_matches(unique, _DOTTED) & ~_matches(unique, _WHOLE) & _known(unique)))
        raise UserError(
            f"{where}: {twins:,} ids of {column} are written in two ways ({whole[0]} and {wordy[0]}), and words "
            f"such as {other[0].as_py()[:40]!r} stand beside them; write each id in one way."
        )


class Lookup:
    """Which row of the catalog an id of the log means."""

    def __init__(self, known: pa.Array) -> None:
        self._known = compute.cast(known, pa.large_string())
        filled = text.mask(compute.is_valid(self._known))
        self._kind: Literal["numbers", "uuids", "words"] = "words"
        if filled.any() and _matches(self._known, _WHOLE)[filled].all():
            self._kind = "numbers"
        elif filled.any() and _matches(self._known, _UUID)[filled].all():
            self._kind = "uuids"
        self._alike = _hex(self._known) if self._kind == "uuids" else _bare(self._known)
        self._seen = self._near = 0
        self._example = ""

    def rows(self, ids: pa.Array, where: Path) -> pa.Array:
        """Row of each id in the catalog, null where there is none; UserError where digits of ids were lost."""
        found = compute.index_in(ids, value_set=self._known)
        lost = text.mask(compute.is_null(found))
        self._seen += len(ids)
        if self._kind == "words":
            self._count(ids.filter(pa.array(lost)))
        if self._kind == "words" or not lost.any():
            return found
        if self._kind == "uuids":
            return compute.coalesce(found, compute.index_in(_hex(ids), value_set=self._alike))
        loose = lost & (_matches(ids, _DOTTED) | _matches(ids, _POWER))
        if not loose.any():
            return found
        whole = _replaced(ids, loose, where, "item")
        return compute.coalesce(found, compute.index_in(whole, value_set=self._known))

    def _count(self, lost: pa.Array) -> None:
        """Remember the ids that are known but for a `.0`."""
        near = lost.filter(compute.is_in(_bare(lost), value_set=self._alike))
        near = near.filter(pa.array(_matches(near, _WHOLE) | _matches(near, _DOTTED)))
        self._near += len(near)
        self._example = near[0].as_py() if len(near) else self._example

    def check(self, where: Path) -> None:
        """Raise UserError where a tenth of all events and more miss their item by a `.0`."""
        if self._near and 10 * self._near >= self._seen:
            known = self._known.filter(compute.equal(self._alike, _bare(pa.array([self._example]))[0]))[0]
            raise UserError(
                f"{where}: {self._near:,} events name items such as {self._example!r}, which the items have "
                f"as {known.as_py()!r} beside ids that are words; write each id in one way."
            )


def _bare(ids: pa.Array) -> pa.Array:
    """Whole numbers without `.0`, other ids as they are."""
    return compute.replace_substring_regex(ids, r"^(-?[0-9]+)\.0*$", r"\1")


def _replaced(ids: pa.Array, loose: NDArray[np.bool_], where: Path, column: str) -> pa.Array:
    """`ids` with the whole number in place of each of the `loose` ones."""
    chosen = ids.filter(pa.array(loose)).dictionary_encode()
    words = pa.array([_whole(word, where, column) for word in chosen.dictionary.to_pylist()], pa.large_string())
    return compute.replace_with_mask(
        compute.cast(ids, pa.large_string()), pa.array(loose), words.take(chosen.indices)
    )


def _whole(written: str, where: Path, column: str) -> str:
    """The whole number that `7.0` and `7e2` mean.

    >>> [_whole(word, Path("x"), "user") for word in ("7.0", "-0.", "1e+05", "1.6063581820E9")]
    ['7', '0', '100000', '1606358182']
    """
    number = Decimal(written)
    mantissa, exponent, power = written.lower().partition("e")
    digits = len(mantissa.strip("-").replace(".", "").rstrip("0")) if exponent else 0
    if number != number.to_integral_value() or abs(number) >= _EXACT or (_CUT <= digits <= int(power or 0)):
        raise UserError(
            f"{where}: {column} has the id {written!r}, a number whose last digits are lost; write ids as text or "
            "as whole numbers."
        )
    return str(int(number))


def _matches(ids: pa.Array, pattern: str) -> NDArray[np.bool_]:
    return text.mask(compute.match_substring_regex(ids, pattern))


def _known(ids: pa.Array) -> NDArray[np.bool_]:
    return text.mask(compute.not_equal(compute.fill_null(ids, ""), ""))
