"""What a language model says beyond an offset: held-out nats, and what an untuned one knows of it before training.

Owns the figures, and how every name's log-probability is read for them. It does not know how a model is trained.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import config, metrics, models, precision
from byway.language import offset, prompts
from byway.language.fast.bulk import WEIGHTS, prefiller
from byway.language.fast.choices import TrieSearch
from byway.language.fast.generate import Policy, make_policy
from byway.language.trie import Trie
from byway.transitions.curate import Ints, Samples, Transitions, sampled
from byway.transitions.signals import Scorer

TOGETHER = 250
"""Contexts of which every name is read together."""
UNTUNED, TUNED = 15_000, 60_000
"""Names that are read to their ends, of contexts times clusters, before training and at each evaluation: 250 and
1,000 contexts of 60 clusters."""
FEWEST = 50
"""Contexts in any case."""
DRAWS = 1000
"""Bootstrap draws and permutations."""
FIGURES = ("gain_nats", "gain_nats_low", "gain_nats_high", "gain_nats_table", "gain_weight")


@torch.no_grad()
def log_p(policy: Policy, context_NK: Ints) -> NDArray[np.float32]:
    """[N, M] log-probability of every legal name, each read to its end."""
    contexts, row = np.unique(context_NK, axis=0, return_inverse=True)
    ready = prefiller(policy)
    found = [np.zeros((0, policy.clusters), np.float32)]
    for start in range(0, len(contexts), TOGETHER):
        made = TrieSearch(policy, ready(contexts[start : start + TOGETHER]))
        while (made.pending_NM >= 0).any():
            rows, names = np.nonzero(made.pending_NM >= 0)
            made.expand(rows, made.pending_NM[rows, names])
        found.append(made.log_p_NM)
    return np.concatenate(found)[row.reshape(-1)]


def as_taught(
    trie: Trie, log_p_NM: NDArray[np.floating], others_NM: NDArray[np.floating], context_NK: Ints
) -> NDArray[np.float64]:
    """[N, M] log-probability of every name where each choice down the trie is made by the model's probability of a
    way on, times the share that the offset has below it; -inf in the context."""
    by_others = offset.normalised(others_NM, context_NK)
    found = np.where(np.isfinite(by_others), 0.0, -np.inf)
    for node in trie.nodes:
        score = offset.mass(log_p_NM, node.members) + offset.mass(by_others, node.members)
        score = np.maximum(score, -1e30)  # where all that lies below a node is in the context
        score -= np.logaddexp.reduce(score, axis=1, keepdims=True)
        for option, members in enumerate(node.members):
            found[:, members] += score[:, option : option + 1]
    return found


def nats(
    log_p_NM: NDArray[np.floating], others_NM: NDArray[np.floating], some: Samples, weight: float
) -> NDArray[np.float64]:
    """[N] log-probability of each label by softmax(offset + weight · the model's), less by the offset alone."""
    at = np.arange(len(some))
    both = offset.normalised(others_NM + weight * log_p_NM, some.context)
    return both[at, some.label] - offset.normalised(others_NM, some.context)[at, some.label]


def over(
    policy: Policy, others: Scorer, validation: Samples, most: int, rng: np.random.Generator
) -> dict[str, float]:
    """Nats a transition that the model adds to what the others say, on at most so many that neither has seen.

    `gain_nats` is of the choices as they were taught (`as_taught`), with its 95% interval by bootstrap over
    contexts. `gain_nats_table` is of softmax(offset + weight · log-probability of a name), which a table makes of
    both, at the best weight of a grid that holds 0, `gain_weight`, chosen on these same transitions. The two differ
    where names share beginnings, and so their probabilities. Nothing where there are no transitions.
    """
    if not len(validation):
        return {}
    some = sampled(validation, min(most, max(FEWEST, TUNED // policy.clusters)), rng)
    score, model = others(some.context), log_p(policy, some.context)
    at = np.arange(len(some))
    taught_NM = as_taught(policy.trie, model, score, some.context)
    gained = taught_NM[at, some.label] - offset.normalised(score, some.context)[at, some.label]
    tables = {weight: float(nats(model, score, some, weight) @ some.count / some.count.sum()) for weight in WEIGHTS}
    best = max(WEIGHTS, key=lambda weight: tables[weight])
    _, of = np.unique(some.context, axis=0, return_inverse=True)
    above, below = (np.bincount(of.reshape(-1), each) for each in (some.count * gained, some.count))
    taught = metrics.ratio(above, below, metrics.bootstrap_weights(int(of.max()) + 1, DRAWS, rng))
    values = (taught.mean, taught.low, taught.high, tables[best], best)
    return {f"{name}.validation": round(value, 5) for name, value in zip(FIGURES, values, strict=True)}


def untuned(
    settings: config.LanguageModel,
    arithmetic: str,
    names: list[str],
    transitions: Transitions,
    others: Scorer,
    rng: np.random.Generator,
) -> dict[str, float]:
    """`correlation` of the model before fine-tuning with what the others leave; empty without validation.

    It is asked as one that was taught no prompt: with the ending that says what is asked for, from left to right.
    """
    if not len(transitions.validation.several()):
        return {}
    some = sampled(transitions.validation.several(), max(FEWEST, UNTUNED // len(names)), rng)
    tokenizer = models.load_tokenizer(settings.model)
    prompt = prompts.tokenise(names, some.context.shape[1], tokenizer, prompts.ENDINGS["block"])
    model = models.load(settings.model, precision.dtype(arithmetic))
    contexts = np.unique(some.context, axis=0)
    return correlation(log_p(make_policy(model, prompt, "causal"), contexts), others(contexts), contexts, some, rng)


def correlation(
    said_NM: NDArray[np.floating],
    others_NM: NDArray[np.floating],
    context_NK: Ints,
    some: Samples,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How what a model says of N different contexts goes with what the offset leaves of the transitions from them.

    `correlation` is Σ x·e / √(Σ x² · Σ e²) over contexts and names outside them, where x is the model's
    log-probability less its mean in the context, and e how often the name followed less how often it should by the
    offset, n·p. It is not divided by √(n·p·(1 - p)): so Σ x·e is the slope of the log-likelihood in the model's
    weight, at weight 0. `in_context` is the same with x less each name's mean over the contexts too: what a model
    knows of these very contexts, and not of what is liked anywhere. 95% of its values with e of other contexts, by
    permutation, lie from `low` to `high`, and `z` is its distance from their mean in standard deviations.
    """
    place = {tuple(each): row for row, each in enumerate(context_NK.tolist())}
    row = np.array([place[tuple(each)] for each in some.context.tolist()])
    log_p_NM = offset.normalised(others_NM, context_NK)
    legal = np.isfinite(log_p_NM)
    followed = np.zeros(legal.shape)
    np.add.at(followed, (row, some.label), some.count)
    e = np.where(legal, followed - followed.sum(axis=1, keepdims=True) * np.exp(log_p_NM), 0)
    x = np.where(legal, said_NM - said_NM.mean(axis=1, keepdims=True, where=legal), 0)
    own = np.where(legal, x - x.sum(axis=0) / np.maximum(legal.sum(axis=0), 1), 0)
    own = np.where(legal, own - own.mean(axis=1, keepdims=True, where=legal), 0)
    at, spread = np.arange(len(x)), max(float((e**2).sum()), 1e-30)
    correlation = float((x * e).sum()) / np.sqrt(max(float((x**2).sum()), 1e-30) * spread)
    together = own @ e.T / np.sqrt(max(float((own**2).sum()), 1e-30) * spread)
    by_chance = np.array([together[at, rng.permutation(len(x))].sum() for _ in range(DRAWS)])
    r, (low, high) = float(np.trace(together)), np.quantile(by_chance, [0.025, 0.975])
    z = (r - float(by_chance.mean())) / max(float(by_chance.std()), 1e-12)
    values = (correlation, r, low, high, z)
    names = ("correlation", "in_context", "low", "high", "z")
    return {name: round(float(value), 5) for name, value in zip(names, values, strict=True)}
