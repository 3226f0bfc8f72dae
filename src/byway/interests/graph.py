"""03-graph: which items are alike, as a symmetric graph of nearest neighbours.

Owns the search for neighbours. It does not know what the vectors mean, nor traffic or clusters.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.base.artifact import Outcome, Work
from byway.base.progress import bar

NEIGHBOURS = 20
"""Nearest neighbours of an item before the graph is made symmetric: the number on which the tree was measured."""
FAINTEST = 1e-4
"""Weight of an edge whose cosine is not positive: an item keeps its neighbours even when all are far."""
EXACT_UP_TO = 30_000
"""Items beyond which the search is approximate: every item with every other takes a time that grows with their
square."""
CELL, PROBED = 2048, 8
"""Items of a k-means cell, and cells in which its neighbours are looked for where the search is approximate."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Undirected graph over n items in compressed rows; both directions of an edge are stored."""

    indptr: NDArray[np.int64]
    """[n + 1]: item i's edges are at [indptr[i], indptr[i + 1])."""
    indices: NDArray[np.int32]
    """[edges]: the other end, ascending within an item; never the item itself."""
    weights: NDArray[np.float32]
    """[edges]: cosine, in (0, 1]."""

    def __len__(self) -> int:
        return len(self.indptr) - 1


def build(work: Work, vectors: NDArray[np.float32]) -> Outcome:
    """Link every item to its nearest neighbours; write `indptr.npy`, `indices.npy`, `weights.npy`."""
    started = time.perf_counter()
    exact = len(vectors) <= EXACT_UP_TO
    graph = nearest(vectors, NEIGHBOURS, exact=exact, seed=int(work.rng.integers(1 << 31)))
    for name in ("indptr", "indices", "weights"):
        np.save(work.out / f"{name}.npy", getattr(graph, name))
    return Outcome(
        counts={"items": len(graph), "edges": len(graph.indices) // 2},
        metrics={
            "graph.exact": exact,
            "graph.mean_degree": round(len(graph.indices) / max(1, len(graph)), 2),
            "graph.mean_weight": round(float(graph.weights.mean()), 4) if len(graph.weights) else 0.0,
        },
        timings={"search": time.perf_counter() - started},
    )


def load(path: Path) -> Graph:
    """The graph of the artifact at `path`, memory-mapped."""
    indptr, indices, weights = (
        np.load(path / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices", "weights")
    )
    return Graph(indptr, indices, weights)


def nearest(vectors: NDArray[np.float32], k: int, *, exact: bool = True, seed: int = 0) -> Graph:
    """Union of every row's `k` nearest other rows by cosine; `vectors` is float32 [n, d] with unit rows.

    An edge stands where either end has the other among its neighbours. Ties go to the lower index.
    """
    n = len(vectors)
    k = min(k, n - 1)
    if k < 1:
        return Graph(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    rows = np.ascontiguousarray(vectors, np.float32)
    scores, neighbours = _search(rows, k + 1, exact=exact, seed=seed)
    is_self = neighbours == np.arange(n)[:, None]
    # Among many equal rows an item may miss itself: its last neighbour goes instead.
    is_self[~is_self.any(axis=1), -1] = True
    # Stable order: what was found and is not the item itself comes first.
    keep = np.argsort(is_self, axis=1, kind="stable")[:, :k]
    ends = np.take_along_axis(neighbours, keep, axis=1).ravel()
    weights = np.clip(np.take_along_axis(scores, keep, axis=1).ravel(), FAINTEST, 1.0)
    starts = np.repeat(np.arange(n), k)
    known = ends >= 0
    one_way = sparse.csr_array((weights[known], (starts[known], ends[known])), shape=(n, n))
    both = one_way.maximum(one_way.T).tocsr()
    both.sort_indices()
    return Graph(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))


def _search(
    rows: NDArray[np.float32], k: int, *, exact: bool, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and indexes [n, k] of the rows nearest to each row, itself included; -1 where none was found."""
    scores, indexes = among(rows, rows, k) if exact else _by_cells(rows, k, seed)
    order = np.lexsort((indexes, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(indexes, order, axis=1)


def among(
    queries: NDArray[np.float32], rows: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Products and indexes [queries, k] of the rows with the largest product, best first."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index.search(queries, k)


def _by_cells(rows: NDArray[np.float32], k: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Among the items of the cells that are nearest to an item's own: as many for all, however many there are.

    All items of a cell ask the same rows, so that their products are one product of matrices.
    """
    n = len(rows)
    cell, centers = kmeans(rows, max(1, n // CELL), 10, seed)
    _, around = among(centers, centers, min(PROBED, len(centers)))
    members = rows_of(cell, len(centers))
    scores, indexes = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    with bar("neighbours", len(centers)) as advance:
        for queries, cells in zip(members, around, strict=True):
            near = np.concatenate([members[cell] for cell in cells])
            scores[queries], at = among(rows[queries], rows[near], k)
            indexes[queries] = np.where(at >= 0, near[at], -1)
            advance(1)
    return scores, indexes


def rows_of(labels: NDArray[np.integer], parts: int) -> list[NDArray[np.int64]]:
    """Which rows each part holds, ascending."""
    ends = np.cumsum(np.bincount(labels, minlength=parts))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def kmeans(
    rows: NDArray[np.float32], clusters: int, rounds: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Spherical k-means over unit rows: the cluster of each, int64 [n], and the centroids [clusters, d]."""
    clustering = faiss.Kmeans(
        rows.shape[1], clusters, niter=rounds, spherical=True, seed=seed, min_points_per_centroid=1
    )
    clustering.train(rows)
    return clustering.index.search(rows, 1)[1][:, 0], clustering.index.reconstruct_n(0, clusters)
