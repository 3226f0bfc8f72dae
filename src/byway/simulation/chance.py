"""Chance that arms share: common random numbers, by user, day and purpose.

In a simulated world the same person can live with every arm, and meet the same luck: come on the same day if the
mood allows it, search in the same turn, be pleased by the same draw. What then differs between two arms is what the
arms did. A number depends on the experiment's seed, the purpose, day, turn, user and its place among the draws of
that turn, and on nothing that happened before, so that two arms stay together however far their days have parted.

numpy's streams are drawn in order and cannot be asked for one user's numbers alone. Here numbers are SplitMix64
(Steele, Lea and Flood 2014) of their place, vectorised, and each distribution is the inverse of its distribution
function: the world's formulas take `Draws` where they take a Generator, and a slightly other mean moves the outcome
slightly.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import special, stats

from byway.simulation.source import Ints

STEP = np.uint64(0x9E3779B97F4A7C15)
"""Between the states of SplitMix64: the golden ratio of 2 to the power of 64."""
TURNS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shifts and factors of its output function."""
TOGETHER = 8192
"""Numbers that are mixed at a time: 64 KiB."""

Size = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Chance:
    """One source of luck for all arms of a deal. Equal seeds make equal luck."""

    seed: tuple[int, ...]

    def of(self, user: Ints, purpose: str, day: int, turn: int = 0) -> np.random.Generator:
        """The draws of these users [n] for one purpose, in the turn of a day.

        It has the methods of numpy's Generator that the platform and the world use, each drawing one row a user;
        any other is an AttributeError.
        """
        state = np.random.SeedSequence([*self.seed, zlib.crc32(purpose.encode()), day, turn])
        return cast(np.random.Generator, Draws(state.generate_state(1, np.uint64).astype(np.uint64), user))


class Draws:
    """Random numbers of n users, whose rows do not depend on who else is there."""

    def __init__(self, key: NDArray[np.uint64], user: Ints):
        """`key` [1] tells purpose and turn."""
        self._user = _mixed(key + (user.astype(np.uint64) + np.uint64(1)) * STEP)
        self._calls = 0

    def random(self, size: Size) -> NDArray[np.float64]:
        """Uniform numbers, neither 0 nor 1."""
        return (_signed(self._bits(size), 11).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, size: Size | None = None) -> NDArray[np.float64]:
        return np.asarray(loc) + np.asarray(scale) * special.ndtri(self.random(self._rows(size)))

    def gumbel(self, size: Size | None = None) -> NDArray[np.float64]:
        return -np.log(-np.log(self.random(self._rows(size))))

    def standard_exponential(
        self, size: Size | None = None, dtype: DTypeLike = np.float64
    ) -> NDArray[np.floating[Any]]:
        # Fine where the number is small, also in float32: draws without replacement sort by its logarithm.
        uniform = _signed(self._bits(self._rows(size)), 1).astype(dtype) * np.asarray(2.0**-63, dtype)
        return -np.log1p(-np.minimum(uniform, 1 - np.finfo(dtype).epsneg))

    def poisson(self, lam: ArrayLike) -> Ints:
        """[n] with means `lam` [n]."""
        mean = np.asarray(lam, np.float64)
        return stats.poisson.ppf(self.random(len(mean)), mean).astype(np.int64)

    def beta(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
        """[n] with parameters [n] each."""
        one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return special.betaincinv(one, other, self.random(len(one)))

    def _rows(self, size: Size | None) -> Size:
        return len(self._user) if size is None else size

    def _bits(self, size: Size) -> NDArray[np.uint64]:
        shape = (size,) if isinstance(size, int | np.integer) else tuple(size)
        if shape[0] != len(self._user):
            raise ValueError(f"one row a user is drawn: {shape[0]} rows for {len(self._user)} users")
        self._calls += 1
        start = _mixed(self._user + _mixed(np.array([self._calls], np.uint64)))
        if len(shape) == 1:
            return _mixed(start + STEP)
        width = int(np.prod(shape[1:]))
        steps = np.arange(1, width + 1, dtype=np.uint64) * STEP
        out = np.empty((len(start), width), np.uint64)
        # In parts that stay in the processor's cache, which all rows together do not.
        rows = max(1, TOGETHER // max(width, 1))
        for at in range(0, len(start), rows):
            part = out[at : at + rows]
            np.add(steps, start[at : at + rows, None], out=part)
            _mix(part)
        return out.reshape(shape)


def _signed(bits: NDArray[np.uint64], fewer: int) -> Ints:
    """The highest bits, all but so many: machines turn signed numbers into floats in half the time."""
    return np.right_shift(bits, np.uint64(fewer), out=bits).view(np.int64)


def _mixed(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    out = states.copy()
    _mix(out)
    return out


def _mix(states: NDArray[np.uint64]) -> None:
    """SplitMix64's output function, in place."""
    for shift, factor in TURNS:
        states ^= states >> np.uint64(shift)
        states *= np.uint64(factor)
    states ^= states >> np.uint64(31)
