"""How good names are: whether their words belong together, and whether they point to their own items.

Pure functions of which items hold which terms. They do not know how names are chosen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def npmi(held: sparse.csc_array) -> NDArray[np.float64]:
    """[terms, terms] normalised pointwise mutual information of each two terms, in [-1, 1] (Bouma 2009).

    NPMI = log(p(a, b) / p(a) p(b)) / -log p(a, b), p as shares of the items; `held` is int [n, terms]. -1 for two
    that no item holds both, 1 for two that all items do.

    >>> npmi(sparse.csc_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]))).tolist()
    [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    shape: Any = held.shape
    both = (held.T @ held).toarray() / shape[0]
    alone = np.diag(both)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(both / np.outer(alone, alone)) / -np.log(both)
    return np.where(both == 0, -1.0, np.where(both == 1, 1.0, found))


def coherence(held: sparse.csr_array, names: list[list[int]]) -> float:
    """Mean over the names of the mean NPMI of their pairs of terms, in [-1, 1]; 0 where no name has two.

    >>> held = sparse.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]))
    >>> coherence(held, [[0, 1]]), coherence(held, [[0, 2]]), round(coherence(held, [[0, 1, 2], [2]]), 3)
    (1.0, -1.0, -0.333)
    """
    columns = sparse.csc_array(held)
    means: list[float] = []
    for terms in names:
        if len(terms) > 1:
            pairs = npmi(columns[:, terms])[np.triu_indices(len(terms), 1)]
            means.append(float(pairs.mean()))
    return float(np.mean(means)) if means else 0.0


def precision(held: sparse.csr_array, names: list[list[int]], cluster_of: NDArray[np.integer]) -> float:
    """Mean over the names of the share, among the items that hold most of its terms, that are in its own cluster.

    The nearest items of a name are as many as its cluster has, those that hold more of its terms first; where more
    hold equally many than there is room for, each counts in part. `held` is int [n, terms], `names[c]` the terms of
    cluster c, `cluster_of` int [n].

    >>> held = sparse.csr_array(np.array([[1, 1], [1, 0], [1, 0], [0, 0]]))
    >>> precision(held, [[0, 1], []], np.array([0, 0, 1, 1]))
    0.375
    """
    columns, n = sparse.csc_array(held), len(cluster_of)
    sizes = np.bincount(cluster_of, minlength=len(names))
    found: list[float] = []
    for cluster, terms in enumerate(names):
        hits = np.asarray(columns[:, terms].sum(axis=1)).ravel() if terms else np.zeros(n)
        room, own = float(sizes[cluster]), 0.0
        for level in np.unique(hits[hits > 0])[::-1]:
            there = hits == level
            taken = min(room, float(there.sum()))
            own += taken * float((cluster_of[there] == cluster).mean())
            room -= taken
            if room <= 0:
                break
        found.append(own / max(1, int(sizes[cluster])))
    return float(np.mean(found)) if found else 0.0
