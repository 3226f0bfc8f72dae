"""What a language model says beyond an offset: held-out nats, and what an untuned one knows of it before training.

Owns the figures, and how every name's log-probability is read for them. It does not know how a model is trained.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import config, metrics, models, precision
from byway.language import offset, prompts
from byway.language.fast.bulk import WEIGHTS, ready_some
from byway.language.fast.generate import Choices, Policy, policy
from byway.language.trie import Trie
from byway.transitions.curate import Ints, Samples, Transitions, pick
from byway.transitions.signals import Scorer

TOGETHER = 250
"""Contexts of which every name is read together."""
UNTUNED = 250
"""Validation transitions of whose contexts the untuned model is asked: it takes as long as a few steps."""
DRAWS = 1000
"""Bootstrap draws and permutations."""
FIGURES = ("gain_nats", "gain_nats_low", "gain_nats_high", "gain_nats_fitted", "gain_weight")


@torch.no_grad()
def log_p(asked_of: Policy, context_NK: Ints) -> NDArray[np.float32]:
    """[N, M] log-probability of every legal name, each read to its end."""
    contexts, row = np.unique(context_NK, axis=0, return_inverse=True)
    ready = ready_some(asked_of)
    found = [np.zeros((0, asked_of.clusters), np.float32)]
    for start in range(0, len(contexts), TOGETHER):
        made = Choices(asked_of, ready(contexts[start : start + TOGETHER]))
        while (made.waits_NM >= 0).any():
            rows, names = np.nonzero(made.waits_NM >= 0)
            made.resolve(rows, made.waits_NM[rows, names])
        found.append(made.log_p_NM)
    return np.concatenate(found)[row.reshape(-1)]


def indifferent(trie: Trie) -> NDArray[np.float64]:
    """[M] log-probability of every name where all ways on at a node are equally likely.

    A model taught beside an offset and with nothing to add says this: names that share a beginning share its
    probability. What it does say is its log-probability over this one.
    """
    return np.array([-sum(np.log(len(trie.nodes[node].tokens)) for node, _ in steps) for steps in trie.steps])


def nats(
    said_NM: NDArray[np.floating], others_NM: NDArray[np.floating], some: Samples, weight: float
) -> NDArray[np.float64]:
    """[N] gain in log-probability of each label under softmax(offset + weight · what the model says), over the
    offset's own."""
    at = np.arange(len(some))
    with_model = offset.normalised(others_NM + weight * said_NM, some.context)
    return with_model[at, some.label] - offset.normalised(others_NM, some.context)[at, some.label]


def over(asked_of: Policy, others: Scorer, some: Samples, rng: np.random.Generator) -> dict[str, float]:
    """Nats a transition that the model adds to what the others say, on transitions that neither has seen.

    `gain_nats` has the model's log-probability at weight 1, as it was taught, with its 95% interval by bootstrap
    over contexts; `gain_nats_fitted` at the best weight of a grid that holds 0, `gain_weight`, chosen on these same
    transitions. Nothing where there are none.
    """
    if not len(some):
        return {}
    score = others(some.context)
    said = log_p(asked_of, some.context) - indifferent(asked_of.trie)
    gains = {weight: nats(said, score, some, weight) for weight in WEIGHTS}
    best = max(WEIGHTS, key=lambda weight: float(gains[weight] @ some.count))
    _, of = np.unique(some.context, axis=0, return_inverse=True)
    sums = (np.bincount(of.reshape(-1), each) for each in (some.count * gains[1.0], some.count))
    at_one = metrics.ratio(*sums, metrics.draws(int(of.max()) + 1, DRAWS, rng))
    fitted = float(gains[best] @ some.count / some.count.sum())
    values = (at_one.mean, at_one.low, at_one.high, fitted, best)
    return {f"{name}.validation": round(value, 5) for name, value in zip(FIGURES, values, strict=True)}


def untuned(
    settings: config.LanguageModel,
    names: list[str],
    transitions: Transitions,
    others: Scorer,
    rng: np.random.Generator,
) -> dict[str, float]:
    """`correlation` of the model before fine-tuning with what the others leave; empty without validation.

    It is asked as one that was taught no prompt: with the ending that says what is asked for, from left to right.
    """
    some = pick(transitions.validation.several(), UNTUNED, rng)
    if not len(some):
        return {}
    tokenizer = models.load_tokenizer(settings.model)
    prompt = prompts.tokenise(names, some.context.shape[1], tokenizer, prompts.ENDINGS["block"])
    model = models.load(settings.model, precision.dtype(settings.precision))
    contexts = np.unique(some.context, axis=0)
    return correlation(log_p(policy(model, prompt, "causal"), contexts), others(contexts), contexts, some, rng)


def correlation(
    said_NM: NDArray[np.floating],
    others_NM: NDArray[np.floating],
    context_NK: Ints,
    some: Samples,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How what a model says of N different contexts goes with what the offset leaves of the transitions from them.

    r = Σ x·e / √(Σ x² · Σ e²) over contexts and names outside them, where x is the model's log-probability less its
    mean in the context, and e how often the name followed less how often it should by the offset, n·p. It is not
    divided by √(n·p·(1 - p)): so Σ x·e is the slope of the log-likelihood in the model's weight, at weight 0.
    `low` and `high` hold 95% of the correlations with e of other contexts, by permutation, and `z` is the distance
    from their mean in standard deviations. That mean need not be 0: a model may know what is liked anywhere.
    """
    place = {tuple(each): row for row, each in enumerate(context_NK.tolist())}
    row = [place[tuple(each)] for each in some.context.tolist()]
    log_p_NM = offset.normalised(others_NM, context_NK)
    legal = np.isfinite(log_p_NM)
    followed = np.zeros(legal.shape)
    np.add.at(followed, (row, some.label), some.count)
    e = np.where(legal, followed - followed.sum(axis=1, keepdims=True) * np.exp(log_p_NM), 0)
    x = np.where(legal, said_NM - said_NM.mean(axis=1, keepdims=True, where=legal), 0)
    together = x @ e.T
    at, scale = np.arange(len(x)), max(float(np.sqrt((x**2).sum() * (e**2).sum())), 1e-30)
    by_chance = np.array([together[at, rng.permutation(len(x))].sum() for _ in range(DRAWS)]) / scale
    r, (low, high) = float(np.trace(together)) / scale, np.quantile(by_chance, [0.025, 0.975])
    z = (r - float(by_chance.mean())) / max(float(by_chance.std()), 1e-12)
    values: dict[str, Any] = {"correlation": r, "low": float(low), "high": float(high), "z": z}
    return {name: round(value, 5) for name, value in values.items()}
