"""Which items of a large catalog are worth scoring for a person: leaves of the tree are searched before items.

A leaf is judged by what its best item can be expected to score, from the means and variances of its items. Up to
EXACT items all are scored. This module needs numpy alone.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byway.planner.planner import ENOUGH, SIGNALS, Asker, Floats, Ints, LeafMeans, Planner, total

EXACT = 50_000
"""Items up to which all are scored: about a millisecond on one core."""
UNITS = 500
"""Items of which EASE over items says most that are scored beside them."""
LEAVES = 64
"""Leaves whose items are scored at most where there are more items."""
FIRST = 8
"""Leaves whose items are scored in any case; of the others those that may be expected to hold one of the best."""
SPREAD = 1.3
"""How many expected largest deviations a leaf's best item is taken to lie above the leaf's mean. On KuaiRec the 64
best of 1,503 leaves hold 0.96 of the ten best items of all; by their means alone 0.85, with 1.0 here 0.94."""


def considered(
    planner: Planner, asker: Asker, open_M: NDArray[np.bool_], showable: Callable[[Ints], NDArray[np.bool_]]
) -> tuple[Ints, dict[str, Floats]]:
    """Items that are worth scoring, in order, and what each signal adds to their scores (`Planner.parts`).

    All up to EXACT. Beyond that the items of leaves in open clusters, a leaf being judged by what its best item
    can be expected to score without EASE over items (`leaf_scores`): FIRST of them, and then up to LEAVES
    as long as that is no less than the ENOUGH best so far which are `showable`; and, open or not, the
    items of which EASE says most.
    """
    n = len(planner.cluster)
    if n <= EXACT:
        return np.arange(n), planner.parts(asker)
    means = means_of(planner)
    expected = np.where(open_M[means.cluster], leaf_scores(planner, asker), np.float32(-np.inf))
    best = np.argpartition(-expected, min(LEAVES, len(expected)) - 1)[:LEAVES]
    best = best[np.argsort(-expected[best], kind="stable")]
    best = best[expected[best] > -np.inf]
    rows = np.sort(np.concatenate([means.items(best[:FIRST]), _said_most_of(planner, asker)]))
    rows = rows[np.diff(rows, prepend=-1) > 0]
    parts = planner.parts(asker, rows)
    good = total(parts, len(rows))[showable(rows)]
    least = np.partition(good, len(good) - ENOUGH)[len(good) - ENOUGH] if len(good) >= ENOUGH else -np.inf
    more = means.items(best[FIRST:][expected[best[FIRST:]] >= least])
    more = more[rows[np.minimum(np.searchsorted(rows, more), len(rows) - 1)] != more]
    if not len(more):
        return rows, parts
    further = planner.parts(asker, more)
    rows = np.concatenate([rows, more])
    order = np.argsort(rows, kind="stable")
    return rows[order], {name: np.concatenate([part, further[name]])[order] for name, part in parts.items()}


def _said_most_of(planner: Planner, asker: Asker) -> Ints:
    """Up to UNITS items of which EASE over items says most, where it has a weight."""
    if planner.items is None or not planner.fitted.weights.get("ease"):
        return np.empty(0, np.int64)
    means = means_of(planner)
    said = planner.of_units(asker)[means.unit]
    return means.spoken[np.argpartition(-said, min(UNITS, len(said)) - 1)[:UNITS]]


def means_of(planner: Planner) -> LeafMeans:
    """Made when they are first needed, and kept."""
    if not planner.cached_means:
        planner.cached_means.append(leaf_means(planner))
    return planner.cached_means[0]


def leaf_means(planner: Planner, mean: Floats | None = None, variance: Floats | None = None) -> LeafMeans:
    """Items must stand leaf by leaf, as in a bundle. `mean` and `variance` where they were kept: they take
    seconds for a million items."""
    start = np.flatnonzero(np.diff(planner.leaf, prepend=-1))
    stop = np.append(start[1:], len(planner.leaf))
    if mean is None or variance is None:
        mean, variance = _moments(planner, start, stop - start)
    largest = 2 * np.log((stop - start).astype(np.float32))
    spoken = np.flatnonzero(np.asarray(planner.unit) >= 0)
    leaf, cluster, unit = planner.leaf[start], planner.cluster[start], np.asarray(planner.unit)[spoken]
    return LeafMeans(leaf, start, stop, cluster, largest, mean, variance, spoken, unit)


def leaf_scores(planner: Planner, asker: Asker) -> Floats:
    """[leaves] what the best item of each leaf can be expected to score, without EASE over items.

    The mean of a leaf's scores is exact, since all signals are linear in what an item is. How far these lie
    apart is taken from the variance as if it were the same on all axes.
    """
    means = means_of(planner)
    weight = {name: np.float32(planner.fitted.weights.get(name, 0)) for name in SIGNALS}
    blocks = [
        weight["item_policy"] * asker.state,
        np.array([weight["popularity"]]),
        np.array([weight["quality"]]),
    ]
    if not planner.content_of_leaves:
        blocks.insert(1, weight["similarity"] * planner.taste(asker))
    found = means.mean @ np.concatenate(blocks)
    if planner.content_of_leaves and weight["similarity"]:
        found += weight["similarity"] * planner.likeness(asker)[means.leaf]
    if weight["ease_leaves"]:
        found += weight["ease_leaves"] * planner.of_leaves(asker)[means.leaf]
    for name, share in asker.shares.items():
        if weight[name]:
            found += weight[name] * share[means.cluster]
    square = np.array([block @ block for block in blocks], np.float32)
    return found + np.float32(SPREAD) * np.sqrt(means.variance @ square * means.largest)


def _moments(planner: Planner, start: Ints, size: Ints) -> tuple[Floats, Floats]:
    """`mean` and `variance` of LeafMeans."""
    means: list[Floats] = []
    variances: list[Floats] = []
    content = [] if planner.content_of_leaves else [planner.content]
    for values in (planner.vectors, *content, planner.popularity, planner.quality):
        values = np.asarray(values).reshape(len(planner.leaf), -1)
        mean = (np.add.reduceat(values, start, axis=0) / size[:, None]).astype(np.float32)
        square = np.add.reduceat(np.einsum("ij,ij->i", values, values, dtype=np.float64), start) / size
        between = np.einsum("ij,ij->i", mean, mean, dtype=np.float64)
        means.append(mean)
        variances.append((np.maximum(square - between, 0) / values.shape[1]).astype(np.float32))
    return np.concatenate(means, 1), np.stack(variances, 1)
