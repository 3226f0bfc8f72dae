"""How far the world has moved since the tree was cut and the model tuned: pure functions of counts and vectors.

Small samples differ from large ones without any change, so every distance stands beside the one that is expected of
a sample of that size drawn from the old counts. This module reads nothing and decides nothing.
"""

import numpy as np
from numpy.typing import NDArray

TOP = 5
"""Successors that are compared (arXiv 2510.20260 measures the most frequent five, month over month)."""
FEWEST = 20
"""Transitions out of a cluster, in both logs, from which on its successors are compared."""


def top_successors(counts_M: NDArray[np.number], k: int = TOP) -> set[int]:
    """The at most k labels that followed most often, and at least once; ties go to the lower number.

    >>> sorted(top_successors(np.array([3.0, 0.0, 5.0, 3.0]), 2))
    [0, 2]
    """
    best = np.argsort(-counts_M, kind="stable")[:k]
    return {int(label) for label in best if counts_M[label] > 0}


def jaccard(a: set[int], b: set[int]) -> float:
    """|a ∩ b| / |a ∪ b|; 1 where both are empty.

    >>> jaccard({1, 2, 3}, {2, 3, 4})
    0.5
    """
    return len(a & b) / len(a | b) if a | b else 1.0


def successor_overlap(
    before_MM: NDArray[np.number], now_MM: NDArray[np.number], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Jaccard of the five most frequent successors of each cluster, then and now, and what no change would give.

    Rows are the last interest, columns what came next. NaN for a cluster with fewer than FEWEST transitions in
    either. The second array is the overlap of the old five with those of a sample of the new size from the old row.
    """
    size = len(before_MM)
    found, expected = np.full(size, np.nan), np.full(size, np.nan)
    for c in range(size):
        before, now = before_MM[c], now_MM[c]
        if min(before.sum(), now.sum()) < FEWEST:
            continue
        old = top_successors(before)
        found[c] = jaccard(old, top_successors(now))
        expected[c] = jaccard(old, top_successors(rng.multinomial(int(now.sum()), before / before.sum())))
    return found, expected


def shift(before_M: NDArray[np.number], now_M: NDArray[np.number]) -> float:
    """Total variation distance of two distributions given as counts: ½ Σ |p − q|, in [0, 1]; 0 without counts.

    >>> shift(np.array([1.0, 1.0]), np.array([3.0, 1.0]))
    0.25
    """
    if before_M.sum() <= 0 or now_M.sum() <= 0:
        return 0.0
    return float(0.5 * np.abs(before_M / before_M.sum() - now_M / now_M.sum()).sum())


def expected_shift(before_M: NDArray[np.number], size: int, rng: np.random.Generator) -> float:
    """The `shift` of a sample of `size` drawn from the old counts: what no change at all looks like."""
    if before_M.sum() <= 0:
        return 0.0
    return shift(before_M, rng.multinomial(size, before_M / before_M.sum()).astype(np.float64))


def mean_over(values: NDArray[np.float64]) -> float | None:
    """Mean over what was measured; None where nothing was."""
    known = values[~np.isnan(values)]
    return round(float(known.mean()), 4) if len(known) else None
