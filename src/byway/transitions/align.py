"""Satisfaction with what people turned to, as a second score that picks among novel clusters.

After Wang et al., arXiv 2504.05522: one model proposes what is novel, another, learned from aggregated feedback,
picks the best of n; teaching both to one model by reinforcement broke its format there. What is new is in the
transitions; whether it was worth it is here: the satisfaction of the *first* event in a new cluster, good or bad,
aggregated pointwise by context and cluster and shrunk towards the cluster's own mean. This module knows no words.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.data.events import Events
from byway.data.heldout import progress
from byway.transitions.triples import key, rows_of

SHRINK = 20.0
"""First events that a mean needs to count as much as what it is shrunk towards."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """First events in clusters that were new to their users."""

    context: NDArray[np.int32]
    """[N, K] the most recent clusters of good events before, the most recent last."""
    label: NDArray[np.int32]
    """[N] the new cluster."""
    satisfaction: NDArray[np.float32]
    """[N] in [0, 1]."""


def collect(events: Events, cluster_of: NDArray[np.int32], history: int, until: float) -> Feedback:
    """The first event of every user in every cluster that was not the first of all, good or bad.

    `until` is the end of the training part: a time where the log has a clock, else a share of each user's own
    sequence. As in the transitions, a context is of good events only, and one with fewer than K clusters is filled
    up with its oldest.
    """
    contexts: list[list[int]] = []
    labels: list[int] = []
    satisfactions: list[float] = []
    met: set[int] = set()
    recent: list[int] = []
    last = -1
    cluster, good = cluster_of[events.item].tolist(), events.good().tolist()
    early = (events.time if events.clock else progress(events.user)) <= until
    for user, c, fine, satisfaction, inside in zip(
        events.user.tolist(), cluster, good, events.satisfaction.tolist(), early.tolist(), strict=True
    ):
        if user != last:
            met, recent, last = set(), [], user
        if c not in met and recent and inside:
            have = recent[-history:]
            contexts.append([have[0]] * (history - len(have)) + have)
            labels.append(c)
            satisfactions.append(satisfaction)
        met.add(c)
        if fine:
            if c in recent:
                recent.remove(c)
            recent.append(c)
    return Feedback(
        np.array(contexts, np.int32).reshape(-1, history),
        np.array(labels, np.int32),
        np.array(satisfactions, np.float32),
    )


@dataclass(frozen=True, slots=True)
class Satisfaction:
    """Expected satisfaction of a new cluster after a context."""

    label_M: NDArray[np.float64]
    """[M] of each cluster, whatever came before."""
    sums_KMM: NDArray[np.float64]
    """[k, c, l] summed satisfaction of first events in l with c as the k-th interest."""
    counts_KMM: NDArray[np.float64]
    keys: NDArray[np.int64]
    """Ascending keys of whole contexts."""
    sums: sparse.csr_array
    """[contexts, M]"""
    counts: sparse.csr_array

    @classmethod
    def of(cls, feedback: Feedback, clusters: int) -> "Satisfaction":
        """Aggregate."""
        K, label, value = feedback.context.shape[1], feedback.label, feedback.satisfaction.astype(np.float64)
        overall = float(value.mean()) if len(value) else 0.0
        n = np.bincount(label, minlength=clusters)
        own = (np.bincount(label, value, clusters) + SHRINK * overall) / (n + SHRINK)
        sums, counts = np.zeros((2, K, clusters, clusters))
        for k in range(K):
            np.add.at(sums[k], (feedback.context[:, k], label), value)
            np.add.at(counts[k], (feedback.context[:, k], label), 1)
        keys, row = np.unique(key(feedback.context, clusters), return_inverse=True)
        shape = (max(1, len(keys)), clusters)
        whole = [sparse.csr_array((v, (row, label)), shape=shape) for v in (value, np.ones(len(value)))]
        return cls(own, sums, counts, keys, *whole)

    def expected(self, context_NK: NDArray[np.integer], clusters_Nn: NDArray[np.integer]) -> NDArray[np.float32]:
        """[N, n] expected satisfaction of the listed clusters; -1 entries have none (NaN).

        A mean of the whole context is shrunk towards that of its interests alone, and that towards the cluster's.
        """
        listed = np.maximum(clusters_Nn, 0)
        prior = self.label_M[listed]
        total, number = SHRINK * prior, np.full(prior.shape, SHRINK)
        for k in range(context_NK.shape[1]):
            total = total + self.sums_KMM[k, context_NK[:, k, None], listed]
            number = number + self.counts_KMM[k, context_NK[:, k, None], listed]
        found = total / number
        row = rows_of(self.keys, key(context_NK, len(self.label_M)))
        known = np.flatnonzero(row >= 0)
        if len(known):
            at = np.repeat(row[known], listed.shape[1]), listed[known].ravel()
            total, number = (np.asarray(of[at]).reshape(len(known), -1) for of in (self.sums, self.counts))
            found[known] = (total + SHRINK * found[known]) / (number + SHRINK)
        return np.where(clusters_Nn < 0, np.nan, found).astype(np.float32)


def pick(expected_Nn: NDArray[np.float32], best_of: int) -> NDArray[np.int64]:
    """[N, n] the order in which to serve rankings: the first `best_of` by expected satisfaction, then the rest.

    Equal ones and those without an expectation keep their places.

    >>> pick(np.array([[0.1, 0.9, 0.5, 1.0]], np.float32), 3).tolist()
    [[1, 2, 0, 3]]
    """
    N, n = expected_Nn.shape
    order = np.tile(np.arange(n), (N, 1))
    first = np.nan_to_num(expected_Nn[:, :best_of], nan=-1.0)
    order[:, :best_of] = np.argsort(-first, axis=1, kind="stable")
    return order
