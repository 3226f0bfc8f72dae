"""What another policy would have earned, from a log of what one showed with known chances.

Estimates per item that the target would have shown. A row is an item that was shown: its reward, and its weight,
the target's chance to show it there over the logging policy's. The items of one answer are taken to please
independently of each other, so that only an item's own chance counts and not that of the whole page (Li et al.
2018, arXiv 1804.10488, the item-position model without positions). With one item an answer they are the estimators
of the Open Bandit Pipeline. Errors are over clusters: rows of one user hang together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from byway.base.metrics import Interval
from byway.evaluation.lift import ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Exposed:
    """n rows of a log, of m answers."""

    reward: Floats
    """[n]"""
    weight: Floats
    """[n] the target's chance of the item over the logging policy's."""
    answer: Ints
    """[n] of which answer, from 0."""
    size: Floats
    """[m] items that the target would show in each answer, on average: the sum of its chances."""
    cluster: Ints
    """[m] of which user, from 0."""


def ips(log: Exposed) -> Interval:
    """Inverse propensity scoring: Σ w r / Σ size (Horvitz and Thompson 1952). Unbiased where the log covers.

    >>> log = Exposed(np.array([1.0, 0.0]), np.array([2.0, 0.5]), np.array([0, 1]), np.ones(2), np.array([0, 1]))
    >>> ips(log).mean
    1.0
    """
    return _over(_by_answer(log, log.weight * log.reward), log.size, log)


def snips(log: Exposed) -> Interval:
    """Self-normalised: Σ w r / Σ w (Swaminathan and Joachims 2015). A little biased, and far less noisy.

    >>> log = Exposed(np.array([1.0, 0.0]), np.array([2.0, 0.5]), np.array([0, 1]), np.ones(2), np.array([0, 1]))
    >>> snips(log).mean
    0.8
    """
    return _over(_by_answer(log, log.weight * log.reward), _by_answer(log, log.weight), log)


def doubly_robust(log: Exposed, guess: ArrayLike, value: ArrayLike) -> Interval:
    """Σ (value + Σ w (r - guess)) / Σ size (Dudík, Langford and Li 2011, arXiv 1103.4601).

    `guess` [n] is what a model expects of each row, `value` [m] of all that the target would show in each answer:
    the sum of its chances times the guesses. Unbiased where the log covers or the model is right.

    >>> log = Exposed(np.array([1.0, 0.0]), np.array([2.0, 0.5]), np.array([0, 1]), np.ones(2), np.array([0, 1]))
    >>> doubly_robust(log, [0.5, 0.5], [0.5, 0.5]).mean
    0.875
    """
    left = log.weight * (log.reward - np.asarray(guess, np.float64))
    return _over(np.asarray(value, np.float64) + _by_answer(log, left), log.size, log)


def effective_size(weight: ArrayLike) -> float:
    """(Σ w)² / Σ w²: of how many rows of equal weight the log is worth (Kish 1965).

    >>> effective_size([1.0, 1.0, 0.0, 0.0])
    2.0
    """
    w = np.asarray(weight, np.float64)
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def covered(log: Exposed) -> float:
    """Σ w / Σ size: about the share of what the target would show that the log could have shown; near 1 is well.

    >>> covered(Exposed(np.ones(2), np.array([1.0, 0.0]), np.array([0, 1]), np.ones(2), np.array([0, 1])))
    0.5
    """
    return float(log.weight.sum() / log.size.sum()) if log.size.sum() else 0.0


def fitted(
    reward: ArrayLike, features: ArrayLike, cluster: Ints, others: ArrayLike, whose: Ints
) -> tuple[Floats, Floats]:
    """What a linear model expects of rows and of `others`, each by the half of the users that it was not fitted on.

    `features` [n, f] and `others` [o, f]; `cluster` [n] and `whose` [o] are their users. Least squares with a ridge
    of 1 beside a constant.
    """
    x, y = np.asarray(features, np.float64), np.asarray(reward, np.float64)
    z, own = np.asarray(others, np.float64), np.zeros(len(y))
    other = np.zeros(len(z))
    for half in (0, 1):
        on = cluster % 2 != half
        mean, level = (x[on].mean(0), float(y[on].mean())) if on.any() else (np.zeros(x.shape[1]), 0.0)
        c = x[on] - mean
        slope = np.linalg.solve(c.T @ c + np.eye(x.shape[1]), c.T @ (y[on] - level))
        own[~on] = level + (x[~on] - mean) @ slope
        at = whose % 2 == half
        other[at] = level + (z[at] - mean) @ slope
    return own, other


def _by_answer(log: Exposed, value: Floats) -> Floats:
    return np.bincount(log.answer, value, len(log.size)).astype(np.float64)


def _over(top_m: Floats, below_m: Floats, log: Exposed) -> Interval:
    """The ratio of two sums over answers, its interval over users."""
    users = int(log.cluster.max(initial=-1)) + 1
    found = ratio(np.bincount(log.cluster, top_m, users), np.bincount(log.cluster, below_m, users))
    return found.interval()
