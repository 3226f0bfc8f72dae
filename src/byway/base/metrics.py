"""The figures of an experiment as pure functions, and their intervals.

Impressions come as arrays of one length, per-user figures as a numerator and a denominator a user: every metric but
coverage is a ratio of two sums over users. Intervals are the bootstrap over users: they are drawn with replacement,
and a ratio's two sums, and two arms' ratios, are taken over the same draw.

Why no library: RecTools, RePlay and LensKit have the intra-list diversity and coverage of items meant here, a line
each, but want data frames; their serendipity weighs by popularity and not by the user's own history, their
novelty is self-information, and none has UCI@N, novel or sole impressions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


def novel_impressions(cluster: ArrayLike, met_NM: ArrayLike) -> Flags:
    """[n] whether an impression's cluster is one that its user never interacted with (paper 1, section 3.2).

    `met_NM` [n, M] says which clusters the user of each impression has met.

    >>> novel_impressions([0, 1, 1], [[True, False], [True, False], [False, True]]).tolist()
    [False, True, False]
    """
    met = np.asarray(met_NM, np.bool_)
    return ~met[np.arange(len(met)), np.asarray(cluster)]


def sole_impressions(nominators: ArrayLike, own: int) -> Flags:
    """[n] whether an impression was named by the source with bit `own` and by no other (paper 2, section 4.2).

    >>> sole_impressions([8, 9, 1, 0], 8).tolist()
    [True, False, False, False]
    """
    return np.asarray(nominators) == own


def serendipitous(satisfaction: ArrayLike, novel: ArrayLike, positive: float = 0.5) -> Flags:
    """[n] whether an impression pleased and its cluster was absent from the user's history (paper 1's [9]).

    >>> serendipitous([0.9, 0.9, 0.1], [True, False, True]).tolist()
    [True, False, False]
    """
    return (np.asarray(satisfaction) >= positive) & np.asarray(novel, np.bool_)


def clusters_within(
    user: Ints, cluster: Ints, day: Ints, today: int, n_users: int, n_clusters: int, *, days: int = 7
) -> Ints:
    """[n_users] number of distinct clusters that each user consumed in the `days` days up to and with `today`.

    >>> u, c, d = np.array([0, 0, 0, 1]), np.array([3, 3, 4, 0]), np.array([1, 7, 8, 0])
    >>> clusters_within(u, c, d, today=8, n_users=2, n_clusters=5).tolist()
    [2, 0]
    """
    now = (day > today - days) & (day <= today)
    pairs = np.unique(user[now] * n_clusters + cluster[now])
    return np.bincount(pairs // n_clusters, minlength=n_users)


def uci(clusters_U: ArrayLike, n: int) -> float:
    """UCI@N: the number of users who consumed items of at least N clusters (paper 1, section 3.2).

    >>> uci([1, 3, 5], 3)
    2.0
    """
    return float((np.asarray(clusters_U) >= n).sum())


def uci_range(n_clusters: int) -> list[int]:
    """The values of N: the paper's 20 to 200 of 761 clusters in steps of 20, in proportion, from 2 on.

    >>> uci_range(761)
    [20, 40, 60, 80, 100, 120, 140, 160, 180, 200]
    >>> uci_range(60)
    [2, 3, 5, 6, 8, 9, 11, 13, 14, 16]
    """
    return sorted({max(2, round(n * n_clusters / 761)) for n in range(20, 201, 20)})


def over_ten_minutes(seconds_UD: ArrayLike, minutes: float = 10) -> Ints:
    """[U] days on which a user watched for ten minutes or more (paper 1, figure 5).

    >>> over_ten_minutes([[700, 10], [0, 600]]).tolist()
    [1, 1]
    """
    return (np.asarray(seconds_UD) >= 60 * minutes).sum(1)


def engaged_pairs(user: Ints, item: Ints, satisfaction: ArrayLike, n_users: int, positive: float = 0.5) -> Ints:
    """[n_users] distinct items that each user was positive on: paper 2's unique pairs (figure 7b), by user.

    >>> engaged_pairs(np.array([0, 0, 1]), np.array([5, 5, 5]), [0.9, 0.8, 0.2], n_users=2).tolist()
    [1, 0]
    """
    good = np.asarray(satisfaction) >= positive
    pairs = np.unique(np.column_stack([user[good], item[good]]), axis=0)
    return np.bincount(pairs[:, 0], minlength=n_users)


def intra_list_diversity(vectors: ArrayLike, list_of: Ints, n_lists: int) -> Floats:
    """[n_lists] 1 - mean cosine over the pairs of each list's items; 0 for fewer than two items.

    Items are unit rows [n, d], and `list_of` [n] says in which list each stands.

    >>> rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    >>> intra_list_diversity(rows, np.array([0, 0, 0, 1]), 2).round(4).tolist()
    [0.6667, 0.0]
    """
    rows = np.asarray(vectors)
    total = np.zeros((n_lists, rows.shape[1]))
    np.add.at(total, list_of, rows)
    own = np.bincount(list_of, (rows * rows).sum(1), n_lists)
    n = np.bincount(list_of, minlength=n_lists)
    value, long = np.zeros(n_lists), n > 1
    value[long] = 1 - ((total * total).sum(1) - own)[long] / (n * (n - 1))[long]
    return value


def coverage(item: ArrayLike, n_items: int) -> float:
    """Share of the catalog that was shown to anybody.

    >>> coverage([0, 0, 3], 4)
    0.5
    """
    return len(np.unique(item)) / n_items


def gini(traffic: ArrayLike) -> float:
    """Concentration of traffic: 0 where every item has the same, near 1 where one has all.

    G = Σ (2i - n - 1) x_i / (n Σ x) with x ascending and i from 1.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(traffic, np.float64))
    n = len(x)
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / max(n * x.sum(), 1e-12))


BUCKETS = 5
"""Of visual interest, as in paper 2's figure 8."""


def buckets(score: ArrayLike, count: int = BUCKETS) -> NDArray[np.int64]:
    """[N] bucket from 1 of each item: as many items in each, the highest scores in the first; ties in order.

    Paper 2's figure 8 with the context's visual interest as the score.

    >>> buckets([0.9, 0.1, 0.8, 0.2], count=2).tolist()
    [1, 2, 1, 2]
    """
    order = np.argsort(-np.asarray(score, np.float64), kind="stable")
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order)) * count // max(1, len(order)) + 1
    return found


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95% interval."""

    mean: float
    low: float
    high: float

    def away_from(self, value: float) -> bool:
        """Whether the interval leaves `value` out: significant at 5%."""
        return not self.low <= value <= self.high


def draws(n_users: int, times: int, rng: np.random.Generator) -> Floats:
    """[times, n_users] how often each user is in each bootstrap draw of n_users users with replacement."""
    return rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=times).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A ratio of two sums over users, and the same over each bootstrap draw of them."""

    value: float
    over_draws_B: Floats

    def interval(self) -> Interval:
        """The percentile interval."""
        return _interval(self.value, self.over_draws_B)

    def over(self, reference: "Drawn") -> Interval:
        """Relative lift over a reference of the same draws; NaN where that is 0."""
        if not np.isfinite([self.value, reference.value]).all() or not reference.value:
            return Interval(np.nan, np.nan, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _interval(self.value / reference.value - 1, self.over_draws_B / reference.over_draws_B - 1)


def drawn(numerators_TU: ArrayLike, denominator_U: ArrayLike, draws_BU: Floats) -> list[Drawn]:
    """T ratios Σ numerator / Σ denominator over the same draws; NaN where the denominator's sum is 0.

    >>> [each.value for each in drawn([[1.0, 3.0], [0.0, 3.0]], [2.0, 4.0], np.eye(2) * 2)]
    [0.6666666666666666, 0.5]
    """
    tops, below = np.atleast_2d(np.asarray(numerators_TU, np.float64)), np.asarray(denominator_U, np.float64)
    # One product: it reads the draws, which are large, and not the sums.
    *over, under = (draws_BU @ np.vstack([tops, below]).T).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return [Drawn(float(top.sum() / below.sum()), each / under) for top, each in zip(tops, over, strict=True)]


def ratio(numerator_U: ArrayLike, denominator_U: ArrayLike, draws_BU: Floats) -> Interval:
    """Σ numerator / Σ denominator with the percentile interval of its bootstrap; NaN where the sum is 0.

    >>> every = np.eye(2) * 2
    >>> ratio([1.0, 3.0], [2.0, 4.0], every).mean
    0.6666666666666666
    """
    (found,) = drawn(numerator_U, denominator_U, draws_BU)
    return found.interval()


def lift(arm: tuple[ArrayLike, ArrayLike], reference: tuple[ArrayLike, ArrayLike], draws_BU: Floats) -> Interval:
    """Relative lift arm / reference - 1 of two ratios over the same draws; NaN where the reference is 0.

    >>> lift(([2.0], [4.0]), ([1.0], [4.0]), np.ones((3, 1))).mean
    1.0
    """
    (one,), (other,) = drawn(*arm, draws_BU), drawn(*reference, draws_BU)
    return one.over(other)


def _interval(mean: float, drawn: Floats) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(float(mean), np.nan, np.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))


def over_seeds(values: Sequence[float], share: bool = False) -> dict[str, float | None]:
    """`mean` of one figure a seed, and the `low` and `high` of its 95% interval by Student's t.

    A single seed has no interval; that of a share does not leave 0 to 1:

    >>> over_seeds([0.4, 0.5, 0.6]), over_seeds([0.5])
    ({'mean': 0.5, 'low': 0.2516, 'high': 0.7484}, {'mean': 0.5, 'low': None, 'high': None})
    >>> over_seeds([0.9, 1.0, 1.0], share=True)
    {'mean': 0.9667, 'low': 0.8232, 'high': 1.0}
    """
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return {"mean": round(mean, 4), "low": None, "high": None}
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    low, high = (max(mean - half, 0.0), min(mean + half, 1.0)) if share else (mean - half, mean + half)
    return {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
