"""How much the names say: figures of stage 05.

Every figure is a mean over the clusters of one level, from which items hold which terms alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.interests.terms import Terms
from byway.interests.tree import Tree


def coverage(terms: Terms, tree: Tree, level: int, keywords: list[list[str]]) -> float:
    """Mean share of a cluster's items that hold one of its keywords."""
    matrix = sparse.csc_array(terms.matrix)
    cluster_of = tree.assign(level)
    shares: list[float] = []
    for cluster, columns in enumerate(_columns(terms, keywords)):
        held = np.unique(_holders(matrix, columns))
        shares.append(int((cluster_of[held] == cluster).sum()) / len(tree.items(level, cluster)))
    return float(np.mean(shares))


def coherence(terms: Terms, keywords: list[list[str]]) -> float:
    """Mean over names of the mean NPMI of their pairs of keywords, the items as documents; 0 where no name has two.

    It is 1 for words that only ever stand in the same items, 0 for independent ones, -1 for such as never meet.
    """
    matrix = sparse.csc_array(terms.matrix)
    figures: list[float] = []
    for columns in _columns(terms, keywords):
        if len(columns) > 1:
            held = sparse.csr_array(matrix[:, columns])
            pairs = np.triu_indices(len(columns), 1)
            together = (held.T @ held).toarray()
            figures.append(float(npmi(together, np.diag(together), len(terms))[pairs].mean()))
    return float(np.mean(figures)) if figures else 0.0


def npmi(together_TT: NDArray[np.integer], holders_T: NDArray[np.integer], n: int) -> NDArray[np.float64]:
    """[T, T] normalised pointwise mutual information of terms (Bouma 2009).

    It is log(p(x, y) / (p(x) p(y))) / -log p(x, y), where of n items `together_TT` hold both terms and `holders_T`
    one; -1 where none holds both, 0 where all do.

    >>> npmi(np.array([[2, 2, 0], [2, 2, 0], [0, 0, 1]]), np.array([2, 2, 1]), 4).round(2).tolist()
    [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    >>> npmi(np.array([[2, 1], [1, 2]]), np.array([2, 2]), 4).round(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    known = (together_TT > 0) & (together_TT < n)
    both = np.where(known, together_TT, 0.5 * n) / n
    share = np.maximum(holders_T, 1) / n
    score = np.log(both / np.outer(share, share)) / -np.log(both)
    return np.where(known, score, np.where(together_TT > 0, 0.0, -1.0))


def precision(terms: Terms, tree: Tree, level: int, keywords: list[list[str]]) -> tuple[float, float]:
    """Mean R-precision of the names as queries, and what chance would give: how surely a name leads to its items.

    Items are ranked by the sum of the inverse document frequencies, log(n / holders), of the keywords that they
    hold. The figure is the share of a cluster's own among the first as many as it has; equals are drawn fairly.
    """
    matrix = sparse.csc_array(terms.matrix)
    n = len(terms)
    weight = np.log(n / np.maximum(np.diff(matrix.indptr), 1))
    cluster_of = tree.assign(level)
    shares: list[float] = []
    chance: list[float] = []
    for cluster, columns in enumerate(_columns(terms, keywords)):
        size = len(tree.items(level, cluster))
        rows, at = np.unique(_holders(matrix, columns), return_inverse=True)
        times = np.diff(matrix.indptr)[columns]
        score = np.bincount(at, np.repeat(weight[columns], times), len(rows)).astype(np.float64)
        shares.append(first_share(score, cluster_of[rows] == cluster, size, n))
        chance.append(size / n)
    return float(np.mean(shares)), float(np.mean(chance))


def first_share(score: NDArray[np.float64], own: NDArray[np.bool_], size: int, n: int) -> float:
    """Expected share of a cluster's `size` items among the first `size` of n; those without a score come last.

    >>> first_share(np.array([2.0, 1.0, 1.0]), np.array([True, True, False]), 2, 10)
    0.75
    >>> first_share(np.array([]), np.array([], bool), 2, 10)
    0.2
    """
    levels, at = np.unique(-score.round(9), return_inverse=True)
    held = np.append(np.bincount(at, minlength=len(levels)), n - len(score))
    mine = np.append(np.bincount(at, own, len(levels)), size - own.sum())
    before = np.cumsum(held) - held
    taken = np.clip(size - before, 0, held)
    return float((mine * taken / np.maximum(held, 1)).sum() / size)


def _columns(terms: Terms, keywords: list[list[str]]) -> list[NDArray[np.int64]]:
    """The terms of each name; a number that tells it from another is none."""
    number = {form: i for i, form in enumerate(terms.forms)}
    return [np.array([number[word] for word in words if word in number], np.int64) for words in keywords]


def _holders(matrix: sparse.csc_array, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the given columns, one column after the other."""
    parts = [matrix.indices[matrix.indptr[c] : matrix.indptr[c + 1]] for c in columns.tolist()]
    return np.concatenate([*parts, np.zeros(0, matrix.indices.dtype)]).astype(np.int64)
