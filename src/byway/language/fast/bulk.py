"""Asking in bulk: the best clusters of every ordered pair, with what pairs share read once.

Owns how rows of the table are asked for, how the model's answers and the evidence are weighed into one ranking, and
how both are fitted. It does not know artifacts, shards or files: that is `plan`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import device
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.base.ranking import best_first, ndcg_at, ranks_in
from byway.language.fast.choices import TOGETHER, Adjust, Found, by_model, top
from byway.language.fast.generate import Policy, Prompted, ask, ask_cue, ask_rows, read_blocks, read_instruction
from byway.language.fast.passes import Prefix
from byway.transitions.curate import Ints, Samples, pick
from byway.transitions.signals import Scorer
from byway.transitions.triples import contexts_of, outside, row_of

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
VALIDATED, LEAST = 20_000, 1500
"""Validation transitions on which the model's weight is fitted: of a few thousand chance picks it. No more than a
quarter of the table's pairs, so that the fit costs less than the table, but `LEAST` in any case."""
CHANGED = 0.0003
"""Share of first answers that may be another than float32's, as estimated: they are ties but for rounding. One in
a thousand is what is meant; an estimate from 256 pairs is too low now and then (docs/LOG.md)."""
TILE = 4
"""Rows of the table that are computed together, always from a multiple of it. Which numbers stand in one matrix
product decides how they are rounded: with fixed tiles a pair's answer does not depend on how the rows are cut into
chunks, shards and runs."""


Scores = Callable[[Ints], NDArray[np.float32]]
"""What else speaks for each cluster: [N, M] for contexts [N, K] (`signals.Scorer`)."""


Again = Callable[[Ints, NDArray[np.int32], NDArray[np.float32]], NDArray[np.int32]]
"""From contexts [N, K] and the m best under the model alone, with their scores, to those of which the first is
float32's (`asked_again`)."""


@torch.no_grad()
def rounding(asked_of: Policy, exact: Policy, pairs: int, rng: np.random.Generator) -> float:
    """How near, in nats, the two best answers of a pair may lie before they are asked again in float32.

    How coarsely bfloat16 and float16 round depends on the weights: by a hundredth of a nat in one model, by half a
    nat in another, so that it is seen on some pairs of the table itself. UserError where no number comes out.
    """
    M, K = asked_of.clusters, asked_of.prompt.history
    if M < K + 2 or not pairs:
        return 0.0
    drawn = np.array([rng.choice(M, 2, replace=False) for _ in range(pairs)], dtype=np.int32).reshape(-1, 2)
    gaps, errors = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for part in np.array_split(drawn, -(-pairs // TOGETHER)):
        context = contexts_of(part, K)
        excluded = ~outside(context, M)
        two, coarse = by_model(asked_of, ask(asked_of, context), 2, excluded)
        ten, fine = by_model(exact, ask(exact, context), min(10, M - K), excluded)
        _answered(coarse, excluded)
        own = [np.where(ten == one[:, None], fine, -np.inf).max(axis=1) for one in two.T]
        # An answer that float32 does not have among its ten best counts as its tenth.
        first, second = (np.maximum(each, fine[:, -1]) for each in own)
        gaps.append(coarse[:, 0] - coarse[:, 1])
        errors.append(np.abs(gaps[-1] - (first - second)))
    return nearness(np.concatenate(gaps), np.concatenate(errors))


def nearness(gap_P: NDArray[np.floating], error_P: NDArray[np.floating]) -> float:
    """The distance up to which pairs have to be asked again for no more than `CHANGED` of all first answers to be
    other ones.

    Any error that was seen may befall any pair, in either direction, and changes its first answer where the two
    best lie nearer together than that.

    >>> gap, error = np.array([0.01, 0.2, 0.4, 0.8]), np.array([0.0, 0.0, 0.0, 0.3])
    >>> nearness(gap, error)
    0.2
    """
    gap = np.sort(gap_P)[::-1]
    changed = (error_P[None] > gap[:, None]).mean(axis=1) / 2
    so_far = np.cumsum(changed) / len(gap)  # were this and all that lie farther apart not asked again
    near = np.flatnonzero(so_far > CHANGED)
    return float(gap[near[0]]) if len(near) else 0.0


def _answered(scores: NDArray[np.floating], excluded_NM: NDArray[np.bool_]) -> None:
    """UserError where a legal first answer has no score: float16 ends at 65,504, and some models go beyond."""
    if not (np.isfinite(scores[:, 0]) | excluded_NM.all(axis=1)).all():
        raise UserError(
            "The language model's numbers do not fit into float16: uninstall mkl, which the table alone uses; "
            'or set run.precision = "float32", and the model is fine-tuned anew.'
        )


@torch.no_grad()
def answer_some(
    asked_of: Policy,
    context: Ints,
    evidence: Scores,
    weight: float,
    n: int,
    model_n: int,
    *,
    again: Again | None = None,
) -> NDArray[Any]:
    """The best clusters of the given contexts: [N] with cluster and score [n], model [m]."""
    prompted = [ask(asked_of, context)] if len(context) else []
    return _answers(asked_of, prompted, context, evidence, weight, sizes=(n, model_n), again=again)


@torch.no_grad()
def answerer(
    asked_of: Policy,
    evidence: Scores,
    weight: float,
    n: int,
    model_n: int,
    again: Again | None = None,
) -> Callable[[range], NDArray[Any]]:
    """What answers every pair of a chunk of rows: [rows, M] with cluster and score [n], model [m].

    A chunk starts at a multiple of the tile. What all rows share is read here, once.
    """
    M, K = asked_of.clusters, asked_of.prompt.history
    ready, tile = ready_rows(asked_of), _tile(asked_of)

    def rows_of(rows: range) -> NDArray[Any]:
        found: list[NDArray[Any]] = []
        for start in range(rows.start, rows.stop, tile):
            part = range(start, min(start + tile, rows.stop))
            context = np.concatenate([row_of(c1, M, K) for c1 in part])
            found.append(
                _answers(asked_of, ready(part), context, evidence, weight, sizes=(n, model_n), again=again)
            )
        return np.concatenate(found).reshape(len(rows), M)

    return rows_of


def layout(n: int, m: int) -> list[Any]:
    """Of an answer: n clusters with their scores as served, m of the model's own ranking."""
    return [("cluster", "i4", (n,)), ("score", "f4", (n,)), ("model", "i4", (m,))]


@torch.no_grad()
def _answers(
    asked_of: Policy,
    prompted: Iterable[Prompted],
    context: Ints,
    evidence: Scores,
    weight: float,
    *,
    sizes: tuple[int, int],
    again: Again | None,
) -> NDArray[Any]:
    """The best clusters of contexts whose prompts are read in turn, in `layout`: no more of either than there are
    clusters, nor of the model's own than of those served."""
    n = min(sizes[0], asked_of.clusters)
    m = min(n, sizes[1])
    found, scores = np.empty(len(context), layout(n, m)), np.empty((len(context), m), np.float32)
    done = 0
    for asked in prompted:
        of = slice(done, done := done + len(asked.position_N))
        excluded, score, here = ~outside(context[of], asked_of.clusters), evidence(context[of]), found[of]
        if weight:
            ways: list[Adjust] = [partial(_posterior, score, weight), lambda log_p: log_p]
            served, own = top(asked_of, asked, (n, m), excluded, ways)
        else:  # the evidence alone: no name has to be read for them
            served, own = _without(score, excluded, n), by_model(asked_of, asked, m, excluded)
        (here["cluster"], here["score"]), (here["model"], scores[of]) = served, own
    if again is not None:
        found["model"] = again(context, found["model"], scores)
    return found


def _tile(asked_of: Policy) -> int:
    """Rows that are computed together; on a GPU as many tiles as fit, up to the end of a chunk."""
    text = asked_of.model.config.get_text_config()
    needs = 8 * text.hidden_size * text.num_hidden_layers  # bytes a prompt, amply
    return TILE * device.several(TILE * asked_of.clusters * needs)


@torch.no_grad()
def asked_again(exact: Policy, near: float) -> Again:
    """Who is asked again, in float32, where the two best may change places: they are nearly tied (`rounding`)."""
    ready, M = ready_some(exact), exact.clusters

    def again(context: Ints, own: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.int32]:
        _answered(scores, ~outside(context, M))
        if own.shape[1] < 2:
            return own
        # Two that are no answers are no tie: their difference is no number.
        with np.errstate(invalid="ignore"):
            tied = (own >= 0) & (scores[:, :1] - scores <= near)
        rows_tied, own = np.flatnonzero(tied[:, 1]), own.copy()
        for rows in np.array_split(rows_tied, max(1, len(rows_tied) // TOGETHER)):
            if len(rows):
                others = np.ones((len(rows), M), dtype=bool)
                at, place = np.nonzero(tied[rows])
                others[at, own[rows[at], place]] = False
                best, _ = by_model(exact, ready(context[rows]), 1, others)
                own[rows] = _to_front(own[rows], best)
        return own

    return again


def by_evidence(context_NK: Ints, evidence: Scores, clusters: int, n: int) -> Found:
    """The n best clusters of each context under the evidence alone, and their scores."""
    return _without(evidence(context_NK), ~outside(context_NK, clusters), n)


def _to_front(ranking_Nm: NDArray[np.int32], best_N1: NDArray[np.int32]) -> NDArray[np.int32]:
    """The rankings with `best` first and the others in their order; the last one leaves where `best` was not there.

    >>> _to_front(np.array([[4, 7, 2], [4, 7, 2]]), np.array([[7], [9]])).tolist()
    [[7, 4, 2], [9, 4, 7]]
    """
    wide = np.concatenate([best_N1, ranking_Nm], axis=1)
    twice = np.zeros(wide.shape, dtype=bool)
    twice[:, 1:] = ranking_Nm == best_N1
    order = np.argsort(twice, axis=1, kind="stable")[:, : ranking_Nm.shape[1]]
    return np.take_along_axis(wide, order, 1)


def _without(evidence: NDArray[np.float32], excluded: NDArray[np.bool_], n: int) -> Found:
    """The n best under the evidence alone."""
    score = np.where(excluded, np.float32(-np.inf), evidence)
    best = best_first(score, n)
    own = np.take_along_axis(score, best, 1)
    return np.where(np.isfinite(own), best, -1).astype(np.int32), own


def _posterior(evidence: NDArray[np.float32], weight: float, log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probability under evidence and model together, up to a constant a prompt."""
    return (evidence + weight * log_p).astype(np.float32)


def ready_rows(asked_of: Policy) -> Callable[[range], Iterator[Prompted]]:
    """How to ask a tile of rows of pairs (C1, every C2), in that order: all at once, or row by row where causal.

    Under block attention every description is read once a slot for the whole table, and a pair costs its cue.
    Under causal attention the instruction is read once for the table and C1 once a row, a tile's together. C1
    stands in all slots but the last.
    """
    prompt, every = asked_of.prompt, np.arange(asked_of.clusters)
    M, K = len(every), prompt.history
    instruction = read_instruction(asked_of)
    if asked_of.attention == "block":
        blocks = read_blocks(asked_of, [every] * K, instruction)
        columns = Prefix(blocks, "columns", part=range((K - 1) * M, K * M), turned=True)

        def grid(rows: range) -> Iterator[Prompted]:
            firsts = [range(k * M + rows.start, k * M + rows.stop) for k in range(K - 1)]
            own = [Prefix(blocks, "rows", part=part) for part in firsts]
            yield ask_cue(asked_of, [Prefix(instruction, "all"), *own, columns], len(rows), M)

        return grid

    def each(rows: range) -> Iterator[Prompted]:
        firsts = [[token for slot in prompt.slots[:-1] for token in slot[row]] for row in rows]
        return ask_rows(asked_of, instruction, firsts)

    return each


@torch.no_grad()
def ready_some(asked_of: Policy) -> Callable[[Ints], Prompted]:
    """How to ask some contexts, now and then: under block attention every description is read once for all."""
    instruction = read_instruction(asked_of)
    if asked_of.attention != "block":
        return partial(ask, asked_of, instruction=instruction)
    M, K = asked_of.clusters, asked_of.prompt.history
    blocks = read_blocks(asked_of, [np.arange(M)] * K, instruction)

    def some(context_NK: Ints) -> Prompted:
        places = [asked_of.take(k * M + context_NK[:, k].astype(np.int64)) for k in range(K)]
        back = [Prefix(instruction, "all"), *(Prefix(blocks, "rows", place) for place in places)]
        return ask_cue(asked_of, back, len(context_NK), 1)

    return some


@torch.no_grad()
def first(asked_of: Policy, context_NK: Ints, n: int) -> NDArray[np.int32]:
    """[N, n] the best legal names of each context by the model alone, best first; -1 where fewer are left."""
    contexts, row = np.unique(context_NK, axis=0, return_inverse=True)
    ready = ready_some(asked_of)
    found: list[NDArray[np.int32]] = []
    for part in np.array_split(contexts, max(1, len(contexts) // 250)):
        found.append(by_model(asked_of, ready(part), n, ~outside(part, asked_of.clusters))[0])
    return np.concatenate(found)[row.reshape(-1)]


@torch.no_grad()
def fit(asked_of: Policy, validation: Samples, scorer: Scorer, rng: np.random.Generator) -> tuple[Scorer, float]:
    """The scorer with its weights, and the weight of the model's log-probability beside it, on validation.

    The scorer first, without the model, which costs nothing; then the model, by NDCG at 10. Only the names that may
    be among the ten best are read to their end, and the greatest weight, which reads the most, comes first. Where
    nothing was kept for validation the counts stand alone: nothing else has shown what it is good for.
    """
    scorer = scorer.fitted_by_ndcg(validation, rng)
    if not len(validation.several()):
        return scorer, 0.0
    M = asked_of.clusters
    n = min(10, M)
    samples = pick(validation.several(), min(VALIDATED, max(LEAST, M * M // 4)), rng)
    contexts, row = np.unique(samples.context, axis=0, return_inverse=True)
    parts = np.array_split(contexts, max(1, len(contexts) // 500))
    tried = [weight for weight in sorted(WEIGHTS, reverse=True) if weight]
    listed: dict[float, list[NDArray[np.int32]]] = {weight: [] for weight in WEIGHTS}
    ready = ready_some(asked_of)
    with bar("weigh model and log", len(contexts)) as advance:
        for part in parts:
            score, excluded = scorer(part), ~outside(part, M)
            ways: list[Adjust] = [partial(_posterior, score, weight) for weight in tried]
            read = top(asked_of, ready(part), n, excluded, ways)
            for weight, (best, _) in zip((*tried, 0.0), (*read, _without(score, excluded, n)), strict=True):
                listed[weight].append(best)
            advance(len(part))

    def gain(weight: float) -> float:
        rank = ranks_in(np.concatenate(listed[weight])[row.reshape(-1)], samples.label)
        return ndcg_at(rank, n, samples.count)

    return scorer, max(WEIGHTS, key=gain)
