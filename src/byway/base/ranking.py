"""The best of many scores; and figures of one ranking with one right answer each: recall and NDCG at k.

Figures are pure functions of `ranks`: how many items stood before the right one, 0 where it came first. They do not
know what was ranked, or by whom.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUMBERS = 1 << 24
"""More than there are columns."""


NOWHERE = 2**31 - 1
"""Rank of what a list does not hold."""


def recall_at(ranks: ArrayLike, k: int, counts: ArrayLike | None = None) -> float:
    """Share of rankings whose right answer is among the first `k`: mean of [rank < k].

    `counts` says how often each ranking stands in the data; once where it is missing. Two of the four are among
    the first two:

    >>> recall_at([0, 1, 2, 9], 2)
    0.5
    >>> recall_at([0, 2], 1, counts=[3, 1])
    0.75
    """
    return _mean(np.asarray(ranks) < k, counts)


def ranks_in(listed_Nn: NDArray[np.int32], label_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rank of each label in its own list, from 0; `NOWHERE` where it is not there, however short the list is.

    >>> ranks_in(np.array([[4, 7], [4, 7]]), np.array([7, 2])).tolist() == [1, NOWHERE]
    True
    """
    hit = listed_Nn == label_N[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1), NOWHERE)


def macro_recall_at(ranks: ArrayLike, k: int, labels: ArrayLike, counts: ArrayLike) -> float:
    """Recall at `k` averaged over the labels that occur, so that a rare label weighs like a frequent one.

    Label 0 is found in two of three, label 1 in none of one:

    >>> macro_recall_at([0, 5], 1, labels=[0, 1], counts=[3, 1])
    0.5
    """
    labels, counts = np.asarray(labels), np.asarray(counts, dtype=np.float64)
    total = np.bincount(labels, counts)
    hit = np.bincount(labels, counts * (np.asarray(ranks) < k))
    return _mean(hit[total > 0] / total[total > 0])


def ndcg_at(ranks: ArrayLike, k: int, counts: ArrayLike | None = None) -> float:
    """Normalised discounted cumulative gain: mean of [rank < k] / log2(rank + 2).

    `counts` as in `recall_at`. With one right answer the ideal gain is 1 / log2(2) = 1, so nothing is left to
    divide by. Ranks 0 and 2 give 1 / log2(2) = 1 and 1 / log2(4) = 0.5; rank 9 is beyond the third place:

    >>> ndcg_at([0, 2, 9, 3], 3)
    0.375
    >>> ndcg_at([0, 9], 3, counts=[3, 1])
    0.75
    """
    places = np.asarray(ranks, dtype=np.float64)
    return _mean((places < k) / np.log2(places + 2), counts)


def _mean(values: ArrayLike, counts: ArrayLike | None = None) -> float:
    """The mean; 0 of nothing, so that a log without held-out users still has a figure."""
    array = np.asarray(values, dtype=np.float64)
    weights = None if counts is None else np.asarray(counts, dtype=np.float64)
    return round(float(np.average(array, weights=weights)), 6) if array.size else 0.0


def top(score_n: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The places of the k highest scores, highest first, equal ones by place; none of -inf.

    >>> top(np.array([0.5, 2.0, 0.5, -np.inf], np.float32), 2).tolist()
    [1, 0]
    """
    k = min(k, int((score_n > -np.inf).sum()))
    if k <= 0:
        return np.empty(0, np.int64)
    # All from the k-th best score on, in order of place; a stable sort keeps that order among equals.
    (found,) = (score_n >= np.partition(score_n, len(score_n) - k)[len(score_n) - k]).nonzero()
    return found[np.argsort(-score_n[found], kind="stable")[:k]]


def best_first(score_NM: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """[N, n] the n highest of each row, highest first, equal ones by number; no NaN.

    As the first n of a stable sort, at a quarter of its cost: sorting all of 761 scores took 37 µs a pair where
    reading a pair takes 1,100. Score and number are packed into one integer, so that there are no ties.

    >>> best_first(np.array([[0.5, 2.0, 0.5, -np.inf]], np.float32), 3).tolist()
    [[1, 0, 2]]
    """
    M = score_NM.shape[1]
    bits = (score_NM + np.float32(0)).view(np.int32).astype(np.int64)  # + 0 makes -0 and 0 the same
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    key = (ordered << 24) | (NUMBERS - 1 - np.arange(M))
    best = np.sort(np.partition(key, M - n, axis=1)[:, M - n :], axis=1)[:, ::-1]
    return NUMBERS - 1 - (best & (NUMBERS - 1))
