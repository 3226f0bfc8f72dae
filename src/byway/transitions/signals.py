"""Signals: what speaks for a cluster in a context, each by its own name, and their weighted sum.

A ranking is a log-linear combination of signals. Their weights are fitted on what people turned to later, in one
place (`Scorer.fitted_by_ndcg`), so that what a signal is worth is a figure. To add one: a class with the members of
`Signal`, and a row in `Scorer.from_counts`. This module knows no words and no language model; one that is asked
elsewhere is a signal of rankings, and one that runs here is weighed beside these by `language`, since its scores
cost too much to be had for every cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from byway.base.errors import UserError
from byway.base.ranking import ndcg_at
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.curate import Ints, Samples, Transitions, pick

FITTED = 50_000
"""Validation transitions on which weights are fitted."""
PART = 2000
"""Of them together: their scores are 12 MB with 761 clusters."""


class Signal(Protocol):
    """What speaks for a cluster in a context."""

    @property
    def name(self) -> str:
        """The key of its weight."""
        ...

    @property
    def tried(self) -> tuple[float, ...]:
        """Weights that are tried; of equally good ones the first is taken."""
        ...

    @property
    def default(self) -> float:
        """Weight where nothing was kept to fit on: 0 for all but one signal, which sets the scale."""
        ...

    def scores(self, context_NK: Ints) -> NDArray[np.float64]:
        """Score of every cluster, [N, M]."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """Log-probability of what came next in the log. It sets the scale of the others."""

    successors: Successors
    name: str = "counts"
    tried: tuple[float, ...] = (1.0,)
    default: float = 1.0

    def scores(self, context_NK: Ints) -> NDArray[np.float64]:
        return np.log(self.successors.probability(context_NK))


@dataclass(frozen=True, slots=True)
class Similarity:
    """Mean cosine of a cluster's centroid to those of the context."""

    similarity_MM: NDArray[np.float64]
    name: str = "similarity"
    tried: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
    default: float = 0.0

    def scores(self, context_NK: Ints) -> NDArray[np.float64]:
        return self.similarity_MM[context_NK].mean(axis=1)


@dataclass(frozen=True, slots=True)
class Popularity:
    """Log-share of all transitions that led to a cluster. Its weights are negative: what is popular anyway counts
    for less."""

    popularity_M: NDArray[np.float64]
    name: str = "popularity"
    tried: tuple[float, ...] = (0.0, -0.25, -0.5, -0.75, -1.0)
    default: float = 0.0

    def scores(self, context_NK: Ints) -> NDArray[np.float64]:
        return np.broadcast_to(np.log(self.popularity_M), (len(context_NK), len(self.popularity_M)))


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a language model ranked for a pair, in nats (`by_place`): the last two interests of a context.

    A model behind an address says which of some candidates come first, and not how likely they are.
    """

    ranking_MMn: NDArray[np.int32]
    """Best first; -1 where it ends, and where nothing was asked."""
    candidates_MMm: NDArray[np.int32]
    """Among whom it could choose; -1 for none."""
    name: str = "language_model"
    tried: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
    default: float = 0.0

    def scores(self, context_NK: Ints) -> NDArray[np.float64]:
        pair = context_NK[:, -2], context_NK[:, -1]
        return by_place(
            np.asarray(self.ranking_MMn[pair]), np.asarray(self.candidates_MMm[pair]), len(self.ranking_MMn)
        )


def by_place(ranking_Nn: Ints, candidates_Nm: Ints, M: int) -> NDArray[np.float64]:
    """[N, M] log of (n + 1) over the place in a ranking of n, 0 for candidates that it does not name, less the mean
    over all candidates; 0 for who was no candidate, of whom it says nothing. -1 is nobody.

    >>> by_place(np.array([[2, -1]], np.int32), np.array([[0, 2]], np.int32), 4).round(2).tolist()
    [[-0.55, 0.0, 0.55, 0.0]]
    """
    n, rows = ranking_Nn.shape[1], np.arange(len(ranking_Nn))[:, None]
    score, legal = np.zeros((len(ranking_Nn), M + 1)), np.zeros((len(ranking_Nn), M + 1), np.bool_)
    score[rows, ranking_Nn] = np.log((n + 1) / np.arange(1, n + 1))
    legal[rows, candidates_Nm] = True
    score[:, -1], legal[:, -1] = 0, False  # the column of -1
    mean = score.sum(axis=1, keepdims=True) / np.maximum(legal.sum(axis=1, keepdims=True), 1)
    return np.where(legal, score - mean, 0)[:, :-1]


def likeliest(
    scores_SNM: Sequence[NDArray[np.float64]],
    legal_NM: NDArray[np.bool_],
    samples: Samples,
    usual_S: NDArray[np.float64],
    firmness_S: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[S] weights of signals under which what was chosen of the legal clusters is likeliest: a conditional logit.

    Of a mean turn's log-probability less half of `firmness` times the square of the distance from `usual`, which
    has one greatest value.
    """
    at, share = np.arange(len(samples)), samples.count / samples.count.sum()

    def cost(weights_S: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_p = among(sum(weight * score for weight, score in zip(weights_S, scores_SNM, strict=True)), legal_NM)
        p, away = np.exp(log_p), weights_S - usual_S
        slope = [share @ ((p * score).sum(axis=1) - score[at, samples.label]) for score in scores_SNM]
        value = float(firmness_S @ away**2) / 2 - float(share @ log_p[at, samples.label])
        return value, np.array(slope) + firmness_S * away

    return minimize(cost, usual_S, jac=True, method="L-BFGS-B").x


def among(score_NM: NDArray[np.float64] | float, legal_NM: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N, M] log-probabilities over the legal clusters, of which they sum to 1; -inf for the others."""
    score = np.where(legal_NM, score_NM, -np.inf)
    return score - logsumexp(score, axis=1, keepdims=True)


class TableWeights(msgspec.Struct, frozen=True):
    """`fitted.json` of a table: how its rankings were made, for whoever ranks again."""

    weights: dict[str, float]
    """Of every signal by name, the language model's among them."""
    near: float = 0.0
    """Nats: nearer ties of the model's answers are asked again in float32."""
    precision: str = "float32"
    """Arithmetic of the model, whoever computes rows."""

    @property
    def model(self) -> float:
        """Weight of the language model's log-probability."""
        return self.weights.get("language_model", 0.0)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Signals and their weights; one without a weight has its default."""

    signals: tuple[Signal, ...]
    weights: Mapping[str, float]

    @classmethod
    def from_log(
        cls, transitions: Transitions, similarity_MM: NDArray[np.float64] | None = None, model: Signal | None = None
    ) -> "Scorer":
        """The signals of a log of transitions, not weighed yet: counts, popularity, and where they are given
        similarity and what a language model said."""
        return cls.from_counts(Successors.of(transitions), similarity_MM, model)

    @classmethod
    def from_counts(
        cls, successors: Successors, similarity_MM: NDArray[np.float64] | None = None, model: Signal | None = None
    ) -> "Scorer":
        """The same from successors that are counted already."""
        signals: list[Signal] = [Counts(successors)]
        if similarity_MM is not None:
            signals.append(Similarity(similarity_MM))
        signals.append(Popularity(successors.popularity_M))
        if model is not None:
            signals.append(model)
        return cls(tuple(signals), {})

    def __call__(self, context_NK: Ints) -> NDArray[np.float32]:
        """[N, M] log-probability, up to a constant a context."""
        weights = {name: weight for name, weight in self.all_weights().items() if weight}
        return self._sum(self._scores(context_NK, weights), weights).astype(np.float32)

    def parts(self, context_NK: Ints) -> dict[str, NDArray[np.float64]]:
        """[N, M] what each signal adds to the sum."""
        weights = self.all_weights()
        return {name: weights[name] * score for name, score in self._scores(context_NK).items()}

    def all_weights(self) -> dict[str, float]:
        """The weight of every signal, in their order."""
        return {signal.name: self.weights.get(signal.name, signal.default) for signal in self.signals}

    def weighed(self, **weights: float) -> "Scorer":
        """The same signals with some weights changed.

        Who ranks again leaves out the model that answers by itself; UserError for the weight of another signal that
        is not here, without which the ranking would be another one in silence.
        """
        own = {signal.name for signal in self.signals}
        lacking = [name for name, weight in weights.items() if weight and name not in own | {"language_model"}]
        if lacking:
            raise UserError(
                f"The table was weighed with {', '.join(lacking)}, which nobody computes here; run again."
            )
        return replace(self, weights={**self.weights, **{k: v for k, v in weights.items() if k in own}})

    def fitted_by_ndcg(self, validation: Samples, rng: np.random.Generator) -> "Scorer":
        """The same signals with the weights under which the validation part is ranked best.

        By NDCG over all clusters, to which every transition adds something: recall at 10 jumps, and on a small log
        chance picks. Every combination of the weights that are tried is judged, 315 with all four signals; of equal
        ones the first is taken. Where nothing was kept for validation each signal has its default.
        """
        some = pick(validation.several(), FITTED, rng)
        if not len(some):
            return replace(self, weights={})
        tried = list(product(*(signal.tried for signal in self.signals)))
        ranks: list[list[NDArray[np.int64]]] = [[] for _ in tried]
        depth = 0
        for part in np.array_split(np.arange(len(some)), -(-len(some) // PART)):
            own = Samples(some.context[part], some.label[part], some.count[part])
            scores = self._scores(own.context)
            for found, weights in zip(ranks, tried, strict=True):
                score = self._sum(scores, self._named(weights))
                found.append(ranks_of(score, own))
                depth = score.shape[1]
        gains = [ndcg_at(np.concatenate(found), depth, some.count) for found in ranks]
        return replace(self, weights=self._named(tried[int(np.argmax(gains))]))

    def _named(self, weights: Sequence[float]) -> dict[str, float]:
        return {signal.name: weight for signal, weight in zip(self.signals, weights, strict=True)}

    def _scores(self, context_NK: Ints, of: Mapping[str, float] | None = None) -> dict[str, NDArray[np.float64]]:
        wanted = [signal for signal in self.signals if of is None or signal.name in of]
        return {signal.name: signal.scores(context_NK) for signal in wanted}

    @staticmethod
    def _sum(scores: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
        total: NDArray[np.float64] | float = 0.0
        for name, score in scores.items():
            total = total + weights[name] * score
        assert isinstance(total, np.ndarray)
        return total
