"""Cutting unit vectors into parts of about equal weight whose members are alike.

METIS cuts the similarity graph; a few rounds of priced reassignment sharpen the parts; a repair pass brings
the heaviest part under the tolerance. It does not know levels, nor what a weight stands for.
"""

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import pymetis
from numpy.typing import NDArray
from scipy import sparse

from byway.interests.graph import CELL, Graph, among, kmeans, nearest, rows_of

NEIGHBOURS = 30
"""Neighbours of a centroid in a graph made here."""
SHARPNESS = 8
"""Edges weigh cosine to this power: it parts topics that are merely near."""
DIRECT = 200_000
"""Up to this many rows METIS cuts the rows' own graph; beyond, that of micro-clusters of them."""
MICRO = 16
"""Rows a micro-cluster."""
BLOCK = 1 << 14
"""Rows whose choices are made together: what they need stays in the cache."""
EXACT = 20_000
"""Micro-clusters beyond which their neighbours are searched approximately."""
CANDIDATES = 24
"""Nearest parts that a row may move to."""
ROUNDS = 6
"""Rounds of centroids and reassignment."""
PRICE_STEPS, PRICE_PATIENCE = 40, 8
"""Steps of price finding a round at most, and those without any improvement."""
PACE = 0.02
"""First step of a price, in cosines: halved where it does not keep its direction, as it does not in the first."""


def coherence(vectors: NDArray[np.float32], labels: NDArray[np.integer], parts: int) -> float:
    """Mean cosine of a row to the centroid of its part.

    With unit rows x and parts c this is (1/n) Σ_c ‖Σ_{i in c} x_i‖.

    >>> coherence(np.array([[1, 0], [0, 1], [1, 0]], np.float32), np.array([0, 0, 1]), 2)  # (√2 + 1) / 3
    0.8047378541243649
    """
    return float(np.linalg.norm(_sums(vectors, labels, parts), axis=1).sum() / len(vectors))


def centroids(vectors: NDArray[np.float32], labels: NDArray[np.integer], parts: int) -> NDArray[np.float32]:
    """Unit-length mean of each part: float32 [parts, d]; zero for a part without rows."""
    if parts <= CANDIDATES:
        sums = (labels == np.arange(parts)[:, None]).astype(np.float32) @ vectors
    else:
        sums = _sums(vectors, labels, parts)
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def loads_of(labels: NDArray[np.integer], weights: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """Weight of each part: float64 [parts]."""
    return np.bincount(labels, weights, parts).astype(np.float64)


def _sums(vectors: NDArray[np.float32], labels: NDArray[np.integer], parts: int) -> NDArray[np.float64]:
    n = len(labels)
    members = sparse.csr_array((np.ones(n, np.float32), (labels, np.arange(n))), shape=(parts, n))
    return np.asarray(members @ vectors, np.float64)


def partition(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float64],
    parts: int,
    tolerance: float,
    rng: np.random.Generator,
    graph: Graph | None = None,
    *,
    micro: NDArray[np.int64] | None = None,
    rounds: int = ROUNDS,
) -> NDArray[np.int64]:
    """Cut unit rows [n, d] into `parts` non-empty parts; returns int64 [n].

    Aims at a heaviest part of `tolerance` times the mean weight; rows that are themselves heavier than that,
    or too few rows, can make it impossible. `graph` is the rows' own graph where there is one, `micro` int64 [n]
    their micro-clusters where rows are too many for a graph of their own.
    """
    n = len(vectors)
    if parts <= 1:
        return np.zeros(n, np.int64)
    if parts >= n:
        return np.arange(n)
    if n > DIRECT and micro is None:
        micro = micro_clusters(vectors, rng)
    if micro is not None:
        labels = _through_micro_clusters(vectors, weights, parts, rng, micro)
    else:
        labels = metis(graph or nearest(vectors, NEIGHBOURS), weights, parts, rng)
    return sharpen(vectors, labels, weights, parts, tolerance, rounds)


def sharpen(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    parts: int,
    tolerance: float,
    rounds: int = ROUNDS,
) -> NDArray[np.int64]:
    """Move rows to the centroids that suit them, keep every part non-empty, bring the heaviest to tolerance.

    A row moves among the parts that were nearest to it in the first round; prices go on from round to round.
    """
    labels = fill_empty(vectors, labels, weights, parts)
    cap = tolerance * weights.sum() / parts
    centers = centroids(vectors, labels, parts)
    near = _nearest_parts(vectors, centers, CANDIDATES)
    prices = np.zeros(parts, np.float32)
    for _ in range(rounds):
        before = labels
        labels, prices = reassign(_cosines(vectors, centers, near), near, labels, weights, cap, prices)
        labels = fill_empty(vectors, labels, weights, parts)
        if np.array_equal(labels, before):
            break
        centers = centroids(vectors, labels, parts)
    return repair(vectors, labels, weights, parts, cap, near)


def metis(graph: Graph, weights: NDArray[np.float64], parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Parts of a similarity graph that cut the least weight of edges; some may be empty or too heavy."""
    # METIS counts in 32-bit integers: the weights of all vertices together stay below 2^30.
    vertices = np.maximum(1, np.rint(weights / weights.sum() * (1 << 29))).astype(np.int32)
    edges = np.maximum(1, np.rint(graph.weights.astype(np.float64) ** SHARPNESS * 10_000)).astype(np.int32)
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(np.int32), np.ascontiguousarray(graph.indices))
    options = pymetis.Options(seed=int(rng.integers(1 << 30)))
    with _silent():
        cut = pymetis.part_graph(parts, adjacency=adjacency, vweights=vertices, eweights=edges, options=options)
    return np.asarray(cut.vertex_part, np.int64)


@contextmanager
def _silent() -> Generator[None]:
    """Without what METIS prints of parts that it must leave empty: standard output belongs to answers."""
    library = ctypes.CDLL(None)
    library.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def micro_clusters(vectors: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Groups of about MICRO rows that are close together, by k-means inside the cells of a k-means: int64 [n]."""
    n = len(vectors)
    cells = max(2, n // CELL)
    cell, _ = kmeans(vectors, cells, 10, int(rng.integers(1 << 30)))
    micro = np.empty(n, np.int64)
    total = 0
    for members in rows_of(cell, cells):
        if len(members):
            count = max(1, len(members) // MICRO)
            labels, _ = kmeans(vectors[members], count, 5, int(rng.integers(1 << 30)))
            _, dense = np.unique(labels, return_inverse=True)
            micro[members] = total + dense
            total += int(dense.max()) + 1
    return micro


def _through_micro_clusters(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float64],
    parts: int,
    rng: np.random.Generator,
    micro: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Parts by METIS on the graph of the micro-clusters' centroids."""
    distinct, micro = np.unique(micro, return_inverse=True)
    n = len(distinct)
    if n <= parts:
        return metis(nearest(vectors, NEIGHBOURS), weights, parts, rng)
    centers = centroids(vectors, micro, n)
    graph = nearest(centers, NEIGHBOURS, exact=n <= EXACT, seed=int(rng.integers(1 << 31)))
    return metis(graph, loads_of(micro, weights, n), parts, rng)[micro]


def _nearest_parts(rows: NDArray[np.float32], centers: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """Numbers [rows, count] of the centroids nearest to each row, in any order."""
    if len(centers) <= count:
        return np.broadcast_to(np.arange(len(centers), dtype=np.int32), (len(rows), len(centers)))
    return among(rows, centers, count)[1].astype(np.int32)


def _cosines(
    rows: NDArray[np.float32], centers: NDArray[np.float32], near: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Cosine [rows, count] of each row to the centroids `near` it.

    All products are made and few are kept: that is faster than to gather the centroids of every row.
    """
    if near.strides[0] == 0:  # every part is a candidate of every row
        return rows @ centers.T
    cosines = np.empty(near.shape, np.float32)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        cosines[block] = np.take_along_axis(rows[block] @ centers.T, near[block], axis=1)
    return cosines


def reassign(
    scores: NDArray[np.float32],
    near: NDArray[np.int32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    cap: float,
    prices: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Move every row to the part that suits it best at prices that keep parts from overfilling.

    `scores` [n, k] are the cosines of the rows to their candidates `near`, `prices` those to begin with; returns
    int64 [n] and the prices found. Maximising Σ cos(x_i, centroid of its part) with every part's weight at most
    `cap` has the Lagrangian Σ_i cos(x_i, c) − w_i·p_c + Σ_c p_c·cap: at given prices p ≥ 0 each row decides by
    itself, and a price rises while its part is too heavy. The result is near balance, not within it: `repair` does
    the rest.
    """
    parts = len(prices)
    # In units of the mean row, so that a price is a cosine for a row of average weight.
    relative = np.maximum(weights / weights.mean(), 1e-6).astype(np.float32)
    choice = np.zeros(len(near), np.int64)
    # A row keeps its choice while the price of that has not passed this limit, given how far others may have
    # fallen since: most rows need not be asked in most steps (the idea of Hamerly's bound for k-means).
    limit = np.full(len(near), -np.inf, np.float32)
    fallen = 0.0
    best, least_excess, best_prices, stale = labels, np.inf, prices, 0
    pace, former = np.full(parts, PACE), np.zeros(parts)
    for _ in range(PRICE_STEPS):
        asked = np.flatnonzero(prices[choice] + fallen >= limit)
        for start in range(0, len(asked), BLOCK):
            rows = asked[start : start + BLOCK]
            weight = relative[rows]
            worth = scores[rows] - weight[:, None] * prices[near[rows]]
            at = np.arange(len(rows)), worth.argmax(axis=1)
            most = worth[at]
            worth[at] = -np.inf
            choice[rows] = near[rows, at[1]]
            limit[rows] = (most - worth.max(axis=1)) / weight + prices[choice[rows]] + fallen
        load = loads_of(choice, weights, parts) / cap
        excess = float(np.maximum(load - 1.0, 0.0).sum())
        stale += 1
        if excess < least_excess:
            best, least_excess, best_prices, stale = choice.copy(), excess, prices, 0
        if excess == 0.0 or stale == PRICE_PATIENCE:
            break
        # A part whose load swings around the cap takes smaller steps, one that stays on a side larger ones (Rprop).
        pace *= np.where(np.sign(load - 1.0) == former, 1.2, 0.5)
        former = np.sign(load - 1.0)
        risen = np.maximum(prices + pace * np.minimum(load - 1.0, 1.0), 0.0).astype(np.float32)
        # A little more than it is, so that rounding asks too often and not too rarely.
        fallen += max(0.0, float((prices - risen).max())) + 1e-6
        prices = risen
    return best, best_prices


def fill_empty(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float64], parts: int
) -> NDArray[np.int64]:
    """Give every empty part one row: the one that suits the heaviest part of several rows least."""
    counts = np.bincount(labels, minlength=parts)
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return labels
    labels = labels.copy()
    loads = loads_of(labels, weights, parts)
    centers = centroids(vectors, labels, parts)
    for part in empty.tolist():
        donor = int(np.where(counts > 1, loads, -1.0).argmax())
        members = np.flatnonzero(labels == donor)
        row = members[(vectors[members] @ centers[donor]).argmin()]
        labels[row] = part
        counts[donor] -= 1
        counts[part] = 1
        loads[donor] -= weights[row]
        loads[part] = weights[row]
    return labels


def repair(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    parts: int,
    cap: float,
    near: NDArray[np.int32] | None = None,
) -> NDArray[np.int64]:
    """Move rows out of parts heavier than `cap`, those first that lose least cosine for their weight.

    A row goes to the best part with room for it: among those `near` it, then among the nearest that have any, then
    among all. No part is emptied. What cannot be moved stays: a row heavier than any room, or a part of one row.
    """
    labels = labels.copy()
    # Those that lose least and weigh some times what is too much are nearly always enough.
    for step, enough in enumerate((8.0, 3.0, np.inf)):
        loads = loads_of(labels, weights, parts)
        heavy = loads > cap
        asked = np.flatnonzero((loads < cap) | (step == 2)).astype(np.int32)
        if not heavy.any() or not len(asked):
            break
        rows = np.flatnonzero(heavy[labels])
        moving, weight = vectors[rows], weights[rows, None]
        centers = centroids(vectors, labels, parts)
        if step == 0 and near is not None:
            options = near[rows]
        else:
            options = asked[_nearest_parts(moving, centers[asked], CANDIDATES if step < 2 else parts)]
        loss = (moving * centers[labels[rows]]).sum(axis=1, keepdims=True) - _cosines(moving, centers, options)
        # Parts fill up here: what has no room now gets none, unless it is too heavy itself.
        room = ((loads[options] + weight <= cap) | heavy[options]) & (options != labels[rows, None])
        cost = np.where(room, loss / weight, np.inf)
        kept = _cheapest(cost.min(axis=1), labels[rows], weights[rows], enough * (loads - cap))
        _move(labels, weights, cap, loads, rows[kept], options[kept], cost=cost[kept])
    return labels


def _cheapest(
    cost: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64], most: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Of each part the rows of least cost, until they weigh `most` of that part; none that cannot move."""
    order = np.lexsort((cost, labels))
    order = order[np.isfinite(cost[order])]
    part, sums = labels[order], np.cumsum(weights[order])
    fresh = np.flatnonzero(np.diff(part, prepend=-1))
    before = np.repeat(sums[fresh] - weights[order][fresh], np.diff(fresh, append=len(part)))
    return order[sums - weights[order] - before <= most[part]]


def _move(
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    cap: float,
    loads: NDArray[np.float64],
    rows: NDArray[np.int64],
    options: NDArray[np.int32],
    *,
    cost: NDArray[np.float64],
) -> None:
    """Move `rows` to their `options` [rows, count], the cheapest first, until no part is too heavy; in `labels`."""
    left = int((loads > cap).sum())
    counts = np.bincount(labels, minlength=len(loads))
    flat = np.flatnonzero(np.isfinite(cost))
    flat = flat[np.argsort(cost.ravel()[flat], kind="stable")]
    for start in range(0, len(flat), BLOCK):
        at, column = np.divmod(flat[start : start + BLOCK], cost.shape[1])
        for row, target in zip(rows[at].tolist(), options[at, column].tolist(), strict=True):
            source, weight = labels[row], weights[row]
            # No part is filled beyond the cap: what has moved stays.
            if loads[source] <= cap or counts[source] < 2 or loads[target] + weight > cap:
                continue
            labels[row] = target
            loads[source] -= weight
            loads[target] += weight
            counts[source] -= 1
            counts[target] += 1
            left -= int(loads[source] <= cap)
            if not left:
                return
