"""08-transition-table: the answer for every ordered pair of clusters, computed in bulk (paper 1, section 2.2).

The table is a posterior: the fine-tuned model is the prior, the log's counts and how alike the clusters' items are
make the evidence, and how much each weighs is fitted on validation transitions. The model's own ranking is kept
beside it.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from byway import config
from byway.artifact import Outcome, Work, write_atomic
from byway.errors import UserError
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import align, models, prompts
from byway.language.counts import Evidence, Successors
from byway.language.curate import Ints, Samples, Transitions, pick
from byway.language.generate import (
    TOGETHER,
    Adjust,
    Asked,
    Policy,
    ask,
    ask_cue,
    ask_row,
    best_first,
    policy,
    read_blocks,
    read_instruction,
    top,
)
from byway.language.reading import Back
from byway.language.triples import MOST, Triples, key
from byway.language.tune import Tuned
from byway.progress import bar

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
VALIDATED = 1500
"""Validation transitions on which the weights are fitted."""
TILES = {"block": 4, "causal": 1}
"""Rows of the table that are computed together, always from a multiple of it. Which numbers stand in one matrix
product decides how they are rounded: with fixed tiles a pair's answer does not depend on how the rows are cut into
chunks, shards and runs."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What stands beside the log's counts in the table."""

    weight: float
    """Exponent of the model's probability."""
    pull: float
    """Exponent of likeness."""


@dataclass(frozen=True, slots=True)
class Again:
    """Who is asked again, in float32, where the model's two best answers are nearly tied."""

    policy: Policy
    ask: Callable[[Ints], Asked]
    near: float
    """Nats."""


@dataclass(frozen=True, slots=True)
class Table:
    """For every (C1, C2), the best novel clusters, best first; -1 where fewer are legal."""

    clusters: NDArray[np.int32]
    """[M, M, n] what is served."""
    scores: NDArray[np.float32]
    """[M, M, n] log-probability, up to a constant a pair."""
    model: NDArray[np.int32]
    """[M, M, m] the fine-tuned model alone; m is `model_top`, and at most n."""
    triples: Triples | None = None
    """The triples that users have, where K is 3; `triples.look_up` reads both."""
    model_triples: Triples | None = None
    """The fine-tuned model alone."""


def load(path: Path) -> Table:
    """Read 08-transition-table, memory-mapped."""

    def mapped(name: str) -> NDArray[Any]:
        return np.load(path / f"{name}.npy", mmap_mode="r")

    table = Table(mapped("clusters"), mapped("scores"), mapped("model"))
    if not (path / "triple_keys.npy").exists():
        return table
    keys = mapped("triple_keys")
    served, own = Triples(keys, mapped("triple_clusters")), Triples(keys, mapped("triple_model"))
    return replace(table, triples=served, model_triples=own)


def open_policy(
    tuned: Tuned, transitions: Transitions, descriptions: Descriptions, knobs: config.TransitionTable
) -> Policy:
    """The fine-tuned language policy, ready to be asked."""
    names = descriptions.names[transitions.level - 1]
    history = transitions.train.context.shape[1]
    prompt = prompts.tokenise(names, history, models.load_tokenizer(str(tuned.path)))
    model = models.load(str(tuned.path), DTYPES[knobs.precision])
    return policy(model, prompt, tuned.attention)


def build(
    work: Work,
    knobs: config.TransitionTable,
    transitions: Transitions,
    descriptions: Descriptions,
    tuned: Tuned,
    vectors: NDArray[np.float32],
    tree: Tree,
) -> Outcome:
    """Fill the table, a few rows at a time; a row that is there is not computed again.

    Where K is 3 a pair (C1, C2) is asked for as (C1, C1, C2), as the log has it for a user with two interests.
    """
    started = time.perf_counter()
    fitted = fill(work, knobs, transitions, descriptions, tuned, vectors, tree)
    M = transitions.clusters
    whole = np.concatenate([np.load(path) for path in sorted(work.scratch.glob("rows-*.npy"))])
    aligned = _align(whole, transitions, knobs.best_of)
    if aligned is not None:
        np.save(work.out / "satisfaction.npy", aligned)
    np.save(work.out / "clusters.npy", whole["cluster"])
    np.save(work.out / "scores.npy", whole["score"])
    np.save(work.out / "model.npy", whole["model"])
    keys = triples_of(transitions, knobs.triples)
    if keys is not None:
        more = [np.load(path) for path in sorted(work.scratch.glob("triples-*.npy"))]
        np.save(work.out / "triple_keys.npy", key(keys, M))
        np.save(work.out / "triple_clusters.npy", np.concatenate([part["cluster"] for part in more]))
        np.save(work.out / "triple_model.npy", np.concatenate([part["model"] for part in more]))
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
            "table.prior_weight": fitted.weight,
            "table.likeness_pull": fitted.pull,
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


def _align(whole: NDArray[Any], transitions: Transitions, best_of: int) -> NDArray[np.float32] | None:
    """Order the first `best_of` clusters of every pair, in place, by expected satisfaction; returns it, [M, M, n].

    The second score is aggregated feedback, pointwise; None where `best_of` is 0.
    """
    if not best_of:
        return None
    if transitions.feedback is None:
        raise UserError("transition_table.best_of needs the log's feedback: set transitions.feedback = true.")
    M, K = len(whole), transitions.train.context.shape[1]
    satisfaction = align.Satisfaction.of(transitions.feedback, M)
    expected = np.empty(whole["cluster"].shape, np.float32)
    for c1 in range(M):
        context = np.column_stack([np.full((M, K - 1), c1), np.arange(M)])
        found = satisfaction.expected(context, whole["cluster"][c1])
        order = align.pick(found, best_of)
        expected[c1] = np.take_along_axis(found, order, 1)
        for name in ("cluster", "score"):
            whole[name][c1] = np.take_along_axis(whole[name][c1], order, 1)
    return expected


def fill(
    work: Work,
    knobs: config.TransitionTable,
    transitions: Transitions,
    descriptions: Descriptions,
    tuned: Tuned,
    vectors: NDArray[np.float32],
    tree: Tree,
    shard: tuple[int, int] = (1, 1),
) -> Fitted:
    """Compute into scratch the rows of shard i of n that are not there yet; returns how the table was weighed.

    Shards take chunks of rows in turn. They share nothing but the scratch directory, so that they may run at the
    same time, on one machine or on several; the rows are the same bytes however many there are (`TILES`).
    """
    if transitions.train.context.shape[1] not in (2, 3) or transitions.clusters > MOST:
        raise UserError(
            "The table answers pairs and triples: set transitions.history to 2 or 3, or stop with "
            "--until language_model."
        )
    M, (number, shards) = transitions.clusters, shard
    tile = TILES[tuned.attention]
    size = -(-knobs.rows_per_chunk // tile) * tile
    chunks = [range(start, min(start + size, M)) for start in range(0, M, size)][number - 1 :: shards]
    path_of = {rows.start: work.scratch / f"rows-{rows.start:06d}.npy" for rows in chunks}
    left = [rows for rows in chunks if not path_of[rows.start].exists()]
    triples = triples_of(transitions, knobs.triples)
    parts = range(0, 0 if triples is None else max(1, len(triples)), TOGETHER)[number - 1 :: shards]
    more = {start: work.scratch / f"triples-{start:09d}.npy" for start in parts}
    more = {start: path for start, path in more.items() if not path.exists()}
    known = work.scratch / "fitted.json"
    fitted = msgspec.json.decode(known.read_bytes(), type=Fitted) if known.exists() else None
    if fitted and not (left or more):
        return fitted
    asked_of = open_policy(tuned, transitions, descriptions, knobs)
    evidence = Evidence(Successors.of(transitions), tree.alike(vectors, transitions.level))
    if fitted is None:
        fitted = fit(asked_of, transitions.validation, evidence, work.rng)
        write_atomic(known, msgspec.json.encode(fitted))
    evidence, weight = replace(evidence, pull=fitted.pull), fitted.weight
    again = None
    if knobs.near and knobs.precision != "float32":
        exact = open_policy(tuned, transitions, descriptions, replace(knobs, precision="float32"))
        again = Again(exact, ready_some(exact), knobs.near)
    total = sum(map(len, chunks))
    with bar("transition table", total, total - sum(map(len, left))) as advance:
        began = time.perf_counter()
        for rows, found in answer(asked_of, left, evidence, weight, knobs.top, knobs.model_top, again):
            path = path_of[rows.start]
            path.with_suffix(".seconds").write_text(f"{time.perf_counter() - began:.3f}", "utf-8")
            write_atomic(path, _bytes(found))
            began = time.perf_counter()
            advance(len(rows))
    if triples is not None:
        with bar("triples", len(parts), len(parts) - len(more)) as advance:
            for start, path in more.items():
                context = triples[start : start + TOGETHER]
                write_atomic(path, _bytes(answer_some(asked_of, context, evidence, weight, knobs, again)))
                advance(1)
    return fitted


def triples_of(transitions: Transitions, most: int) -> Ints | None:
    """[T, 3] the triples of different interests that the training log shows, at most so many, the most frequent
    ones, in order; None where K is not 3."""
    if transitions.train.context.shape[1] != 3:
        return None
    several = transitions.train.several()
    contexts, row = np.unique(several.context, axis=0, return_inverse=True)
    frequency = np.bincount(row.reshape(-1), several.count, len(contexts))
    return contexts[np.sort(np.argsort(-frequency, kind="stable")[:most])]


@torch.no_grad()
def answer_some(
    asked_of: Policy,
    context: Ints,
    evidence: Evidence,
    weight: float,
    knobs: config.TransitionTable,
    again: Again | None = None,
) -> NDArray[Any]:
    """The best clusters of the given contexts: [N] with cluster and score [n], model [m]."""
    n = min(knobs.top, asked_of.clusters)
    found = np.empty(len(context), dtype=_layout(n, min(n, knobs.model_top)))
    if len(context):
        asked, score = ask(asked_of, context), evidence(context)
        served, own = _ranked(asked_of, asked, context, score, weight, n, min(n, knobs.model_top), again)
        found["cluster"], found["score"], found["model"] = *served, own
    return found


def _layout(n: int, m: int) -> list[Any]:
    return [("cluster", "i4", (n,)), ("score", "f4", (n,)), ("model", "i4", (m,))]


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@torch.no_grad()
def answer(
    asked_of: Policy,
    chunks: list[range],
    evidence: Evidence,
    weight: float,
    n: int,
    model_n: int | None = None,
    again: Again | None = None,
) -> Iterator[tuple[range, NDArray[Any]]]:
    """The best clusters of every pair, a chunk of rows at a time: [rows, M] with cluster and score [n], model [m].

    `model_n` is how many of the model's own ranking are wanted; n where it is None or more. A chunk starts at a
    multiple of the tile.
    """
    M, tile = asked_of.clusters, TILES[asked_of.attention]
    n = min(n, M)
    m = min(n, n if model_n is None else model_n)
    ready = ready_rows(asked_of)
    for rows in chunks:
        found = np.empty((len(rows), M), dtype=_layout(n, m))
        for start in range(rows.start, rows.stop, tile):
            part = range(start, min(start + tile, rows.stop))
            first = np.repeat(np.asarray(part, dtype=np.int32), M)
            second = np.tile(np.arange(M, dtype=np.int32), len(part))
            context = np.column_stack([*[first] * (asked_of.prompt.history - 1), second])
            here = found[start - rows.start : start - rows.start + len(part)].reshape(-1)
            served, own = _ranked(asked_of, ready(part), context, evidence(context), weight, n, m, again)
            here["cluster"], here["score"], here["model"] = *served, own
        yield rows, found


def _ranked(
    asked_of: Policy,
    asked: Asked,
    context: NDArray[np.int32],
    evidence: NDArray[np.float32],
    weight: float,
    n: int,
    m: int,
    again: Again | None = None,
) -> tuple[tuple[NDArray[np.int32], NDArray[np.float32]], NDArray[np.int32]]:
    """The n best of every context under evidence and model, and the m best under the model alone.

    bfloat16 errs by hundredths of a nat, so that one first answer in forty is not float32's: all of those are near
    a tie, and are asked `again`.
    """
    excluded = np.zeros((len(context), asked_of.clusters), dtype=bool)
    np.put_along_axis(excluded, context.astype(np.int64), True, axis=1)
    ways: list[Adjust] = [lambda log_p: log_p]
    if not weight:  # the evidence alone: no name has to be read for them
        ((own, scores),) = top(asked_of, asked, m, excluded, ways)
        served = _without(evidence, excluded, n)
    else:
        adjusts = [partial(_posterior, evidence, weight), *ways]
        served, (own, scores) = top(asked_of, asked, (n, m), excluded, adjusts)
    if again is not None and m > 1:
        # Two that are no answers are no tie: their difference is no number.
        with np.errstate(invalid="ignore"):
            near = np.flatnonzero(scores[:, 0] - scores[:, 1] < again.near)
        for rows in np.array_split(near, max(1, len(near) // TOGETHER)):
            if len(rows):
                part = context[rows]
                better, own[rows] = _ranked(again.policy, again.ask(part), part, evidence[rows], weight, n, m)
                served[0][rows], served[1][rows] = better
    return served, own


def _without(
    evidence: NDArray[np.float32], excluded: NDArray[np.bool_], n: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The n best under the evidence alone."""
    score = np.where(excluded, np.float32(-np.inf), evidence)
    best = best_first(score, n)
    own = np.take_along_axis(score, best, 1)
    return np.where(np.isfinite(own), best, -1).astype(np.int32), own


def _posterior(evidence: NDArray[np.float32], weight: float, log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probability under evidence and model together, up to a constant a prompt."""
    return (evidence + weight * log_p).astype(np.float32)


def ready_rows(asked_of: Policy) -> Callable[[range], Asked]:
    """How to ask whole rows of pairs (C1, every C2), in order of C1 and C2; one row at a time where causal.

    Under block attention every description is read once a slot for the whole table, and a pair costs its cue.
    Under causal attention the instruction is read once for the table and C1 once a row. C1 stands in all slots but
    the last.
    """
    prompt, every = asked_of.prompt, np.arange(asked_of.clusters)
    M, K = len(every), prompt.history
    instruction = Back(read_instruction(asked_of), "all")
    if asked_of.attention == "block":
        blocks = read_blocks(asked_of, [every] * K, instruction.reading)
        slots = [blocks.part(range(k * M, (k + 1) * M)) for k in range(K)]
        columns = Back(slots[-1].turned(), "columns")

        def grid(rows: range) -> Asked:
            own = [Back(slot.part(rows), "rows") for slot in slots[:-1]]
            return ask_cue(asked_of, [instruction, *own, columns], len(rows), M)

        return grid

    def one(rows: range) -> Asked:
        (row,) = rows
        first = [token for slot in prompt.slots[:-1] for token in slot[row]]
        return ask_row(asked_of, instruction, first)

    return one


@torch.no_grad()
def ready_some(asked_of: Policy) -> Callable[[Ints], Asked]:
    """How to ask some contexts, now and then: under block attention every description is read once for all."""
    if asked_of.attention != "block":
        return partial(ask, asked_of)
    M, K = asked_of.clusters, asked_of.prompt.history
    instruction = read_instruction(asked_of)
    blocks = read_blocks(asked_of, [np.arange(M)] * K, instruction)

    def some(context_NK: Ints) -> Asked:
        places = [torch.from_numpy(k * M + context_NK[:, k].astype(np.int64)) for k in range(K)]
        back = [Back(instruction, "all"), *(Back(blocks, "rows", place) for place in places)]
        return ask_cue(asked_of, back, len(context_NK), 1)

    return some


@torch.no_grad()
def fit(asked_of: Policy, validation: Samples, evidence: Evidence, rng: np.random.Generator) -> Fitted:
    """The exponents of the model's probability and of likeness beside the counts, by recall at 10 on validation.

    Only the names that may be among the ten best are read to their end: a tenth of what all of them cost.
    """
    samples = pick(validation.several(), VALIDATED, rng)
    contexts, row = np.unique(samples.context, axis=0, return_inverse=True)
    tried = [Fitted(weight, each.pull) for each in evidence.pulled() for weight in WEIGHTS]
    found: list[NDArray[np.int32]] = []
    for context in np.array_split(contexts, max(1, len(contexts) // 256)):
        scores = {each.pull: each(context) for each in evidence.pulled()}
        excluded = np.zeros((len(context), asked_of.clusters), dtype=bool)
        np.put_along_axis(excluded, context.astype(np.int64), True, axis=1)
        n = min(10, asked_of.clusters)
        ways: list[Adjust] = [partial(_posterior, scores[way.pull], way.weight) for way in tried if way.weight]
        read = iter(top(asked_of, ask(asked_of, context), n, excluded, ways))
        listed = [next(read) if way.weight else _without(scores[way.pull], excluded, n) for way in tried]
        found.append(np.stack([clusters for clusters, _ in listed]))
    best = np.concatenate(found, axis=1)[:, row.reshape(-1)]
    hit = (best == samples.label[:, None]).any(axis=2)
    return tried[int(np.argmax(hit @ samples.count))]
