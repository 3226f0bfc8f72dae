"""The statistics of a live experiment on real people: lifts, sample ratio, power, looks that stay honest.

Every figure is a ratio of two sums over users, as in `base.metrics`; arms have users of their own, so that their
sums are independent. Intervals are by the delta method over users (Deng, Knoblich and Lu 2018, arXiv 1803.06336),
in the logarithm of the ratio of two arms: a million users take milliseconds, where a bootstrap over as many would
draw for minutes. It knows no file and no service.

Why no library: none of those that read experiments (spotify-confidence, tea-tasting, expan) has the papers'
figures, and what remains is a formula each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from byway.base.metrics import Interval

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8
RATIO_ALARM = 0.001
"""Sample-ratio mismatch is called below this p, as by Fabijan et al. (KDD 2019): it is looked at every day."""
EFFECT = 0.02
"""Lifts for which the intervals that hold at every look are narrowest: what moves a whole platform is small."""
LIFTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""For which `power` says how many users and days they take."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two sums over the users of one arm."""

    value: float
    variance: float
    """Of the value, over users."""
    users: int

    def interval(self) -> Interval:
        """By the normal distribution."""
        half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * self.variance**0.5
        return Interval(self.value, self.value - half, self.value + half)


def ratio(numerator_U: ArrayLike, denominator_U: ArrayLike) -> Ratio:
    """R = Σ a / Σ b over users, with variance Σ (a - R b)² / (Σ b)² · n / (n - 1); NaN where Σ b is 0.

    >>> ratio([1.0, 3.0], [1.0, 1.0])
    Ratio(value=2.0, variance=1.0, users=2)
    """
    a, b = np.asarray(numerator_U, np.float64), np.asarray(denominator_U, np.float64)
    n, below = len(a), float(b.sum())
    if n < 2 or not below:
        return Ratio(float(a.sum() / below) if below else np.nan, np.nan, n)
    value = float(a.sum() / below)
    return Ratio(value, float(((a - value * b) ** 2).sum()) / below**2 * n / (n - 1), n)


@dataclass(frozen=True, slots=True)
class Lift:
    """A relative lift: one look's interval, and one that holds however often one looks."""

    mean: float
    low: float
    high: float
    always_low: float
    always_high: float
    error: float
    """Standard error of the logarithm of 1 + lift."""

    def away_from(self, value: float = 0.0) -> bool:
        """Whether the interval that always holds leaves `value` out."""
        return not self.always_low <= value <= self.always_high


def lift(arm: Ratio, reference: Ratio, effect: float = EFFECT) -> Lift:
    """L = R / R₀ - 1 with its interval in the logarithm: log(1 + L) ± z √(v / R² + v₀ / R₀²) (Katz et al. 1978).

    `effect` is the size of lifts for which `always` is narrowest. NaN where either ratio is not above 0.

    >>> found = lift(Ratio(0.6, 0.0009, 100), Ratio(0.5, 0.0, 100))
    >>> [round(x, 4) for x in (found.mean, found.low, found.high, found.error)]
    [0.2, 0.088, 0.3236, 0.05]
    """
    values = (arm.value, reference.value, arm.variance, reference.variance)
    if not np.isfinite(values).all() or arm.value <= 0 or reference.value <= 0:
        return Lift(*(np.nan,) * 6)
    error = float(np.sqrt(arm.variance / arm.value**2 + reference.variance / reference.value**2))
    once, always = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error, always_valid(error, effect)
    mean = arm.value / reference.value
    low, high, always_low, always_high = (mean * np.exp(x) - 1 for x in (-once, once, -always, always))
    return Lift(mean - 1, float(low), float(high), float(always_low), float(always_high), error)


def always_valid(error: float, effect: float, alpha: float = 1 - CONFIDENCE) -> float:
    """Half width of an interval that holds at all looks together, with probability 1 - alpha.

    The mixture sequential probability ratio test with effects from N(0, τ²), τ = `effect` (Robbins 1970; Johari et
    al. 2017, arXiv 1512.04922, equation 13); the same bound as the asymptotic confidence sequence of Waudby-Smith
    et al. (arXiv 2103.06476, theorem 2.2) with ρ² = τ² / σ²:
    √(v (v + τ²) / τ² · (2 log(1 / α) + log((v + τ²) / v))), v = error².

    >>> round(always_valid(0.01, 0.02), 4), round(always_valid(0.01, 0.02) / 0.01 / 1.96, 2)
    (0.0308, 1.57)
    """
    v, wide = error**2, effect**2
    if not v:
        return 0.0
    return float(np.sqrt(v * (v + wide) / wide * (2 * np.log(1 / alpha) + np.log((v + wide) / v))))


def sample_ratio(counts: ArrayLike, shares: ArrayLike) -> float:
    """p of Pearson's chi-square test that users fell on the arms by their shares.

    >>> round(sample_ratio([500, 500], [0.5, 0.5]), 3), sample_ratio([5000, 4500], [0.5, 0.5]) < RATIO_ALARM
    (1.0, True)
    """
    seen, share = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    if len(seen) < 2 or not seen.sum():
        return 1.0
    return float(stats.chisquare(seen, share / share.sum() * seen.sum()).pvalue)


def users_for(error: float, users: int, lifted: float) -> int:
    """Users in both arms together that find a lift with power 0.8 at 5%, of those of whom `users` gave `error`.

    n = users · ((z₀.₉₇₅ + z₀.₈) · error / log(1 + lift))²: the variance falls with the users.

    >>> users_for(0.01, 1000, 0.02)
    2002
    """
    needed = np.log1p(lifted) / (stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))
    return int(np.ceil(users * (error / needed) ** 2))


def days_for(error_by_days: ArrayLike, lifted: float) -> int | None:
    """Days in which the same users find a lift with power 0.8; None where they never do.

    `error_by_days` [D] are the standard errors after 1 to D days. People differ however long one looks, so that the
    variance falls to a floor: v(d) = a + b / d with a, b ≥ 0 by least squares.

    >>> days_for([0.02, 0.02 / 2**0.5, 0.02 / 3**0.5], 0.02), days_for([0.02, 0.02, 0.02], 0.02)
    (9, None)
    """
    error = np.asarray(error_by_days, np.float64)
    days = np.arange(1, len(error) + 1)[np.isfinite(error)]
    error = error[np.isfinite(error)]
    if not len(error):
        return None
    (floor, falling), _ = optimize.nnls(np.column_stack([np.ones(len(days)), 1 / days]), error**2)
    if floor < 1e-6 * falling:  # the rounding of the fit
        floor = 0.0
    wanted = (np.log1p(lifted) / (stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))) ** 2
    if floor >= wanted:
        return None
    return max(1, int(np.ceil(falling / (wanted - floor))))
