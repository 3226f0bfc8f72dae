"""08-transition-table: the answer for every ordered pair of clusters, computed in bulk (paper 1, section 2.2).

The table is a posterior: the language model is the prior, the log's counts and how alike the clusters' items are
make the evidence, and how much each weighs is fitted on validation transitions. The model's own ranking is kept
beside it. One that was asked elsewhere is a signal like the others; one that runs here is read in bulk (`fast`).
"""

import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import config, engine, models, precision
from byway.base.artifact import Outcome, Work, alone, write_atomic
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import prompts
from byway.language.answers import RankedPairs
from byway.language.fast import bulk, half
from byway.language.fast.bulk import TILE, Again
from byway.language.fast.choices import TOGETHER
from byway.language.fast.generate import Policy, policy
from byway.language.tune import Tuned
from byway.transitions import align, signals
from byway.transitions.counts import Successors
from byway.transitions.curate import Ints, Samples, Transitions, added
from byway.transitions.signals import Scorer, TableWeights
from byway.transitions.table import triples_of
from byway.transitions.triples import MOST, key, row_of

TOP = 20
"""Clusters kept a pair, best first: those that somebody met are passed over, and the next is theirs."""
TRIPLES = 1_000_000
"""The most frequent triples of the log that get a ranking of their own; a million take 80 MB of a bundle."""
MODEL_TOP = 10
"""Clusters kept of the model's own ranking, for figures; each further one has to be read to its end."""
ROUNDING = 256
"""Pairs on which it is measured how far an arithmetic other than float32 moves the model's two best answers against
each other. Near ties are asked again in float32, so many that about one first answer in a thousand may be another;
0: none."""
ROWS_PER_CHUNK = 8
"""Rows of the table computed between two commits of progress; the rows come out the same whatever it is."""


Filled = tuple[NDArray[Any], float]
"""Some rows of the table or some contexts, and in how many seconds they were answered."""


def open_policy(tuned: Tuned, transitions: Transitions, descriptions: Descriptions, arithmetic: str) -> Policy:
    """The fine-tuned language policy, ready to be asked in an arithmetic that `half.resolved` knows."""
    names = descriptions.names[transitions.level - 1]
    history = transitions.train.context.shape[1]
    prompt = prompts.tokenise(names, history, models.load_tokenizer(str(tuned.path)), tuned.ending)
    arithmetic = half.resolved(arithmetic)
    model = models.load(str(tuned.path), precision.dtype(arithmetic))
    return policy(half.put(model) if arithmetic == "float16" else model, prompt, tuned.attention)


def build(
    work: Work,
    settings: config.TransitionTable,
    *,
    transitions: Transitions,
    descriptions: Descriptions,
    model: Tuned | RankedPairs,
    vectors: NDArray[np.float32],
    tree: Tree,
    arithmetic: str,
) -> Outcome:
    """Fill the table, a few rows at a time; a row that is there is not computed again.

    Where K is 3 a pair (C1, C2) is asked for as (C1, C1, C2), as the log has it for a user with two interests.
    """
    started = time.perf_counter()
    fitted = fill(
        work,
        settings,
        transitions=transitions,
        descriptions=descriptions,
        model=model,
        vectors=vectors,
        tree=tree,
        arithmetic=arithmetic,
    )
    M = transitions.clusters
    whole = np.concatenate([np.load(path) for path in sorted(work.scratch.glob("rows-*.npy"))])
    keys = triples_of(transitions, TRIPLES)
    more = None
    if keys is not None:
        more = np.concatenate([np.load(path) for path in sorted(work.scratch.glob("triples-*.npy"))])
    aligned = None
    if settings.best_of:
        satisfaction = align.Satisfaction.of(_feedback(transitions), M)
        K = transitions.train.context.shape[1]
        aligned = np.empty(whole["cluster"].shape, np.float32)
        for c1 in range(M):
            aligned[c1] = _ordered(whole[c1], satisfaction, row_of(c1, M, K), settings.best_of)
        if keys is not None and more is not None:
            _ordered(more, satisfaction, keys, settings.best_of)
        np.save(work.out / "satisfaction.npy", aligned)
    np.save(work.out / "clusters.npy", whole["cluster"])
    np.save(work.out / "scores.npy", whole["score"])
    np.save(work.out / "model.npy", whole["model"])
    (work.out / "fitted.json").write_bytes(msgspec.json.format(msgspec.json.encode(fitted), indent=2))
    if keys is not None and more is not None:
        np.save(work.out / "triple_keys.npy", key(keys, M))
        np.save(work.out / "triple_clusters.npy", more["cluster"])
        np.save(work.out / "triple_model.npy", more["model"])
    pair = np.arange(M)
    illegal = (
        (whole["cluster"] < 0)
        | (whole["cluster"] >= M)
        | (whole["cluster"] == pair[:, None, None])
        | (whole["cluster"] == pair[None, :, None])
    )
    seconds = sum(json.loads(p.read_text("utf-8")) for p in work.scratch.glob("rows-*.seconds"))
    return Outcome(
        counts={"pairs": M * M, "triples": 0 if keys is None else len(keys)},
        metrics={
            "table.entries": M * M,
            "table.legal": round(float(1 - illegal[:, :, 0].mean()), 6),
            "table.distinct": len(np.unique(whole["cluster"][:, :, 0])),
            "table.weights": fitted.weights,
            "table.precision": fitted.precision,
            "table.near": round(fitted.near, 4),
            **(
                {}
                if aligned is None
                else {"table.satisfaction_at_1": round(float(np.nanmean(aligned[:, :, 0])), 4)}
            ),
            "table.seconds": round(time.perf_counter() - started, 1),
            # Of one process, also where several shards or a run that was cut have filled the rows.
            "table.pairs_per_second": round(M * M / max(seconds, 1e-9), 1),
        },
    )


def _feedback(transitions: Transitions) -> align.Feedback:
    if transitions.feedback is None:
        raise UserError("transition_table.best_of needs what 06-transitions collects for it; run that stage again.")
    return transitions.feedback


def _ordered(
    rows: NDArray[Any], satisfaction: align.Satisfaction, context_NK: Ints, best_of: int
) -> NDArray[np.float32]:
    """Order the first `best_of` clusters of each context, in place, by expected satisfaction: returned, [N, n]."""
    expected = satisfaction.expected(context_NK, rows["cluster"])
    order = align.pick(expected, best_of)
    for name in ("cluster", "score"):
        rows[name] = np.take_along_axis(rows[name], order, 1)
    return np.take_along_axis(expected, order, 1)


def fill(
    work: Work,
    settings: config.TransitionTable,
    *,
    transitions: Transitions,
    descriptions: Descriptions,
    model: Tuned | RankedPairs,
    vectors: NDArray[np.float32],
    tree: Tree,
    arithmetic: str,
    shard: tuple[int, int] = (1, 1),
) -> TableWeights:
    """Compute into scratch the rows of shard i of n that are not there yet; returns how the table was weighed.

    Shards take chunks of rows in turn. They share nothing but the scratch directory, so that they may run at the
    same time, on one machine or on several; the rows are the same bytes however many there are (`TILE`).
    """
    if transitions.train.context.shape[1] not in (2, 3) or transitions.clusters > MOST:
        raise UserError(
            "The table answers pairs and triples: set transitions.history to 2 or 3, or stop with "
            "--until language_model."
        )
    if settings.best_of:
        _feedback(transitions)  # said before the table is filled, not after
    M, (number, shards) = transitions.clusters, shard
    size = -(-ROWS_PER_CHUNK // TILE) * TILE
    chunks = [range(start, min(start + size, M)) for start in range(0, M, size)][number - 1 :: shards]
    path_of = {rows.start: work.scratch / f"rows-{rows.start:06d}.npy" for rows in chunks}
    left = [rows for rows in chunks if not path_of[rows.start].exists()]
    triples = triples_of(transitions, TRIPLES)
    starts = range(0, 0 if triples is None else max(1, len(triples)), TOGETHER)[number - 1 :: shards]
    more: dict[Path, Ints] = {}
    for start in starts:
        path = work.scratch / f"triples-{start:09d}.npy"
        if triples is not None and not path.exists():
            more[path] = triples[start : start + TOGETHER]
    said = model.signal() if isinstance(model, RankedPairs) else None
    scorer = signals.of(transitions, tree.similarity(vectors, transitions.level), said)
    known = work.scratch / "fitted.json"
    # How rows are weighed and computed is decided once for all shards, however many begin at the same time.
    with alone(work.scratch / ".fitting", "Another shard weighs model and log for all; waiting for it …"):
        if not known.exists():
            if isinstance(model, RankedPairs):
                made = TableWeights(scorer.fitted(transitions.validation, work.rng).all_weights())
            else:
                made = _fitted(work, arithmetic, transitions, descriptions, model, scorer)
            write_atomic(known, msgspec.json.encode(made))
    fitted = msgspec.json.decode(known.read_bytes(), type=TableWeights)
    if not (left or more):
        return fitted
    parts: list[range | Ints] = [*left, *more.values()]
    paths = [*(path_of[rows.start] for rows in left), *more]
    if isinstance(model, RankedPairs):
        K = transitions.train.context.shape[1]
        ask = partial(_ranker, model, scorer.weighed(**fitted.weights), K, TOP)
    else:
        ask = partial(_answerer, model, transitions, descriptions, scorer, fitted)
    total = sum(map(len, chunks)) + len(starts)
    with bar("transition table", total, total - sum(map(len, left)) - len(more)) as advance:
        for i, (found, seconds) in engine.spread(ask, parts):
            path, part = paths[i], parts[i]
            if isinstance(part, range):
                path.with_suffix(".seconds").write_text(f"{seconds:.3f}", "utf-8")
            write_atomic(path, _bytes(found))
            advance(len(part) if isinstance(part, range) else 1)
    return fitted


def _fitted(
    work: Work,
    arithmetic: str,
    transitions: Transitions,
    descriptions: Descriptions,
    tuned: Tuned,
    scorer: Scorer,
) -> TableWeights:
    """How model and log are weighed, in which arithmetic, and how near a tie is one."""
    arithmetic = half.resolved(arithmetic)
    asked_of = open_policy(tuned, transitions, descriptions, arithmetic)
    scorer, weight = bulk.fit(asked_of, transitions.validation, scorer, work.rng)
    weights, near = {**scorer.all_weights(), "language_model": weight}, 0.0
    if ROUNDING and arithmetic != "float32":
        exact = open_policy(tuned, transitions, descriptions, "float32")
        near = bulk.rounding(asked_of, exact, ROUNDING, work.rng)
    return TableWeights(weights, near, arithmetic)


def follow(
    transitions: Transitions,
    since: Samples,
    similarity_MM: NDArray[np.float64],
    fitted: TableWeights,
    top: int,
    ask: Callable[[], Policy],
    *,
    triples: Ints | None = None,
    said: signals.Signal | None = None,
) -> tuple[Ints, Ints]:
    """The contexts whose most frequent successor is another one since new transitions came, and their new rankings.

    Contexts are all pairs, and the `triples` [T, 3] of a table that has some.
    Between two fine-tunings arXiv 2510.20260 asks again about the pairs in which the most frequent recent successor
    has changed, and puts it into the prompt. Here the log's counts have a part of their own in every ranking: they
    are extended by what came and weighed as before, and the model, opened by `ask`, is asked again where it has
    any weight; `said` is what one that was asked elsewhere said. Returns contexts [N, K] and clusters [N, top].
    """
    M, K = transitions.clusters, transitions.train.context.shape[1]
    top = min(top, M)
    known = added(added(transitions.train, transitions.validation), transitions.heldout)
    weighed = Successors.of(transitions)
    before, now = (weighed.counting(samples) for samples in (known, added(known, since)))
    parts = [row_of(c1, M, K) for c1 in range(M)]
    if triples is not None:
        parts += [triples[start : start + TOGETHER] for start in range(0, len(triples), TOGETHER)]
    changed: list[Ints] = []
    for context in parts:
        first: list[NDArray[np.intp]] = []
        for counted in (before, now):
            share = counted.probability(context)
            np.put_along_axis(share, context.astype(np.int64), -1.0, axis=1)
            first.append(share.argmax(axis=1))
        changed.append(context[first[0] != first[1]])
    contexts = np.concatenate(changed)
    scorer = signals.over(now, similarity_MM, said).weighed(**fitted.weights)
    asked_of = ask() if said is None and fitted.model and len(contexts) else None
    found = [np.zeros((0, top), np.int32)]
    for part in (contexts[start : start + TOGETHER] for start in range(0, len(contexts), TOGETHER)):
        if asked_of is None:
            found.append(bulk.by_evidence(part, scorer, M, top))
        else:
            found.append(bulk.answer_some(asked_of, part, scorer, fitted.model, top, 1)["cluster"])
    return contexts, np.concatenate(found)


def _answerer(
    tuned: Tuned,
    transitions: Transitions,
    descriptions: Descriptions,
    scorer: Scorer,
    fitted: TableWeights,
) -> Callable[[range | Ints], Filled]:
    """What answers rows of the table, and contexts one by one, and says in how many seconds."""
    scorer, weight = scorer.weighed(**fitted.weights), fitted.model
    # What is fastest may differ between the machines that share the rows; the first has decided for all.
    asked_of = open_policy(tuned, transitions, descriptions, fitted.precision)
    again = None
    if fitted.near:
        exact = open_policy(tuned, transitions, descriptions, "float32")
        again = Again.of(exact, fitted.near)
    rows_of = bulk.answerer(asked_of, scorer, weight, TOP, MODEL_TOP, again)

    def answer(part: range | Ints) -> Filled:
        began = time.perf_counter()
        if isinstance(part, range):
            found = rows_of(part)
        else:
            found = bulk.answer_some(asked_of, part, scorer, weight, TOP, MODEL_TOP, again=again)
        return found, time.perf_counter() - began

    return answer


def _ranker(answered: RankedPairs, scorer: Scorer, K: int, top: int) -> Callable[[range | Ints], Filled]:
    """As `_answerer`, of a model whose answers are there already: all is evidence."""
    M = len(answered.ranking)
    n = min(top, M)

    def answer(part: range | Ints) -> Filled:
        began = time.perf_counter()
        context = np.concatenate([row_of(c, M, K) for c in part]) if isinstance(part, range) else part
        found = bulk.ranked_by_evidence(context, scorer, M, n, min(n, MODEL_TOP))
        own = answered.ranking[context[:, -2], context[:, -1]][:, : found["model"].shape[1]]
        found["model"] = -1
        found["model"][:, : own.shape[1]] = own
        return (found.reshape(len(part), M) if isinstance(part, range) else found), time.perf_counter() - began

    return answer


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
