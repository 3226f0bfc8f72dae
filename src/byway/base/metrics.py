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
SEEDS = 3
"""Models of a kind in a comparison: an interval takes two, and of two it is 3.6 times as wide (Student's t)."""


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


def uci_range(n_clusters: int) -> list[int]:
    """The values of N in UCI@N, the users who consumed items of at least N clusters (paper 1, section 3.2).

    They are the paper's 20 to 200 of 761 clusters in steps of 20, in proportion, from 2 on.

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


def bootstrap_weights(n_users: int, times: int, rng: np.random.Generator) -> Floats:
    """[times, n_users] how often each user is in each bootstrap draw of n_users users with replacement."""
    return rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=times).astype(np.float64)


def replication_weights(n_replications: int, times: int, rng: np.random.Generator) -> Floats:
    """[times, S] weight of each of S replications (deals) in each draw: S - 1 with replacement, each S / (S - 1).

    The rescaled bootstrap (Rao and Wu 1988): drawing S of S makes their variance too small by (S - 1) / S.
    """
    if n_replications < 2:
        return np.ones((times, n_replications))
    counts = rng.multinomial(n_replications - 1, np.full(n_replications, 1 / n_replications), size=times)
    return counts.astype(np.float64) * (n_replications / (n_replications - 1))


@dataclass(frozen=True, slots=True)
class BootstrapRatio:
    """A ratio of two sums over people and replications (deals), and the same over bootstrap draws of either."""

    value: float
    over_people_B: Floats
    """Over draws of people, each with all that every replication saw of them."""
    over_replications_B: Floats
    """Over draws of whole replications; all the same where there is one."""
    share_SU: Floats
    """What each person in each replication adds to the value beside its mean, to first order: they sum to 0."""

    def interval(self) -> Interval:
        """The percentile interval of both draws together."""
        return _interval(self.value, self.over_people_B, self.over_replications_B, self.share_SU)

    def over(self, reference: "BootstrapRatio") -> Interval:
        """Relative lift over a reference of the same draws; NaN where that is 0."""
        if not np.isfinite([self.value, reference.value]).all() or not reference.value:
            return Interval(np.nan, np.nan, np.nan)
        value = self.value / reference.value
        share = (self.share_SU - value * reference.share_SU) / reference.value
        with np.errstate(divide="ignore", invalid="ignore"):
            people = self.over_people_B / reference.over_people_B - 1
            replications = self.over_replications_B / reference.over_replications_B - 1
        return _interval(value - 1, people, replications, share)


def bootstrap_ratios(
    numerators_T: ArrayLike, denominator: ArrayLike, people_BU: Floats, replications_BS: Floats | None = None
) -> list[BootstrapRatio]:
    """T ratios Σ numerator / Σ denominator over the same draws; NaN where the denominator's sum is 0.

    Numerators are [T, U] (or [U] for one) and the denominator [U]; with `replications_BS` [T, S, U] and [S, U].

    >>> [each.value for each in bootstrap_ratios([[1.0, 3.0], [0.0, 3.0]], [2.0, 4.0], np.eye(2) * 2)]
    [0.6666666666666666, 0.5]
    """
    below_SU = np.atleast_2d(np.asarray(denominator, np.float64))
    tops_TSU = np.asarray(numerators_T, np.float64).reshape(-1, *below_SU.shape)
    if replications_BS is None:
        replications_BS = np.ones((1, len(below_SU)))
    every = np.concatenate([tops_TSU, below_SU[None]])
    # One product: it reads the draws, which are large, and not the sums.
    *people_TB, people_below_B = (people_BU @ every.sum(1).T).T
    *replications_TB, replications_below_B = (replications_BS @ every.sum(2).T).T
    found: list[BootstrapRatio] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for top_SU, people_B, replications_B in zip(tops_TSU, people_TB, replications_TB, strict=True):
            value = float(top_SU.sum() / below_SU.sum())
            share = (top_SU - value * below_SU) / below_SU.sum()
            over = people_B / people_below_B, replications_B / replications_below_B
            found.append(BootstrapRatio(value, *over, share))
    return found


def ratio(numerator_U: ArrayLike, denominator_U: ArrayLike, people_BU: Floats) -> Interval:
    """Σ numerator / Σ denominator with the percentile interval of its bootstrap; NaN where the sum is 0.

    >>> every = np.eye(2) * 2
    >>> ratio([1.0, 3.0], [2.0, 4.0], every).mean
    0.6666666666666666
    """
    (found,) = bootstrap_ratios(numerator_U, denominator_U, people_BU)
    return found.interval()


def lift(arm: tuple[ArrayLike, ArrayLike], reference: tuple[ArrayLike, ArrayLike], people_BU: Floats) -> Interval:
    """Relative lift arm / reference - 1 of two ratios over the same draws; NaN where the reference is 0.

    >>> lift(([2.0], [4.0]), ([1.0], [4.0]), np.ones((3, 1))).mean
    1.0
    """
    (one,), (other,) = bootstrap_ratios(*arm, people_BU), bootstrap_ratios(*reference, people_BU)
    return one.over(other)


def _interval(mean: float, people_B: Floats, replications_B: Floats, share_SU: Floats) -> Interval:
    """The percentile interval over draws of people and of replications.

    The variance is that over people, plus what replications differ by beyond the chance of the people in them,
    which the first has counted already: V = V_people + max(0, V_replications - V_within). People and replications
    drawn in one product would count it three times (Owen 2007), and make a lift that is all people's chance 1.7
    times too uncertain. Draws of people therefore move by all that they move, draws of replications by the root of
    the second term's share.

    A variance of S replications has S - 1 degrees of freedom, and percentiles of few draws know nothing of that.
    The interval is widened by Student's t over the normal's quantile, at Satterthwaite's degrees of freedom.
    """
    people_B = people_B[np.isfinite(people_B)]
    if not len(people_B):
        return Interval(float(mean), np.nan, np.nan)
    beyond, wider = _between_variance(share_SU)
    replications_B = replications_B[np.isfinite(replications_B)]
    if not beyond or not len(replications_B):
        low, high = np.quantile(people_B, [0.025, 0.975])
        return Interval(float(mean), float(low), float(high))
    n = min(len(people_B), len(replications_B))
    off = people_B[:n] - mean + beyond * (replications_B[:n] - mean)
    low, high = mean + wider * np.quantile(off, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))


def _between_variance(share_SU: Floats) -> tuple[float, float]:
    """The root of the share of V_replications that is beyond V_within; how much wider Student's t is.

    V_within is what replications would differ by if a person's differed by chance alone, person by person.
    """
    n = len(share_SU)
    if n < 2 or not np.isfinite(share_SU).all():
        return 0.0, 1.0
    factor = n / (n - 1)
    total = factor * float((share_SU.sum(1) ** 2).sum())
    within = factor * float(((share_SU - share_SU.mean(0)) ** 2).sum())
    if total <= within:
        return 0.0, 1.0
    people, between = float((share_SU.sum(0) ** 2).sum()), total - within
    freedom = (people + between) ** 2 / (total**2 / (n - 1) + people**2 / max(share_SU.shape[1] - 1, 1))
    return float(np.sqrt(between / total)), float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))


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
