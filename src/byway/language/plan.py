"""08-transition-table: the answer for every ordered pair of clusters, computed in bulk (paper 1, section 2.2).

The table is a posterior: the fine-tuned model is the prior, the log's counts are the evidence, and how much the
prior weighs is fitted on validation transitions. The model's own ranking is kept beside it.
"""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway import config
from byway.artifact import Outcome, Work, write_atomic
from byway.errors import UserError
from byway.interests.describe import Descriptions
from byway.language import models, prompts
from byway.language.counts import Successors
from byway.language.curate import Samples, Transitions, pick
from byway.language.generate import (
    Adjust,
    Asked,
    Choices,
    Policy,
    ask,
    ask_cue,
    ask_row,
    policy,
    read_blocks,
    read_instruction,
    top,
)
from byway.language.reading import Back
from byway.language.tune import Tuned
from byway.progress import bar

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0)
VALIDATED = 3000
"""Validation transitions on which the prior's weight is fitted."""


@dataclass(frozen=True, slots=True)
class Table:
    """For every (C1, C2), the best novel clusters, best first; -1 where fewer are legal."""

    clusters: NDArray[np.int32]
    """[M, M, n] what is served."""
    scores: NDArray[np.float32]
    """[M, M, n] log-probability, up to a constant a pair."""
    model: NDArray[np.int32]
    """[M, M, n] the fine-tuned model alone."""


def load(path: Path) -> Table:
    """Read 08-transition-table, memory-mapped."""
    return Table(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in ("clusters", "scores", "model")))


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
) -> Outcome:
    """Fill the table, a few rows at a time; a row that is there is not computed again."""
    if transitions.train.context.shape[1] != 2:
        raise UserError(
            "The table answers pairs: set transitions.history = 2, or stop with --until language_model."
        )
    asked_of = open_policy(tuned, transitions, descriptions, knobs)
    M = transitions.clusters
    started = time.perf_counter()
    successors = Successors.of(transitions)
    weight = fit(asked_of, transitions.validation, successors, work.rng)
    size = knobs.rows_per_chunk if asked_of.attention == "block" else 1
    chunks = [range(start, min(start + size, M)) for start in range(0, M, size)]
    path_of = {rows.start: work.scratch / f"rows-{rows.start:06d}.npy" for rows in chunks}
    left = [rows for rows in chunks if not path_of[rows.start].exists()]
    with bar("transition table", M, M - sum(map(len, left))) as advance:
        for rows, found in answer(asked_of, left, successors, weight, knobs.top):
            write_atomic(path_of[rows.start], _bytes(found))
            advance(len(rows))
    whole = np.concatenate([np.load(path) for _, path in sorted(path_of.items())])
    np.save(work.out / "clusters.npy", whole["cluster"])
    np.save(work.out / "scores.npy", whole["score"])
    np.save(work.out / "model.npy", whole["model"])
    seconds = time.perf_counter() - started
    pair = np.arange(M)
    illegal = (
        (whole["cluster"] < 0)
        | (whole["cluster"] >= M)
        | (whole["cluster"] == pair[:, None, None])
        | (whole["cluster"] == pair[None, :, None])
    )
    return Outcome(
        counts={"pairs": M * M},
        metrics={
            "table.entries": M * M,
            "table.legal": round(float(1 - illegal[:, :, 0].mean()), 6),
            "table.distinct": len(np.unique(whole["cluster"][:, :, 0])),
            "table.prior_weight": weight,
            "table.seconds": round(seconds, 1),
            "table.pairs_per_second": round(sum(map(len, left)) * M / seconds, 1),
        },
    )


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@torch.no_grad()
def answer(
    asked_of: Policy, chunks: list[range], successors: Successors, weight: float, n: int
) -> Iterator[tuple[range, NDArray[Any]]]:
    """The best n clusters of every pair, for a few rows at a time: [rows, M, n] with cluster, score, model."""
    M = asked_of.clusters
    ready = ready_rows(asked_of)
    for rows in chunks:
        first = np.repeat(np.asarray(rows, dtype=np.int32), M)
        context = np.column_stack([first, np.tile(np.arange(M, dtype=np.int32), len(rows))])
        excluded = np.zeros((len(context), M), dtype=bool)
        np.put_along_axis(excluded, context.astype(np.int64), True, axis=1)
        evidence = np.log(successors.probability(context)).astype(np.float32)
        adjusts: list[Adjust] = [partial(_posterior, evidence, weight), lambda log_p: log_p]
        posterior, model = top(asked_of, ready(rows), n, excluded, adjusts)
        found = np.empty((len(rows), M, n), dtype=[("cluster", "i4"), ("score", "f4"), ("model", "i4")])
        found["cluster"], found["score"], found["model"] = (
            part.reshape(len(rows), M, n) for part in (*posterior, model[0])
        )
        yield rows, found


def _posterior(evidence: NDArray[np.float32], weight: float, log_p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probability under counts and model together, up to a constant a prompt."""
    return (evidence + weight * log_p).astype(np.float32)


def ready_rows(asked_of: Policy) -> Callable[[range], Asked]:
    """How to ask whole rows of pairs (C1, every C2), in order of C1 and C2; one row at a time where causal.

    Under block attention every description is read once a slot for the whole table, and a pair costs its cue.
    Under causal attention the instruction is read once for the table and C1 once a row.
    """
    prompt, every = asked_of.prompt, np.arange(asked_of.clusters)
    instruction = Back(read_instruction(asked_of), "all")
    if asked_of.attention == "block":
        blocks = read_blocks(asked_of, [every, every], instruction.reading)
        first, second = blocks.part(range(len(every))), blocks.part(range(len(every), 2 * len(every)))
        columns = Back(second.turned(), "columns")

        def grid(rows: range) -> Asked:
            own = Back(first.part(rows), "rows")
            return ask_cue(asked_of, [instruction, own, columns], len(rows), len(every))

        return grid

    def one(rows: range) -> Asked:
        (row,) = rows
        return ask_row(asked_of, instruction, prompt.slots[0][row])

    return one


def _recall_at_10(score: NDArray[Any], samples: Samples) -> float:
    """Share of the samples whose label is among the ten best clusters outside its context."""
    at = np.arange(len(samples))[:, None]
    score = score.copy()
    score[at, samples.context] = -np.inf
    rank = (score > score[at, samples.label[:, None]]).sum(1)
    return float(np.average(rank < 10, weights=samples.count))


@torch.no_grad()
def fit(asked_of: Policy, validation: Samples, successors: Successors, rng: np.random.Generator) -> float:
    """The exponent of the model's probability beside the counts', by recall at 10 on validation transitions."""
    samples = pick(validation.several(), VALIDATED, rng)
    contexts, row = np.unique(samples.context, axis=0, return_inverse=True)
    parts = np.array_split(contexts, max(1, len(contexts) // 256))
    log_p = np.concatenate([Choices(asked_of, ask(asked_of, part)).resolve_all() for part in parts])
    log_p, evidence = log_p[row.reshape(-1)], np.log(successors.probability(samples.context))
    recall = [_recall_at_10(evidence + weight * log_p, samples) for weight in WEIGHTS]
    return WEIGHTS[int(np.argmax(recall))]
