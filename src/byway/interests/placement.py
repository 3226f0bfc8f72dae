"""New items in a tree that stands: the nearest cluster with room, level by level.

Owns the place of items that came after the tree was cut. It moves nothing that has a place and changes no number of
a cluster, so names and tables stay valid. It sees vectors and weights, and knows neither ids nor logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.interests.partition import centroids, loads_of
from byway.interests.tree import LEVELS, Tree

CHUNK = 1 << 14
"""New items whose cosines are held at once."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where new items went."""

    leaf: NDArray[np.int64]
    """[m] cluster of level 4."""
    displaced: int
    """Items whose nearest level-2 cluster had no room."""
    crowded: int
    """Items for which no cluster had room: they are with the nearest."""


def place(
    tree: Tree,
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    weights: Sequence[NDArray[np.float64]],
    room: float,
) -> Placed:
    """Find a leaf for each of the `new` unit rows [m, d] beside the `old` [n, d], which `tree` holds.

    `weights` are four arrays [n + m], one a level, broadest first. An item goes to the nearest level-2 cluster that
    stays within `room` times the mean weight, then to the nearest of that cluster's children with room, twice; the
    closest items choose first. Where nothing has room, the nearest takes it.
    """
    n, m = len(old), len(new)
    placed = np.zeros(m, np.int64)
    displaced = crowded = 0
    for level in range(2, LEVELS + 1):
        size = tree.size(level)
        centers = centroids(old, tree.assign(level), size)
        load = loads_of(tree.assign(level), weights[level - 1][:n], size)
        cap = room * weights[level - 1].sum() / size
        # Children of a cluster are consecutive; all of level 2 are children of one root.
        parent = tree.parent(level) if level > 2 else np.zeros(size, np.int32)
        first = np.searchsorted(parent, np.arange(parent[-1] + 2))
        weight = weights[level - 1][n:]
        for start in range(0, m, CHUNK):
            rows = new[start : start + CHUNK]
            families = placed[start : start + CHUNK].copy()
            for family in np.unique(families):
                mine = np.flatnonzero(families == family)
                lower, upper = first[family], first[family + 1]
                scores = rows[mine] @ centers[lower:upper].T
                for i in np.argsort(-scores.max(axis=1), kind="stable").tolist():
                    best = np.argsort(-scores[i], kind="stable")
                    at = start + mine[i]
                    free = load[lower + best] + weight[at] <= cap
                    choice = int(best[free.argmax()]) if free.any() else int(best[0])
                    load[lower + choice] += weight[at]
                    placed[at] = lower + choice
                    if level == 2:
                        displaced += int(choice != best[0])
                        crowded += int(not free.any())
    return Placed(placed, displaced, crowded)


def grown(tree: Tree, leaf: NDArray[np.int64]) -> Tree:
    """The tree with m more items, numbered from n on, at the ends of the leaves [m] named."""
    finest = tree.starts[-1]
    labels = np.concatenate([tree.assign(LEVELS), leaf])
    order = np.argsort(labels, kind="stable").astype(np.int32)
    starts = np.append(0, np.cumsum(np.bincount(labels, minlength=len(finest) - 1)))
    # Every boundary of a broader level is one of the finest.
    return Tree(order, tuple(starts[np.searchsorted(finest, start)].astype(np.int64) for start in tree.starts))


def most_similar(
    tree: Tree, old: NDArray[np.float32], new: NDArray[np.float32], cluster: NDArray[np.integer]
) -> NDArray[np.int32]:
    """For each new row, the old item of its level-2 cluster [m] whose vector is nearest: int32 [m]."""
    most = np.zeros(len(new), np.int32)
    for c in np.unique(cluster):
        items, rows = np.sort(tree.items(2, int(c))), np.flatnonzero(cluster == c)
        most[rows] = items[(new[rows] @ old[items].T).argmax(axis=1)]
    return most
