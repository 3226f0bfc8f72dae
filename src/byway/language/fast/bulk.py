"""Asking in bulk: the best clusters of every ordered pair, with what pairs share read once.

Owns how rows of the table are read, how the model's answers and the evidence are weighed into one ranking, and how
both are fitted. It does not know artifacts, shards or files: that is `plan`.
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
from byway.language.fast.choices import TOGETHER, Ranking, by_model, top
from byway.language.fast.generate import (
    Policy,
    Prefilled,
    prefill,
    prefill_cue,
    prefill_rows,
    read_blocks,
    read_instruction,
)
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


Recheck = Callable[[Ints, NDArray[np.int32], NDArray[np.float32]], NDArray[np.int32]]
"""From contexts [N, K] and the m best under the model alone, with their scores, to those of which the first is
float32's (`rechecker`)."""


@torch.no_grad()
def rounding(policy: Policy, exact: Policy, pairs: int, rng: np.random.Generator) -> float:
    """How near, in nats, the two best answers of a pair may lie before they are asked again in float32.

    How coarsely bfloat16 and float16 round depends on the weights: by a hundredth of a nat in one model, by half a
    nat in another, so that it is seen on some pairs of the table itself. UserError where no number comes out.
    """
    M, K = policy.clusters, policy.prompt.history
    if M < K + 2 or not pairs:
        return 0.0
    drawn = np.array([rng.choice(M, 2, replace=False) for _ in range(pairs)], dtype=np.int32).reshape(-1, 2)
    gaps, errors = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for part in np.array_split(drawn, -(-pairs // TOGETHER)):
        context = contexts_of(part, K)
        excluded = ~outside(context, M)
        two, coarse = by_model(policy, prefill(policy, context), 2, excluded)
        ten, fine = by_model(exact, prefill(exact, context), min(10, M - K), excluded)
        _require_finite(coarse, excluded)
        # Both answers by float32; one that it does not have among its ten best counts as its tenth.
        first, second = (
            np.maximum(np.where(ten == answer[:, None], fine, -np.inf).max(axis=1), fine[:, -1]) for answer in two.T
        )
        gap = coarse[:, 0] - coarse[:, 1]
        gaps.append(gap)
        errors.append(np.abs(gap - (first - second)))
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


def _require_finite(scores: NDArray[np.floating], excluded_NM: NDArray[np.bool_]) -> None:
    """UserError where a legal first answer has no score: float16 ends at 65,504, and some models go beyond."""
    if not (np.isfinite(scores[:, 0]) | excluded_NM.all(axis=1)).all():
        raise UserError(
            "The language model's numbers do not fit into float16: uninstall mkl, which the table alone uses; "
            'or set run.precision = "float32", and the model is fine-tuned anew.'
        )


@torch.no_grad()
def answer_some(
    policy: Policy,
    context: Ints,
    evidence: Scores,
    weight: float,
    n: int,
    model_n: int,
    *,
    recheck: Recheck | None = None,
) -> NDArray[Any]:
    """[N] the best clusters of contexts [N, K], in `layout`."""
    prefilled = [prefill(policy, context)] if len(context) else []
    return _answers(policy, prefilled, context, evidence, weight, sizes=(n, model_n), recheck=recheck)


@torch.no_grad()
def row_answerer(
    policy: Policy,
    evidence: Scores,
    weight: float,
    n: int,
    model_n: int,
    recheck: Recheck | None = None,
) -> Callable[[range], NDArray[Any]]:
    """From a chunk of rows to the best clusters of their pairs: [rows, M], in `layout`.

    A chunk starts at a multiple of the tile. What all rows share is read here, once.
    """
    M, K = policy.clusters, policy.prompt.history
    prefill_tile, tile = row_prefiller(policy), _tile(policy)

    def answer_rows(rows: range) -> NDArray[Any]:
        answers: list[NDArray[Any]] = []
        for start in range(rows.start, rows.stop, tile):
            part = range(start, min(start + tile, rows.stop))
            context = np.concatenate([row_of(c1, M, K) for c1 in part])
            prefilled, sizes = prefill_tile(part), (n, model_n)
            answers.append(_answers(policy, prefilled, context, evidence, weight, sizes=sizes, recheck=recheck))
        return np.concatenate(answers).reshape(len(rows), M)

    return answer_rows


def layout(n: int, m: int) -> list[Any]:
    """Of an answer: n clusters with their scores as served, m of the model's own ranking."""
    return [("cluster", "i4", (n,)), ("score", "f4", (n,)), ("model", "i4", (m,))]


@torch.no_grad()
def _answers(
    policy: Policy,
    prefilled: Iterable[Prefilled],
    context: Ints,
    evidence: Scores,
    weight: float,
    *,
    sizes: tuple[int, int],
    recheck: Recheck | None,
) -> NDArray[Any]:
    """The best clusters of contexts whose prompts are read in turn, in `layout`: no more of either than there are
    clusters, nor of the model's own than of those served."""
    n = min(sizes[0], policy.clusters)
    m = min(n, sizes[1])
    answers, model_scores = np.empty(len(context), layout(n, m)), np.empty((len(context), m), np.float32)
    done = 0
    for part in prefilled:
        rows = slice(done, done := done + len(part.position_N))
        excluded, score = ~outside(context[rows], policy.clusters), evidence(context[rows])
        if weight:
            ways = [(n, partial(_posterior, score, weight)), (m, _model_alone)]
            served, model = top(policy, part, ways, excluded)
        else:  # the evidence alone: no name has to be read for them
            served, model = _best(score, excluded, n), by_model(policy, part, m, excluded)
        here = answers[rows]
        (here["cluster"], here["score"]), (here["model"], model_scores[rows]) = served, model
    if recheck is not None:
        answers["model"] = recheck(context, answers["model"], model_scores)
    return answers


def _tile(policy: Policy) -> int:
    """Rows that are computed together; on a GPU as many tiles as fit, up to the end of a chunk."""
    text = policy.model.config.get_text_config()
    needs = 8 * text.hidden_size * text.num_hidden_layers  # bytes a prompt, amply
    return TILE * device.several(TILE * policy.clusters * needs)


@torch.no_grad()
def rechecker(exact: Policy, near: float) -> Recheck:
    """What asks again in float32 (`exact`) where the two best are nearly tied and may change places."""
    prefill_some, M = prefiller(exact), exact.clusters

    def recheck(context: Ints, ranking: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.int32]:
        _require_finite(scores, ~outside(context, M))
        if ranking.shape[1] < 2:
            return ranking
        # Two that are no answers are no tie: their difference is no number.
        with np.errstate(invalid="ignore"):
            tied = (ranking >= 0) & (scores[:, :1] - scores <= near)
        tied_rows, ranking = np.flatnonzero(tied[:, 1]), ranking.copy()
        for rows in np.array_split(tied_rows, max(1, len(tied_rows) // TOGETHER)):
            if len(rows):
                excluded = np.ones((len(rows), M), dtype=bool)  # all but those that are tied
                at, place = np.nonzero(tied[rows])
                excluded[at, ranking[rows[at], place]] = False
                first, _ = by_model(exact, prefill_some(context[rows]), 1, excluded)
                ranking[rows] = _to_front(ranking[rows], first)
        return ranking

    return recheck


def by_evidence(context_NK: Ints, evidence: Scores, clusters: int, n: int) -> Ranking:
    """The n best clusters of each context under the evidence alone, and their scores."""
    return _best(evidence(context_NK), ~outside(context_NK, clusters), n)


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


def _best(score: NDArray[np.float32], excluded: NDArray[np.bool_], n: int) -> Ranking:
    """The n best of those that are not excluded."""
    score = np.where(excluded, np.float32(-np.inf), score)
    best = best_first(score, n)
    scores = np.take_along_axis(score, best, 1)
    return np.where(np.isfinite(scores), best, -1).astype(np.int32), scores


def _posterior(evidence: NDArray[np.float32], weight: float, log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probability under evidence and model together, up to a constant a prompt."""
    return (evidence + weight * log_p).astype(np.float32)


def _model_alone(log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    return log_p


def row_prefiller(policy: Policy) -> Callable[[range], Iterator[Prefilled]]:
    """What reads a tile of rows of pairs (C1, every C2), in that order: all at once, or row by row where causal.

    Under block attention every description is read once a slot for the whole table, and a pair costs its cue.
    Under causal attention the instruction is read once for the table and C1 once a row, a tile's together. C1
    stands in all slots but the last.
    """
    prompt, M, K = policy.prompt, policy.clusters, policy.prompt.history
    instruction = read_instruction(policy)
    if policy.attention == "block":
        blocks = read_blocks(policy, [np.arange(M)] * K, instruction)
        columns = Prefix(blocks, "columns", rows=range((K - 1) * M, K * M), transposed=True)

        def grid(rows: range) -> Iterator[Prefilled]:
            slots = [range(k * M + rows.start, k * M + rows.stop) for k in range(K - 1)]
            of_rows = [Prefix(blocks, "rows", rows=slot) for slot in slots]
            yield prefill_cue(policy, [Prefix(instruction, "all"), *of_rows, columns], len(rows), M)

        return grid

    def row_by_row(rows: range) -> Iterator[Prefilled]:
        firsts = [[token for slot in prompt.slots[:-1] for token in slot[row]] for row in rows]
        return prefill_rows(policy, instruction, firsts)

    return row_by_row


@torch.no_grad()
def prefiller(policy: Policy) -> Callable[[Ints], Prefilled]:
    """What reads the prompts of some contexts, now and then: under block attention every description is read here,
    once for all."""
    instruction = read_instruction(policy)
    if policy.attention != "block":
        return partial(prefill, policy, instruction=instruction)
    M, K = policy.clusters, policy.prompt.history
    blocks = read_blocks(policy, [np.arange(M)] * K, instruction)

    def prefill_some(context_NK: Ints) -> Prefilled:
        places = [policy.take(k * M + context_NK[:, k].astype(np.int64)) for k in range(K)]
        prefixes = [Prefix(instruction, "all"), *(Prefix(blocks, "rows", place) for place in places)]
        return prefill_cue(policy, prefixes, len(context_NK), 1)

    return prefill_some


@torch.no_grad()
def first(policy: Policy, context_NK: Ints, n: int) -> NDArray[np.int32]:
    """[N, n] the best legal names of each context by the model alone, best first; -1 where fewer are left."""
    contexts, row = np.unique(context_NK, axis=0, return_inverse=True)
    prefill_some = prefiller(policy)
    best: list[NDArray[np.int32]] = []
    for part in np.array_split(contexts, max(1, len(contexts) // 250)):
        best.append(by_model(policy, prefill_some(part), n, ~outside(part, policy.clusters))[0])
    return np.concatenate(best)[row.reshape(-1)]


@torch.no_grad()
def fit(policy: Policy, validation: Samples, scorer: Scorer, rng: np.random.Generator) -> tuple[Scorer, float]:
    """The scorer with its weights, and the weight of the model's log-probability beside it, on validation.

    The scorer first, without the model, which costs nothing; then the model, by NDCG at 10. Only the names that may
    be among the ten best are read to their end, and the greatest weight, which reads the most, comes first. Where
    nothing was kept for validation the counts stand alone: nothing else has shown what it is good for.
    """
    scorer = scorer.fitted_by_ndcg(validation, rng)
    if not len(validation.several()):
        return scorer, 0.0
    M = policy.clusters
    n = min(10, M)
    samples = pick(validation.several(), min(VALIDATED, max(LEAST, M * M // 4)), rng)
    contexts, row = np.unique(samples.context, axis=0, return_inverse=True)
    tried = [weight for weight in sorted(WEIGHTS, reverse=True) if weight]
    best: dict[float, list[NDArray[np.int32]]] = {weight: [] for weight in WEIGHTS}
    prefill_some = prefiller(policy)
    with bar("weigh model and log", len(contexts)) as advance:
        for part in np.array_split(contexts, max(1, len(contexts) // 500)):
            score, excluded = scorer(part), ~outside(part, M)
            ways = [(n, partial(_posterior, score, weight)) for weight in tried]
            rankings = [*top(policy, prefill_some(part), ways, excluded), _best(score, excluded, n)]
            for weight, (clusters, _) in zip((*tried, 0.0), rankings, strict=True):
                best[weight].append(clusters)
            advance(len(part))

    def ndcg(weight: float) -> float:
        rank = ranks_in(np.concatenate(best[weight])[row.reshape(-1)], samples.label)
        return ndcg_at(rank, n, samples.count)

    return scorer, max(WEIGHTS, key=ndcg)
