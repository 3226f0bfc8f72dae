"""14-metrics: offline figures of the language policy, beside counting and beside the untuned model.

Recall is measured from the table on every held-out transition; free answers, which need decoding, on a sample.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import models, precision
from byway.base.artifact import Gate, Outcome, Work
from byway.base.metrics import gini
from byway.base.ranking import macro_recall_at, ranks_in, recall_at
from byway.evaluation import baselines
from byway.interests.describe import Descriptions
from byway.interests.partition import centroids
from byway.interests.tree import Tree
from byway.language import prompts
from byway.language.fast import reference
from byway.language.fast.bulk import first
from byway.language.fast.generate import Policy, make_policy
from byway.language.tune import Tuned, spoken_answers
from byway.transitions import signals
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.curate import Samples, Transitions, pick, spread_out
from byway.transitions.signals import Scorer
from byway.transitions.table import Table
from byway.transitions.triples import Triples, contexts_of, look_up

KS = (1, 5, 10)
PROMPTS = 500
"""Held-out prompts that are decoded freely: of 500 a match rate of 0.95 has a standard error of 0.01. No more than
five a step of the fine-tuning, for a short run is not worth them."""


AGREEMENT = 100
"""Random pairs on which the table is compared with float32 decoding, a third of a second each. No more than one for
two steps of the fine-tuning."""


def build(
    work: Work,
    *,
    transitions: Transitions,
    descriptions: Descriptions,
    model: Tuned | signals.Ranked,
    table: Table,
    vectors: NDArray[np.float32],
    tree: Tree,
) -> Outcome:
    """Match rate, distinct outputs, recall of the table and of every baseline, label histogram."""
    names = descriptions.names[transitions.level - 1]
    train, heldout = transitions.train.several(), transitions.heldout.several()
    successors = Successors.of(transitions)
    known = successors.seen(heldout.context)
    metrics: dict[str, Any] = {}
    for part, samples in (("train", train), ("heldout", heldout)):
        for name, ranking, triples in (
            ("language", table.clusters, table.triples),
            ("language_model", table.model, table.model_triples),
        ):
            rank = ranks_in_table(ranking, samples, triples)
            if part == "heldout":
                metrics |= recalls(name, rank, samples, known)
            else:
                metrics |= {f"{name}.recall_at_{k}.{part}": recall_at(rank, k, samples.count) for k in KS}
    alike = tree.similarity(vectors, transitions.level)
    fitted = Scorer.from_counts(successors, alike).fitted_by_ndcg(transitions.validation, work.rng)
    guesses: dict[str, baselines.Guess] = {
        "popularity": baselines.popularity(successors),
        "successor": successors.probability,
        "successor_fair": baselines.fair(successors),
        "nearest": baselines.nearest(alike),
        "successor_alike": fitted,
        "neural": baselines.neural(transitions, successors, int(work.rng.integers(2**31))),
    }
    # Of the same centroids as `nearest`, beside the same signals as a fixed offset.
    middle = centroids(vectors, tree.assign(transitions.level), transitions.clusters)
    guesses["bilinear"] = baselines.bilinear(transitions, middle, fitted, work.rng.spawn(1)[0])
    for signal in fitted.signals:
        left = fitted.weighed(**{signal.name: 0.0})
        if any(left.all_weights().values()):
            guesses[f"without_{signal.name}"] = left
    for name, guess in guesses.items():
        metrics |= recalls(f"baseline.{name}", ranks_of(guess(heldout.context), heldout), heldout, known)
    metrics |= labels(table.model, "language.labels")
    if isinstance(model, signals.Ranked):
        # An answer is legal by construction; what can be missing is an answer.
        ranked = model.ranking_MMn[heldout.context[:, -2], heldout.context[:, -1], 0]
        metrics["language.match_rate"] = round(float(np.average(ranked >= 0, weights=heldout.count)), 4)
    else:
        metrics |= spoken(model, names, heldout, table, work.rng)
    gates = {
        "match_rate": Gate(value=metrics["language.match_rate"], at_least=0.95),
        "recall_over_popularity": Gate(
            value=metrics["language.recall_at_10.heldout"] - metrics["baseline.popularity.recall_at_10.heldout"],
            at_least=0.0,
        ),
    }
    return Outcome(counts={"heldout": int(heldout.count.sum())}, metrics=metrics, gates=gates)


def spoken(
    tuned: Tuned,
    names: list[str],
    heldout: Samples,
    table: Table,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What the fine-tuned model says freely, how exactly it was asked in bulk, and what it knew before."""
    metrics: dict[str, Any] = {}
    some = pick(heldout, min(PROMPTS, 5 * tuned.curve[-1]["step"]), rng)
    tokenizer = models.load_tokenizer(str(tuned.path))
    history = heldout.context.shape[1]
    prompt = prompts.tokenise(names, history, tokenizer, tuned.ending)
    after = make_policy(models.load(str(tuned.path), precision.dtype("auto")), prompt, tuned.attention)
    outputs = spoken_answers(after, some.context, tokenizer, max(map(len, prompt.answers)) + 2)
    metrics["language.match_rate"] = round(float(np.mean([o in set(names) for o in outputs])), 4)
    metrics["language.distinct_outputs"] = len(set(outputs))
    metrics["language.prompts"] = len(outputs)
    metrics |= agreement(table, tuned, prompt, after, min(AGREEMENT, tuned.curve[-1]["step"] // 2), rng)
    # Who was taught no prompt is asked with the one that says what is asked for.
    spelt = prompts.tokenise(names, history, tokenizer, prompts.ENDINGS["block"])
    before = make_policy(models.load(tuned.base, precision.dtype("auto")), spelt, "causal")
    rank = ranks_in(first(before, some.context, max(KS)), some.label)
    metrics |= {f"baseline.zero_shot.recall_at_{k}.heldout": recall_at(rank, k, some.count) for k in KS}
    outputs = spoken_answers(before, spread_out(some.context, 100), tokenizer, max(map(len, prompt.answers)) + 2)
    metrics["baseline.zero_shot.match_rate"] = round(float(np.mean([o in set(names) for o in outputs])), 4)
    return metrics


def agreement(
    table: Table, tuned: Tuned, prompt: prompts.Prompt, policy: Policy, n: int, rng: np.random.Generator
) -> dict[str, float]:
    """Share of random pairs whose first answer by the model alone is that of float32, unbatched, uncached decoding.

    Beside it the largest gap in nats where they differ: rounding of a tie is small.
    """
    if not n:
        return {}
    pairs = rng.integers(0, len(table.model), (n, 2))
    context = contexts_of(pairs, prompt.history)
    slow = models.load(str(tuned.path), torch.float32)
    first = table.model[pairs[:, 0], pairs[:, 1], 0]
    found = reference.agreement(slow, prompt, policy.trie, tuned.attention, context, first)
    return {
        "table.float32_agreement": round(found.same, 4),
        "table.float32_largest_gap": round(found.largest_gap, 5),
    }


def ranks_in_table(
    ranking_MMn: NDArray[np.int32], samples: Samples, triples: Triples | None = None
) -> NDArray[np.int64]:
    """Rank of each label in its context's list, as `ranks_in`."""
    return ranks_in(look_up(ranking_MMn, triples, samples.context), samples.label)


def recalls(name: str, rank: NDArray[np.int64], samples: Samples, known: NDArray[np.bool_]) -> dict[str, float]:
    """Of held-out transitions: recall, at 10 averaged over labels too, and on contexts the log never shows."""
    unseen = ~known
    return {
        **{f"{name}.recall_at_{k}.heldout": recall_at(rank, k, samples.count) for k in KS},
        f"{name}.macro_recall_at_10.heldout": macro_recall_at(rank, 10, samples.label, samples.count),
        f"{name}.recall_at_10.unseen_pairs": recall_at(rank[unseen], 10, samples.count[unseen]),
    }


def labels(ranking_MMn: NDArray[np.int32], name: str) -> dict[str, Any]:
    """How evenly first answers fall on the clusters, over all pairs (paper 1, figure 3) that have one (-1: none).

    Gini 0 is even, 1 all on one; entropy in nats over that of an even spread; the share of pairs that the most
    frequent 1% of labels take; the share of labels with less than a tenth of an even spread's pairs.
    """
    M = len(ranking_MMn)
    first = ranking_MMn[:, :, 0]
    count = np.sort(np.bincount(first[first >= 0], minlength=M)).astype(np.float64)
    share = count / max(1.0, count.sum())
    positive = share[share > 0]
    return {
        f"{name}.gini": round(gini(count), 4),
        f"{name}.entropy": round(float(-(positive * np.log(positive)).sum() / np.log(M)), 4),
        f"{name}.top1pct_share": round(float(share[-max(1, round(M / 100)) :].sum()), 4),
        f"{name}.rare_share": round(float((count < 0.1 * count.mean()).mean()), 4),
        f"{name}.histogram": count.astype(int).tolist(),
    }
