"""Lessons: which prompts one step reads, and what is to be learned from them.

Owns the targets and how examples are drawn. It knows transitions and what else speaks for a cluster, but no
tokens, models or losses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.language import offset
from byway.transitions.curate import Ints, Samples, Transitions
from byway.transitions.signals import Scorer
from byway.transitions.triples import outside

SHARPNESS = 4.0
"""With the whole log: the power to which what is special about a context is raised before it is learned, since a
posterior hardly differs from context to context."""
BRANCHING = 64
"""Examples a step that are followed below the trie's first branching, where names share a first token: to read them
all could cost as much as the rest of the step."""
CONTEXTS = 600
"""Contexts a step at the most, where K is not 2: the grid of all K-tuples grows too fast."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Single (context, label) examples of a batch."""

    row: NDArray[np.int64]
    label: NDArray[np.int64]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts of one step and what is to be learned from them."""

    context: Ints
    """[N, K] different contexts."""
    target: NDArray[np.float32]
    """[N, M] what is to be answered; sums to 1."""
    named: Examples
    """Those whose whole answer is learned."""
    grid: NDArray[np.int64] | None
    """Clusters whose ordered pairs are the contexts, where they are."""
    branching: Examples
    """Those that are followed below the first branching; they weigh as much as all whose names go on there."""
    offset: NDArray[np.float32] | None = None
    """[N, M] log-probability of each cluster by what the model is to learn nothing of; -inf in the context."""


def draw(
    transitions: Transitions,
    evidence: Scorer,
    branching: NDArray[np.bool_],
    settings: config.LanguageModel,
    rng: np.random.Generator,
) -> Batch:
    """The batch of one step; `branching` [M] says whose names go on below what is chosen at the cue.

    Curated samples, and all of them under causal attention: `batch`, drawn by their counts. The whole log under
    block attention: every context among a few random clusters, since a cluster's block is read once and serves all
    of them; their target is the log's own posterior, and the similarity of items where it has shown its worth
    (`signals`), since hard labels of single transitions are mostly noise.

    The posterior is divided by the labels' popularity: the log knows what is popular, and the model is there to say
    what is special about a context. It hardly differs from context to context, so it is also raised to the power
    `SHARPNESS`. Curated samples are learned as they were drawn.

    None of this is so where the target is "transitions": see `_as_happened`.
    """
    if settings.target == "transitions":
        return _as_happened(transitions.train, evidence, branching, settings, rng)
    samples, M = transitions.samples, transitions.clusters
    K, grid = samples.context.shape[1], None
    if settings.attention == "causal" or not transitions.whole_log:
        chosen = rng.choice(len(samples), settings.batch, p=samples.count / samples.count.sum())
        context, row = np.unique(samples.context[chosen], axis=0, return_inverse=True)
        target = np.zeros((len(context), M))
        np.add.at(target, (row.reshape(-1), samples.label[chosen]), 1)
    else:
        members = rng.choice(M, min(M, settings.block_clusters), replace=False)
        grids = np.meshgrid(*[members] * K, indexing="ij")
        context = np.stack(grids, axis=-1).reshape(-1, K).astype(np.int32)
        if K == 2:
            grid = members
        elif len(context) > CONTEXTS:
            context = context[np.sort(rng.choice(len(context), CONTEXTS, replace=False))]
        frequency = np.bincount(samples.label, samples.count, minlength=M) + 1e-3
        score = evidence(context) - np.log(frequency / frequency.sum())
        target = np.exp(SHARPNESS * (score - score.max(axis=1, keepdims=True)))
        target *= outside(context, M)
        target /= target.sum(axis=1, keepdims=True)
    target /= max(target.sum(), 1e-30)
    # Each name is named equally often, where it is most special: a name has to be learned whatever its frequency.
    named = _sampled(target / np.maximum(target.sum(axis=0), 1e-30), settings.batch, rng)
    below = _sampled(np.where(branching, target, 0), min(BRANCHING, 2 * int(branching.sum())), rng)
    return Batch(context, target.astype(np.float32), named, grid, below)


def _as_happened(
    log: Samples,
    others: Scorer,
    branching: NDArray[np.bool_],
    settings: config.LanguageModel,
    rng: np.random.Generator,
) -> Batch:
    """`batch` contexts drawn from the training log by their counts, each with all its labels as often as they came,
    beside the log-score of the `others` as offset.

    Whose name is spoken is drawn from all clusters and not from what came: what follows in a context would be
    learned a second time there, without the offset.
    """
    chosen = rng.choice(len(log), settings.batch, p=log.count / log.count.sum())
    context, times = np.unique(log.context[chosen], axis=0, return_counts=True)
    row, of = np.nonzero((context[:, None] == log.context).all(axis=2))
    target = np.zeros((len(context), len(branching)), np.float32)
    target[row, log.label[of]] = log.count[of]
    target *= (times / settings.batch / target.sum(axis=1))[:, None]
    named = Examples(
        rng.integers(len(context), size=settings.batch),
        rng.integers(len(branching), size=settings.batch),
        np.ones(settings.batch, np.float32),
    )
    below = _sampled(np.where(branching, target, 0), BRANCHING, rng)
    by_others = offset.normalised(others(context), context).astype(np.float32)
    return Batch(context, target, named, None, below, by_others)


def contextual(evidence: Scorer, K: int, M: int) -> Scorer:
    """The same signals, with weight 0 for those that say the same in every context, as popularity does.

    `draw` divides what is liked anywhere out of the target. Such a signal would put it back, and the table would
    weigh it again beside the model.
    """
    contexts_MK = np.tile(np.arange(M, dtype=np.int32)[:, None], K)
    scores = {signal.name: signal.scores(contexts_MK) for signal in evidence.signals}
    return evidence.weighed(**{name: 0.0 for name, score in scores.items() if (score == score[:1]).all()})


def _sampled(target_NM: NDArray[np.float64], n: int, rng: np.random.Generator) -> Examples:
    """All examples of the target where they are n or fewer, else n drawn by weight; weights sum to the target's."""
    row, label = np.nonzero(target_NM)
    weight = target_NM[row, label]
    if len(row) > n:
        drawn = rng.choice(len(row), n, p=weight / weight.sum())
        row, label, weight = row[drawn], label[drawn], np.full(n, weight.sum() / n)
    return Examples(row, label, weight.astype(np.float32))
