"""What else speaks for a cluster, as a fixed offset: what a lesson on transitions as they happened leaves out.

Beside an offset a model has to learn only what the other signals do not say. A choice is made down the trie, so
that the offset of a branch is the log of all that lies below it: with equal scores of the model the choice is the
offset's own. This module knows signals and sets of clusters; it does not know models or tokens.
"""

import numpy as np
from numpy.typing import NDArray

from byway.transitions.curate import Ints, Samples, sampled
from byway.transitions.signals import Scorer, among, likeliest
from byway.transitions.triples import outside

FITTED = 5000
"""Validation transitions on which weights are fitted: three weights need no more."""


def fitted_by_likelihood(scorer: Scorer, validation: Samples, rng: np.random.Generator) -> Scorer:
    """The scorer with the weights under which the validation part is most likely.

    `Scorer.fitted_by_ndcg` ranks best, and a ranking has no scale: beside such weights a model would gain nats by
    setting the scale alone. Here all weights are free, that of the counts too, drawn to the default of each signal
    by a normal prior as wide as the largest that it tries, since a small log has too few transitions to tell. Where
    nothing was kept for validation each signal has its default.
    """
    found = usual = np.array([signal.default for signal in scorer.signals])
    if len(validation.several()):
        some = sampled(validation.several(), FITTED, rng)
        wide = np.array([max(map(abs, signal.tried)) for signal in scorer.signals])
        scores = np.broadcast_arrays(*(np.atleast_2d(signal.scores(some.context)) for signal in scorer.signals))
        legal = outside(some.context, scores[0].shape[1])
        found = likeliest(scores, legal, some, usual, 1 / (wide**2 * some.count.sum()))
    names = (signal.name for signal in scorer.signals)
    return scorer.weighed(**dict(zip(names, found.tolist(), strict=True)))


def normalised(score_NM: NDArray[np.floating], context_NK: Ints) -> NDArray[np.float64]:
    """[N, M] log-probabilities over the clusters outside each context, of which they sum to 1; -inf inside it."""
    return among(score_NM.astype(np.float64), outside(context_NK, score_NM.shape[1]))


def mass(offset_NM: NDArray[np.floating], members: list[list[int]]) -> NDArray[np.float32]:
    """[N, options] log of what lies below each way on, which has these clusters; -inf where nothing is left.

    >>> below = mass(np.log([[0.5, 0.25, 0.25]]), [[0, 2], [1]])
    >>> np.exp(below).round(4).tolist()
    [[0.75, 0.25]]
    """
    return np.stack([np.logaddexp.reduce(offset_NM[:, m], axis=1) for m in members], axis=1).astype(np.float32)
