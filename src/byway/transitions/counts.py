"""Counting what came next: the log's own answer, as baseline and as evidence.

Counts of the whole context are backed off to those of each interest alone, and those to plain popularity, as
Dirichlet priors whose weights are fitted on validation transitions. This module knows no words.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.base.ranking import ndcg_at
from byway.transitions.curate import Ints, Samples, Transitions, pick

WEIGHTS = (5.0, 20.0, 50.0, 200.0, 1000.0, 5000.0)
"""Weights, in transitions, that are tried for a prior: a small log wants stronger ones than a large one."""
SIMILARITY_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Exponents of similarity that are tried beside the counts."""
POPULARITY_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Exponents of popularity that are tried below them."""
FITTED = 50_000
"""Validation transitions on which both are fitted."""
PART = 2000
"""Of them together: their scores are 12 MB with 761 clusters."""


@dataclass(frozen=True, slots=True)
class Successors:
    """Successor counts of one log of transitions."""

    popularity_M: NDArray[np.float64]
    """Share of transitions into each cluster."""
    alone_KMM: NDArray[np.float64]
    """[k, c, l]: transitions into l with c as the k-th interest."""
    rows: dict[tuple[int, ...], int]
    """Row of `together` of each context."""
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
        contexts, row = np.unique(samples.context, axis=0, return_inverse=True)
        together = sparse.csr_array(
            (samples.count.astype(float), (row.reshape(-1), samples.label)), shape=(len(contexts), clusters)
        )
        rows = {tuple(context): i for i, context in enumerate(contexts.tolist())}
        return cls(popularity / popularity.sum(), alone, rows, together)

    def probability(self, context_NK: Ints) -> NDArray[np.float64]:
        """[N, M] probability of each cluster to come next, with back-off."""
        history = context_NK.shape[1]
        alone = sum(self.alone_KMM[k, context_NK[:, k]] for k in range(history))
        prior = alone + history * self.alone_weight * self.popularity_M
        prior /= prior.sum(axis=1, keepdims=True)
        index = self.row(context_NK)
        counts = np.zeros_like(prior)
        known = index >= 0
        counts[known] = self.together[index[known]].toarray()
        return (counts + self.together_weight * prior) / (counts.sum(axis=1, keepdims=True) + self.together_weight)

    def seen(self, context_NK: Ints) -> NDArray[np.bool_]:
        """Whether the log shows each whole context."""
        return self.row(context_NK) >= 0

    def row(self, context_NK: Ints) -> NDArray[np.int64]:
        """Row of `together` of each context; -1 where the log does not show it."""
        return np.array([self.rows.get(tuple(c), -1) for c in context_NK.tolist()], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for each cluster beside the language model: the log's counts, and items that are alike."""

    successors: Successors
    similarity_MM: NDArray[np.float64] | None = None
    """Cosine of the clusters' centroids."""
    similarity_weight: float = 0.0
    """Exponent of similarity beside the counts."""
    popularity_exponent: float = 0.0
    """Exponent of the labels' popularity that is divided out: what is popular anyway counts for less."""

    def __call__(self, context_NK: Ints) -> NDArray[np.float32]:
        """[N, M] log-probability, up to a constant a context: counts, and similarity_weight times the mean
        cosine."""
        counted, alike, usual = self._terms(context_NK)
        return (counted + self.similarity_weight * alike - self.popularity_exponent * usual).astype(np.float32)

    def fitted(self, validation: Samples, rng: np.random.Generator) -> "Evidence":
        """This evidence with the exponents under which the validation part is ranked best.

        By NDCG over all clusters, to which every transition adds something: recall at 10 jumps, and on a small log
        chance picks. Where nothing was kept for validation the counts stand alone.
        """
        some = pick(validation.several(), FITTED, rng)
        if not len(some):
            return replace(self, similarity_weight=0.0, popularity_exponent=0.0)
        similarity_weights = SIMILARITY_WEIGHTS if self.similarity_MM is not None else (0.0,)
        tried = list(product(similarity_weights, POPULARITY_EXPONENTS))
        ranks: dict[tuple[float, float], list[NDArray[np.int64]]] = {weights: [] for weights in tried}
        for part in np.array_split(np.arange(len(some)), -(-len(some) // PART)):
            context, label = some.context[part], some.label[part]
            counted, alike, usual = self._terms(context)
            for similarity_weight, popularity_exponent in tried:
                score = counted + similarity_weight * alike - popularity_exponent * usual
                ranks[similarity_weight, popularity_exponent].append(
                    ranks_of(score, Samples(context, label, some.count[part]))
                )
        M = len(self.successors.popularity_M)
        similarity_weight, popularity_exponent = max(
            tried, key=lambda weights: ndcg_at(np.concatenate(ranks[weights]), M, some.count)
        )
        return replace(self, similarity_weight=similarity_weight, popularity_exponent=popularity_exponent)

    def _terms(self, context_NK: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log-probability by counts [N, M], mean cosine with the context [N, M], log-popularity [M]."""
        counted = np.log(self.successors.probability(context_NK))
        alike = (
            np.zeros_like(counted) if self.similarity_MM is None else self.similarity_MM[context_NK].mean(axis=1)
        )
        return counted, alike, np.log(self.successors.popularity_M)


def ranks_of(score_NM: NDArray[np.floating], samples: Samples) -> NDArray[np.int64]:
    """Rank of each label among the clusters outside its context, from 0; ties count against the label."""
    at = np.arange(len(samples))
    score = score_NM.astype(np.float64)
    for k in range(samples.context.shape[1]):
        score[at, samples.context[:, k]] = -np.inf
    own = score[at, samples.label][:, None]
    return (score >= own).sum(axis=1) - 1
