"""Counting what came next: the log's own answer, as baseline and as evidence.

Counts of the whole context are backed off to those of each interest alone, and those to plain popularity, as
Dirichlet priors whose weights are fitted on validation transitions. This module knows no words.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.transitions.curate import Ints, Samples, Transitions
from byway.transitions.triples import key, outside, rows_of

WEIGHTS = (5.0, 20.0, 50.0, 200.0, 1000.0, 5000.0)
"""Weights, in transitions, that are tried for a prior: a small log wants stronger ones than a large one."""


@dataclass(frozen=True, slots=True)
class Successors:
    """Successor counts of one log of transitions."""

    popularity_M: NDArray[np.float64]
    """Share of transitions into each cluster."""
    alone_KMM: NDArray[np.float64]
    """[k, c, l]: transitions into l with c as the k-th interest."""
    keys: NDArray[np.int64]
    """[contexts] ascending keys of whole contexts, see `triples.key`."""
    together: sparse.csr_array
    """[contexts, M] transitions into each cluster from each whole context."""
    alone_weight: float = 50.0
    """Weight of popularity as the prior of what follows one interest."""
    together_weight: float = 50.0
    """Weight of the interests alone as the prior of what follows them together."""

    @classmethod
    def of(cls, transitions: Transitions) -> "Successors":
        """Count the training part and fit both weights by the likelihood of the validation part."""
        counted = cls.count(transitions.train, transitions.clusters)
        some = transitions.validation
        if not len(some):
            return counted
        history = range(some.context.shape[1])
        alone = sum(counted.alone_KMM[k, some.context[:, k], some.label] for k in history)
        alone_all = sum(counted.alone_KMM[k].sum(axis=1)[some.context[:, k]] for k in history)
        row = counted.row(some.context)
        together = np.where(row >= 0, counted.together[row, some.label], 0)
        together_all = np.where(row >= 0, counted.together.sum(axis=1)[row], 0)
        usual = counted.popularity_M[some.label]

        def likelihood(first: float, second: float) -> float:
            """As `probability` has it, of the labels alone."""
            prior = (alone + len(history) * first * usual) / (alone_all + len(history) * first)
            return float(some.count @ np.log((together + second * prior) / (together_all + second)))

        best = max(product(WEIGHTS, WEIGHTS), key=lambda weights: likelihood(*weights))
        return replace(counted, alone_weight=best[0], together_weight=best[1])

    @classmethod
    def count(cls, samples: Samples, clusters: int) -> "Successors":
        """Count the successors in `samples`."""
        popularity = np.bincount(samples.label, samples.count, minlength=clusters) + 1e-3
        history = samples.context.shape[1]
        alone = np.zeros((history, clusters, clusters))
        for k in range(history):
            np.add.at(alone[k], (samples.context[:, k], samples.label), samples.count)
        keys, row = np.unique(key(samples.context, clusters), return_inverse=True)
        together = sparse.csr_array(
            (samples.count.astype(float), (row, samples.label)), shape=(len(keys), clusters)
        )
        return cls(popularity / popularity.sum(), alone, keys, together)

    def counting(self, samples: Samples) -> "Successors":
        """Other samples, counted under the same weights of the priors."""
        other = Successors.count(samples, len(self.popularity_M))
        return replace(other, alone_weight=self.alone_weight, together_weight=self.together_weight)

    def probability(self, context_NK: Ints) -> NDArray[np.float64]:
        """[N, M] probability of each cluster to come next, with back-off."""
        context_NK = np.asarray(context_NK)
        history = context_NK.shape[1]
        alone = sum(self.alone_KMM[k, context_NK[:, k]] for k in range(history))
        prior = alone + history * self.alone_weight * self.popularity_M
        prior /= prior.sum(axis=1, keepdims=True)
        index = self.row(context_NK)
        counts = np.zeros_like(prior)
        known = index >= 0
        counts[known] = self.together[index[known]].toarray()
        return (counts + self.together_weight * prior) / (counts.sum(axis=1, keepdims=True) + self.together_weight)

    def probability_outside(self, context_NK: Ints) -> NDArray[np.float64]:
        """[N, M] the same, and -1 of the clusters of each context."""
        return np.where(outside(context_NK, len(self.popularity_M)), self.probability(context_NK), -1.0)

    def seen(self, context_NK: Ints) -> NDArray[np.bool_]:
        """Whether the log shows each whole context."""
        return self.row(context_NK) >= 0

    def row(self, context_NK: Ints) -> NDArray[np.int64]:
        """Row of `together` of each context; -1 where the log does not show it."""
        return rows_of(self.keys, key(context_NK, len(self.popularity_M)))


def ranks_of(score_NM: NDArray[np.floating], samples: Samples) -> NDArray[np.int64]:
    """Rank of each label among the clusters outside its context, from 0; ties count against the label."""
    at = np.arange(len(samples))
    score = score_NM.astype(np.float64)
    for k in range(samples.context.shape[1]):
        score[at, samples.context[:, k]] = -np.inf
    own = score[at, samples.label][:, None]
    return (score >= own).sum(axis=1) - 1
