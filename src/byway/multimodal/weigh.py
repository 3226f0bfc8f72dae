"""What follows a video by all that is known: counts, a linear model of its pictures, the multimodal model.

The weights are those of a conditional logit over what pleased later (`transitions.signals.likeliest`): what adds
nothing beside the others has none. Scores are log-probabilities over the clusters that would be a surprise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.multimodal.contexts import Contexts, Ints, serendipitous
from byway.multimodal.curate import Pairs, PairSamples, posterior, rows_of
from byway.multimodal.tune import linear
from byway.transitions.curate import Samples
from byway.transitions.signals import among, likeliest

SIGNALS = ("counts", "pictures", "model")
USUAL = (1.0, 0.0, 0.0)
"""Weights that few validation pairs are drawn towards, as by one pair of variance 1."""

Scores = dict[str, NDArray[np.float64]]


def ranked(
    pairs: Pairs, asked: Contexts, items: Ints, said: tuple[Ints, NDArray[np.float32]], top: int
) -> tuple[Ints, NDArray[np.float32], dict[str, Any]]:
    """The clusters that follow each of `items` best, with their log-probabilities, [N, top], and figures.

    `said` are the multimodal model's clusters and scores, [N, n]: all that are possible of each item, best first.
    Among the items must be those of the validation pairs, as far as they can be answered; the figures are weights,
    and recall at 1 of held-out pairs whose items are there.
    """
    open_NM = serendipitous(asked, items)
    scores = _scores(pairs, asked, items, open_NM, *said)
    validated = _of(pairs.validation, items)
    weights = fitted(scores, open_NM, *validated)
    log_p = log_p_among(_sum(scores, weights), open_NM)
    figures = {"video.table.weights": {name: round(weights.get(name, 0.0), 4) for name in SIGNALS}}
    rows, some = _of(pairs.heldout, items)
    if len(some):
        others = {name: score for name, score in scores.items() if name != "model"}
        served_without = _sum(others, fitted(others, open_NM, *validated))
        every = scores | {"fitted": log_p, "without the model": served_without}
        figures["video.table.recall_at_1"] = {
            name: _recall(np.where(open_NM, score, -np.inf)[rows], some) for name, score in every.items()
        }
    return *best_of(log_p, top), figures


def log_p_among(score_NM: NDArray[Any], open_NM: NDArray[np.bool_]) -> NDArray[np.floating]:
    """[N, M] log-probabilities over the open clusters of each item; -inf for the others, and where none is open."""
    some = open_NM.any(axis=1)
    log_p = np.full(open_NM.shape, -np.inf, score_NM.dtype)
    log_p[some] = among(score_NM[some], open_NM[some])
    return log_p


def best_of(log_p_NM: NDArray[np.floating], top: int) -> tuple[Ints, NDArray[np.float32]]:
    """[N, top] the likeliest clusters and their log-probabilities, best first; -1 and -inf where fewer are open."""
    order = np.argsort(-log_p_NM, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(log_p_NM, order, 1)
    fill = ((0, 0), (0, top - order.shape[1]))
    clusters = np.pad(np.where(np.isfinite(best), order, -1), fill, constant_values=-1).astype(np.int32)
    return clusters, np.pad(best, fill, constant_values=-np.inf).astype(np.float32)


def fitted(
    scores: Scores, open_NM: NDArray[np.bool_], rows: NDArray[np.intp], some: PairSamples
) -> dict[str, float]:
    """The weights under which the pairs `some`, of the items at `rows`, are likeliest; none is below 0."""
    names = list(scores)
    if not len(some):
        return dict(zip(SIGNALS, USUAL, strict=True))
    samples = Samples(some.item[:, None], some.label, some.count)
    while True:
        usual = np.array([USUAL[SIGNALS.index(name)] for name in names])
        firmness = np.full(len(names), 1 / some.count.sum())
        found = likeliest([scores[name][rows] for name in names], open_NM[rows], samples, usual, firmness)
        if found.min() > 0 or len(names) == 1:
            return dict(zip(names, found.tolist(), strict=True))
        names.pop(int(found.argmin()))


def _scores(
    pairs: Pairs, asked: Contexts, items: Ints, open_NM: NDArray[np.bool_], named: Ints, log_p: NDArray[np.float32]
) -> Scores:
    model = np.full(open_NM.shape, -np.inf)
    rows, places = np.nonzero(named >= 0)
    model[rows, named[rows, places]] = log_p[rows, places]
    counts = posterior(pairs, asked.cluster, asked.parent)(items)
    found = {"counts": np.log(np.maximum(counts, 1e-12)), "model": model}
    pictures = linear(pairs, asked)
    seen = asked.row[items] >= 0
    if pictures is not None and seen.all():
        found["pictures"] = pictures(items).astype(np.float64)
    # A sum over signals must not meet -inf times 0.
    return {name: np.where(open_NM, log_p_among(found[name], open_NM), 0.0) for name in SIGNALS if name in found}


def _sum(scores: Scores, weights: dict[str, float]) -> NDArray[np.float64]:
    total = np.zeros_like(next(iter(scores.values())))
    for name, weight in weights.items():
        if name in scores:
            total += weight * scores[name]
    return total


def _of(some: PairSamples, items: Ints) -> tuple[NDArray[np.intp], PairSamples]:
    """The pairs whose items are among `items`, in order, with the places of these."""
    at = np.minimum(np.searchsorted(items, some.item), len(items) - 1)
    own = np.flatnonzero(items[at] == some.item)
    return at[own], rows_of(some, own)


def _recall(score_NM: NDArray[np.float64], some: PairSamples) -> float:
    return round(float(np.average(score_NM.argmax(1) == some.label, weights=some.count)), 4)
