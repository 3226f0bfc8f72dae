"""Which pairs or triples of somebody's interests can be drawn, how likely, and what a table says of them all.

Paper 1 draws two past interests for each request (section 2.2). Whoever wants the chance of an answer, or the
ranking of all draws together, sums over them here: the service, the fit of the planner, and the simulated planner.
It needs numpy alone, since it is part of what answers requests.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-6
"""Weight of an item without satisfaction in the draw."""
THREE_OF = 48
"""Three interests are drawn from so many, those met last: a propensity sums over every triple of them."""


def drawn_from(cluster_h: NDArray[np.integer], recent_h: NDArray[np.bool_], K: int) -> NDArray[np.bool_]:
    """[h] the items of a history, the most recent last, from whose interests K are drawn: the recent ones, all
    where none is recent; of these, where K is 3, those of the THREE_OF interests met last.

    >>> drawn_from(np.array([7, 8, 9]), np.array([False, True, True]), 2).tolist()
    [False, True, True]
    """
    found = recent_h if recent_h.any() else np.ones(len(recent_h), np.bool_)
    if K > 2:
        met_last = list(dict.fromkeys(cluster_h[found][::-1].tolist()))[:THREE_OF]
        found = found & np.isin(cluster_h, met_last)
    return found


def shares(cluster_h: NDArray[np.integer], satisfaction_h: NDArray[np.floating]) -> dict[int, float]:
    """Share of the draw of each interest, by the satisfaction that it gave, in the order of the last meetings.

    >>> shares(np.array([7, 8, 7]), np.array([1.0, 0.5, 0.5]))
    {8: 0.25, 7: 0.75}
    """
    weight: dict[int, float] = {}
    for cluster, satisfaction in zip(cluster_h.tolist(), satisfaction_h.tolist(), strict=True):
        weight[cluster] = weight.pop(cluster, 0.0) + max(satisfaction, LEAST)
    total = sum(weight.values())
    return {cluster: w / total for cluster, w in weight.items()}


def drawable(share: Mapping[int, float], K: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every context [n, K] that can be drawn, the interest met last at its end, and its probability [n]."""
    interests = np.array(list(share), dtype=np.int64)
    sets, chance = in_turn(np.array(list(share.values())), K)
    return filled(interests[sets], K), chance


def in_turn(w: NDArray[np.float64], n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every set of n places, or of all where they are fewer, and its probability if they are drawn in turn by w.

    Two with shares a and b: a·b / (1 − a) + b·a / (1 − b), the two orders of drawing them.

    >>> sets, chance = in_turn(np.array([0.5, 0.25, 0.25]), 2)
    >>> sets.tolist(), chance.round(4).tolist()
    ([[0, 1], [0, 2], [1, 2]], [0.4167, 0.4167, 0.1667])
    """
    sets = _sets(len(w), min(n, len(w)))
    chance = np.zeros(len(sets))
    for order in permutations(range(sets.shape[1])):
        left, each = np.ones(len(sets)), np.ones(len(sets))
        for place in order:
            each *= w[sets[:, place]] / np.maximum(left, LEAST**2)
            left = left - w[sets[:, place]]
        chance += each
    return sets, chance / chance.sum()  # 1 less a share that is nearly 1 has few digits


@lru_cache(maxsize=64)
def _sets(count: int, n: int) -> NDArray[np.int64]:
    """[sets, n] the sets of n out of `count` places, each in order."""
    return np.array(list(combinations(range(count), n)), dtype=np.int64).reshape(-1, n)


def filled(context_nk: NDArray[np.int64], K: int) -> NDArray[np.int64]:
    """Contexts as the table is asked: two interests at least, and K; the oldest stands in for those that miss."""
    missing = max(K, 2) - context_nk.shape[1]
    return np.column_stack([*[context_nk[:, 0]] * missing, context_nk])


def reciprocal_rank(ranking_Nn: NDArray[np.integer], chance_N: NDArray[np.floating], M: int) -> NDArray[np.float32]:
    """[M] of every cluster, one over its place in the rankings of N contexts, averaged by their chances.

    A cluster that a ranking does not hold has 0 there; -1 marks where a ranking ends.

    >>> reciprocal_rank(np.array([[2, 0], [1, -1]]), np.array([0.5, 0.5]), 3).tolist()
    [0.25, 0.5, 0.5]
    """
    n = ranking_Nn.shape[1]
    worth = chance_N[:, None] / np.arange(1, n + 1)
    there = ranking_Nn >= 0
    return np.bincount(ranking_Nn[there], worth[there], M).astype(np.float32)
