"""Cutting unit vectors into parts of about equal weight whose members are alike.

METIS cuts the similarity graph; a few rounds of priced reassignment sharpen the parts; a repair pass brings
the heaviest part under the tolerance. It does not know levels, nor what a weight stands for.
"""

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager

import faiss
import numpy as np
import pymetis
from numpy.typing import NDArray
from scipy import sparse

from byway.interests.graph import Graph, nearest

NEIGHBOURS = 30
"""Neighbours of a centroid in a graph made here."""
SHARPNESS = 8
"""Edges weigh cosine to this power: it parts topics that are merely near."""
DIRECT = 200_000
"""Up to this many rows METIS cuts the rows' own graph; beyond, that of micro-clusters of them."""
MICRO = 16
"""Rows a micro-cluster."""
CELL = 2048
"""Rows of a k-means cell inside which micro-clusters are cut."""
BLOCK = 1 << 14
"""Rows whose choices are made together: what they need stays in the cache."""
SUMMED = 1 << 18
"""Rows summed together: a sparse product takes them to float64, 0.5 GB at 256 dimensions."""
EXACT = 20_000
"""Micro-clusters beyond which their neighbours are searched approximately."""
CANDIDATES = 24
"""Nearest parts that a row may move to."""
ROUNDS = 6
"""Rounds of centroids and reassignment."""
PRICE_STEPS = 40
"""Steps of price finding a round."""


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
    total = np.zeros((parts, vectors.shape[1]))
    for start in range(0, len(labels), SUMMED):
        some = labels[start : start + SUMMED]
        n = len(some)
        members = sparse.csr_array((np.ones(n), (some, np.arange(n))), shape=(parts, n))
        total += np.asarray(members @ vectors[start : start + n], np.float64)
    return total


def partition(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float64],
    parts: int,
    tolerance: float,
    rng: np.random.Generator,
    graph: Graph | None = None,
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
        micro = micro_clusters(vectors, weights, rng)
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
    """Move rows to the centroids that suit them, keep every part non-empty, bring the heaviest to tolerance."""
    labels = fill_empty(vectors, labels, weights, parts)
    cap = tolerance * weights.sum() / parts
    for _ in range(rounds):
        before = labels
        labels = fill_empty(vectors, reassign(vectors, labels, weights, parts, cap), weights, parts)
        if np.array_equal(labels, before):
            break
    return repair(vectors, labels, weights, parts, cap)


def metis(graph: Graph, weights: NDArray[np.float64], parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Parts of a similarity graph that cut the least weight of edges; some may be empty or too heavy."""
    # METIS counts in 32-bit integers: the weights of all vertices together stay below 2^30.
    vertices = np.maximum(1, np.rint(weights / weights.sum() * (1 << 29))).astype(np.int32)
    edges = np.maximum(1, np.rint(graph.weights.astype(np.float64) ** SHARPNESS * 10_000)).astype(np.int32)
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(np.int32), np.ascontiguousarray(graph.indices))
    options = pymetis.Options(seed=int(rng.integers(1 << 30)))
    with _silent():
        found = pymetis.part_graph(parts, adjacency=adjacency, vweights=vertices, eweights=edges, options=options)
    return np.asarray(found.vertex_part, np.int64)


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


def micro_clusters(
    vectors: NDArray[np.float32], weights: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Groups of about MICRO rows that are close together, cut by METIS inside k-means cells: int64 [n]."""
    n = len(vectors)
    cells = max(2, n // CELL)
    kmeans = faiss.Kmeans(vectors.shape[1], cells, niter=10, spherical=True, seed=int(rng.integers(1 << 30)))
    kmeans.train(vectors)
    cell = kmeans.index.search(vectors, 1)[1][:, 0]
    micro = np.empty(n, np.int64)
    found = 0
    for members in np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=cells))):
        if len(members):
            count = max(1, len(members) // MICRO)
            local = nearest(vectors[members], NEIGHBOURS // 2)
            labels = metis(local, weights[members], count, rng) if count > 1 else np.zeros(len(members), int)
            _, dense = np.unique(labels, return_inverse=True)
            micro[members] = found + dense
            found += int(dense.max()) + 1
    return micro


def _through_micro_clusters(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float64],
    parts: int,
    rng: np.random.Generator,
    micro: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Parts by METIS on the graph of the micro-clusters' centroids."""
    different, micro = np.unique(micro, return_inverse=True)
    found = len(different)
    if found <= parts:
        return metis(nearest(vectors, NEIGHBOURS), weights, parts, rng)
    middle = centroids(vectors, micro, found)
    graph = nearest(middle, NEIGHBOURS, exact=found <= EXACT, seed=int(rng.integers(1 << 31)))
    return metis(graph, loads_of(micro, weights, found), parts, rng)[micro]


def _nearest_parts(
    rows: NDArray[np.float32], middle: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and numbers [rows, count] of the centroids nearest to each row, in any order."""
    if len(middle) <= count:
        scores = rows @ middle.T
        return scores, np.broadcast_to(np.arange(len(middle)), scores.shape)
    index = faiss.IndexFlatIP(middle.shape[1])
    index.add(middle)
    return index.search(np.ascontiguousarray(rows), count)


def reassign(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    parts: int,
    cap: float,
) -> NDArray[np.int64]:
    """Move every row to the part that suits it best at prices that keep parts from overfilling.

    Maximising Σ cos(x_i, centroid of its part) with every part's weight at most `cap` has the Lagrangian
    Σ_i cos(x_i, c) − w_i·p_c + Σ_c p_c·cap: at given prices p ≥ 0 each row decides by itself, and a price
    rises while its part is too heavy. The result is near balance, not within it: `repair` does the rest.
    """
    scores, near = _nearest_parts(vectors, centroids(vectors, labels, parts), CANDIDATES)
    # In units of the mean row, so that a price is a cosine for a row of average weight.
    relative = (weights / weights.mean()).astype(np.float32)[:, None]
    prices = np.zeros(parts, np.float32)
    best, least = labels, np.inf
    for step in range(PRICE_STEPS):
        choice = _choices(scores, near, relative, prices)
        load = loads_of(choice, weights, parts) / cap
        excess = float(np.maximum(load - 1.0, 0.0).sum())
        if excess < least:
            best, least = choice, excess
        if excess == 0.0:
            break
        prices += (0.1 / (1.0 + 0.2 * step) * (load - 1.0)).astype(np.float32)
        np.maximum(prices, 0.0, out=prices)
    return best


def _choices(
    scores: NDArray[np.float32], near: NDArray[np.int64], relative: NDArray[np.float32], prices: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The part that each row likes best at these prices, of those near it."""
    choice = np.empty(len(near), np.int64)
    for start in range(0, len(near), BLOCK):
        block = slice(start, start + BLOCK)
        some = near[block]
        # Where every part is a candidate all rows have the same ones.
        asked = prices[some[0]] if some.strides[0] == 0 else prices[some]
        best = (scores[block] - relative[block] * asked).argmax(axis=1)
        choice[block] = some[np.arange(len(some)), best]
    return choice


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
    fit = np.einsum("ij,ij->i", vectors, centroids(vectors, labels, parts)[labels])
    for part in empty.tolist():
        donor = int(np.where(counts > 1, loads, -1.0).argmax())
        members = np.flatnonzero(labels == donor)
        row = members[fit[members].argmin()]
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
) -> NDArray[np.int64]:
    """Move rows out of parts heavier than `cap`, those first that lose least cosine for their weight.

    A row goes to the best part with room for it, first among its nearest parts, then among all. No part is
    emptied. What cannot be moved stays: a row heavier than any room, or a part of one row.
    """
    labels = labels.copy()
    loads = loads_of(labels, weights, parts)
    counts = np.bincount(labels, minlength=parts)
    for choices in (min(parts, CANDIDATES), parts):
        heavy = loads > cap
        left = int(heavy.sum())
        if not left:
            break
        rows = np.flatnonzero(heavy[labels])
        middle = centroids(vectors, labels, parts)
        scores, near = _nearest_parts(vectors[rows], middle, choices)
        own = np.einsum("ij,ij->i", vectors[rows], middle[labels[rows]])
        cost = (own[:, None] - scores) / weights[rows][:, None]
        for flat in np.argsort(cost, axis=None, kind="stable"):
            row, target = rows[flat // choices], near.flat[flat]
            source, weight = labels[row], weights[row]
            # A row that has moved sits in a part that was not heavy, and stays there.
            if not heavy[source] or loads[source] <= cap or counts[source] < 2:
                continue
            if source == target or loads[target] + weight > cap:
                continue
            labels[row] = target
            loads[source] -= weight
            loads[target] += weight
            counts[source] -= 1
            counts[target] += 1
            left -= int(loads[source] <= cap)
            if not left:
                break
    return labels
