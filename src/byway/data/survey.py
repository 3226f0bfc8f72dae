"""What stands in some columns of a table, looked at over all of its rows: an even sample, and the ends of numbers.

A decision from the head of a file is wrong where the head is empty or old, so the whole is read once, a batch at a
time; what is held does not grow with it. It decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.data import files, text
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

MISSING = (*text.NOTHING, "?", "-", "--", "None", "nil", "NIL", "(null)", "0000-00-00", "0000-00-00 00:00:00")
"""What stands for nothing in a column of times or numbers."""

SAMPLE = 10_000
"""Values held a column: between this many and twice as many where there are more."""

_BATCH_ROWS = 1 << 16
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@dataclass(slots=True)
class Profile:
    """What stands in one column."""

    rows: int = 0
    filled: int = 0
    """Rows that are not missing."""
    numbers: int = 0
    """Rows that are finite numbers, counted where they are asked for."""
    outside: int = 0
    """Numbers outside 0 to 1."""
    low: float = np.inf
    high: float = -np.inf
    _step: int = 1
    _held: list[pa.Array] = field(default_factory=list)
    _size: int = 0

    @property
    def sample(self) -> pa.Array:
        """Values that are not missing as text, evenly spaced over the file, in its order."""
        return pa.concat_arrays(self._held) if self._held else pa.array([], pa.large_string())

    def add(self, column: pa.Array, measured: bool) -> None:
        """Take in the next rows; `measured` counts numbers too."""
        values = filled(column)
        if measured:
            self._measure(values)
        # Every step-th of all that are not missing.
        held = values.take(pa.array(np.arange(-self.filled % self._step, len(values), self._step)))
        self.rows += len(column)
        self.filled += len(values)
        self._held.append(held)
        self._size += len(held)
        while self._size > 2 * SAMPLE:
            whole = self.sample
            self._held = [whole.take(pa.array(np.arange(0, len(whole), 2)))]
            self._size = len(self._held[0])
            self._step *= 2

    def _measure(self, values: pa.Array) -> None:
        counted = compute.value_counts(values)
        numbers, count = numbers_of(counted.field(0)), counted.field(1).to_numpy()
        known = np.isfinite(numbers)
        numbers, count = numbers[known], count[known]
        if len(numbers):
            self.numbers += int(count.sum())
            self.outside += int(count[(numbers < 0) | (numbers > 1)].sum())
            self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))


def profile(
    frame: "daft.DataFrame", names: Sequence[str], where: Path, measured: Sequence[str] = ()
) -> dict[str, Profile]:
    """Read the named columns of a table once; those in `measured` also as numbers."""
    profiles = {name: Profile() for name in names}
    if not names:
        return profiles
    for batch in files.batches(frame.select(*profiles), where, rows=_BATCH_ROWS):
        for name, profile in profiles.items():
            profile.add(batch.column(name), name in measured)
    return profiles


def filled(column: pa.Array) -> pa.Array:
    """The values of a column that are not missing, as large_string without blanks around them."""
    if pa.types.is_boolean(column.type):
        column = compute.cast(column, pa.string())
    words = compute.utf8_trim_whitespace(text.decoded(column)[0]).drop_null()
    return words.filter(compute.invert(compute.is_in(words, value_set=_MISSING)))


def numbers_of(values: pa.Array) -> NDArray[np.float64]:
    """float64 of trimmed texts, NaN where there is no number."""
    numeric = compute.match_substring_regex(values, _NUMBER)
    plain = compute.utf8_ltrim(compute.if_else(numeric, values, None), "+")
    return compute.cast(plain, pa.float64()).to_numpy(zero_copy_only=False)


_MISSING = pa.array(MISSING, pa.large_string())


def sorting(
    frame: "daft.DataFrame", user: str, names: Sequence[str], where: Path
) -> dict[str, Literal["falling", "rising"]]:
    """Those of the named columns by which nearly all rows of each user are sorted, and which way.

    Pairs of rows that follow one another, of one user and with different numbers, say so; 12 at least.
    """
    if not names:
        return {}
    pairs, falling = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for batch in files.batches(frame.select(user, *names), where, rows=_BATCH_ROWS):
        who = text.decoded(batch.column(user))[0]
        same = text.mask(compute.equal(who.slice(1), who.slice(0, len(who) - 1)))
        for name in names:
            value = numbers_of(compute.utf8_trim_whitespace(text.decoded(batch.column(name))[0]))
            step = np.diff(value)[same]
            pairs[name] += int((np.isfinite(step) & (step != 0)).sum())
            falling[name] += int((step < 0).sum())
    shares = {name: falling[name] / pairs[name] for name in names if pairs[name] >= 12}
    return {
        name: "falling" if share > 0.5 else "rising" for name, share in shares.items() if not 0.02 < share < 0.98
    }
