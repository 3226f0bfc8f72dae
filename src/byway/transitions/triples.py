"""Looking up what comes next after one, two or three interests.

Every ordered pair has a row of its own; of the triples (K = 3) only those that users really have, as a sorted list
of keys. A triple that is not among them is answered by its two most recent interests. This module knows arrays and
nothing else: the service reads tables through it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 2_000_000
"""Clusters at the most: three of them have to fit into one key of 63 bits."""


@dataclass(frozen=True, slots=True)
class Triples:
    """Rankings of some triples of interests."""

    keys: NDArray[np.int64]
    """[T] ascending, see `key`."""
    clusters: NDArray[np.int32]
    """[T, m] the best novel clusters of each, best first; -1 where none is left; m at most the pairs' n."""

    def rows(self, context_N3: NDArray[np.integer], clusters: int) -> NDArray[np.int64]:
        """[N] where each triple stands; -1 where it is not there.

        >>> some = Triples(np.array([5, 12]), np.array([[7], [8]], np.int32))
        >>> some.rows(np.array([[0, 1, 2], [0, 2, 2], [2, 2, 2]]), 3).tolist()
        [0, -1, -1]
        """
        return rows_of(self.keys, key(context_N3, clusters))


def key(context_NK: NDArray[np.integer], clusters: int) -> NDArray[np.int64]:
    """[N] one number a row of clusters, such as a triple, in the order of the rows.

    >>> key(np.array([[1, 2, 3], [0, 0, 9]]), 10).tolist()
    [123, 9]
    """
    keys = np.zeros(len(context_NK), np.int64)
    for column in context_NK.T:
        keys = keys * clusters + column
    return keys


def outside(context_NK: NDArray[np.integer], clusters: int) -> NDArray[np.bool_]:
    """[N, M] the clusters that are not of each context.

    >>> outside(np.array([[0, 2], [1, 1]]), 3).tolist()
    [[False, True, False], [True, False, True]]
    """
    found = np.ones((len(context_NK), clusters), np.bool_)
    np.put_along_axis(found, context_NK.astype(np.int64), False, axis=1)
    return found


def rows_of(keys_T: NDArray[np.int64], wanted_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] where each key stands among ascending ones; -1 where it is not there."""
    if not len(keys_T):
        return np.full(len(wanted_N), -1)
    row = np.minimum(np.searchsorted(keys_T, wanted_N), len(keys_T) - 1)
    return np.where(keys_T[row] == wanted_N, row, -1)


def unkey(keys_T: NDArray[np.int64], clusters: int) -> NDArray[np.int32]:
    """[T, 3] the triples of these keys.

    >>> unkey(np.array([123, 9]), 10).tolist()
    [[1, 2, 3], [0, 0, 9]]
    """
    first, c = np.divmod(np.asarray(keys_T), clusters)
    return np.column_stack([*np.divmod(first, clusters), c]).astype(np.int32)


def look_up(
    pairs_MMn: NDArray[np.int32], triples: Triples | None, context_NK: NDArray[np.integer]
) -> NDArray[np.int32]:
    """[N, n] the ranking of each context of one, two or three interests, the most recent last.

    One interest is the pair of it with itself. A triple backs off to its last two interests.

    >>> pairs = np.arange(9, dtype=np.int32).reshape(3, 3, 1)
    >>> some = Triples(np.array([5]), np.array([[77]], np.int32))
    >>> look_up(pairs, some, np.array([[0, 1, 2], [1, 1, 2]])).ravel().tolist()
    [77, 5]
    """
    # Copied row by row: only the rows that are asked for are read from the disk.
    found = np.array(pairs_MMn[context_NK[:, -2 if context_NK.shape[1] > 1 else -1], context_NK[:, -1]])
    if triples is not None and context_NK.shape[1] == 3:
        row = triples.rows(context_NK, len(pairs_MMn))
        found[row >= 0] = -1
        found[row >= 0, : triples.clusters.shape[1]] = triples.clusters[row[row >= 0]]
    return found


def contexts_of(pairs_N2: NDArray[np.integer], history: int) -> NDArray[np.int32]:
    """[N, K] pairs (C1, C2) as contexts of K interests, the most recent last: (C1, ..., C1, C2).

    So the log has a user with two interests, where K is 3.

    >>> contexts_of(np.array([[4, 7]]), 3).tolist()
    [[4, 4, 7]]
    """
    first, last = pairs_N2[:, 0], pairs_N2[:, 1]
    return np.column_stack([*[first] * (history - 1), last]).astype(np.int32)


def row_of(first: int, clusters: int, history: int) -> NDArray[np.int32]:
    """[M, K] the contexts of one row of the table: C1 with every C2.

    >>> row_of(1, 2, 2).tolist()
    [[1, 0], [1, 1]]
    """
    every = np.arange(clusters)
    return contexts_of(np.column_stack([np.full(clusters, first), every]), history)
