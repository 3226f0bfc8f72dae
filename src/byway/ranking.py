"""Figures of one ranking with one right answer each: recall and NDCG at k.

Pure functions of `ranks`: how many items stood before the right one, 0 where it came first. They do not know what
was ranked, or by whom.
"""

import numpy as np
from numpy.typing import ArrayLike


def recall_at(ranks: ArrayLike, k: int) -> float:
    """Share of rankings whose right answer is among the first `k`: mean of [rank < k].

    Two of the four are among the first two:

    >>> recall_at([0, 1, 2, 9], 2)
    0.5
    """
    return _mean(np.asarray(ranks) < k)


def ndcg_at(ranks: ArrayLike, k: int) -> float:
    """Normalised discounted cumulative gain: mean of [rank < k] / log2(rank + 2).

    With one right answer the ideal gain is 1 / log2(2) = 1, so nothing is left to divide by. Ranks 0 and 2 give
    1 / log2(2) = 1 and 1 / log2(4) = 0.5; rank 9 is beyond the third place:

    >>> ndcg_at([0, 2, 9, 3], 3)
    0.375
    """
    places = np.asarray(ranks, dtype=np.float64)
    return _mean((places < k) / np.log2(places + 2))


def _mean(values: ArrayLike) -> float:
    """The mean; 0 of nothing, so that a log without held-out users still has a figure."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else 0.0
