"""What a language model adds to what the log says already: nats and recall on turns that came later.

The log's signals are weighed with the model and without it, by likelihood on validation turns, and both are judged
on held-out turns: all of them, those from pairs that the log never saw, and a choice among *new interests*, whose
every turn is kept from the counts as after a new partition. The simple opponents stand beside it. It knows
transitions and rankings; who is asked, and how, is its caller's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.transitions.counts import Successors
from byway.transitions.curate import Ints, Samples, Transitions, pick
from byway.transitions.signals import Scorer, Signal, Similarity, among, likeliest
from byway.transitions.triples import outside

Floats = NDArray[np.float64]
Weights = dict[str, float]
"""By signal."""
Ask = Callable[[Ints, NDArray[np.bool_], Successors], Floats]
"""Who is asked: for pairs [P, 2] with the interests that are allowed [P, M] and what the log counts, what the model
says for each [P, M], in nats (`signals.by_place`)."""

NEW = 0.2
"""Share of the interests whose turns are kept from the log to be new; as many again, to weigh signals on."""
DRAWS = 1000
"""Bootstrap draws for an interval."""
RIDGE = 1e-3
"""Of the squared weights, an average turn: it keeps a signal finite that never fails on a small sample."""
WITHOUT, WITH = "the log's signals", "with the model"


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns to new interests, and what each signal says of the interests that could have been chosen."""

    samples: Samples
    allowed: NDArray[np.bool_]
    """[N, M] the choice."""
    said: dict[str, Floats]
    """[N, M] by signal."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How well turns were foretold, turn by turn."""

    nats: Floats
    """[N] log-probability of what was chosen."""
    rank: NDArray[np.int64]
    """[N] its place, from 0."""


def worth(
    transitions: Transitions,
    similarity_MM: Floats,
    ask: Ask,
    n: int,
    rng: np.random.Generator,
    *,
    new: bool = True,
) -> dict[str, Any]:
    """Figures by part (`all`, `unseen pairs`, `new interests`) and by what foretells; weights; how many were asked.

    About `n` pairs are asked: a third to weigh signals on, the rest to judge on. Where K is 3 a context counts by
    its last two interests. `new` says whether any interest can be new to the model: none is to one that has learned
    from this log.
    """
    M = transitions.clusters
    successors = Successors.of(transitions)
    fit_on, judge_on = (
        _turns(pick(part.several(), n // 3, rng), successors, similarity_MM, ask, np.ones(M, np.bool_))
        for part in (transitions.validation, transitions.heldout)
    )
    weights, judged = _judged(fit_on, judge_on)
    parts: dict[str, Any] = {}
    counts = judge_on.samples.count
    unseen = ~successors.seen(judge_on.samples.context)
    for name, rows in (("all", np.ones(len(counts), np.bool_)), ("unseen pairs", unseen)):
        if rows.sum() >= 10:
            parts[name] = _figures(judged, counts, rows, 10, rng)
    asked = [fit_on, judge_on]
    apart = _new_interests(transitions, similarity_MM, ask, n // 6, rng) if new else None
    if apart is not None:
        _, judged = _judged(*apart)
        counts = apart[1].samples.count
        parts["new interests"] = _figures(judged, counts, np.ones(len(counts), np.bool_), 1, rng)
        asked += apart
    pairs = sum(len(np.unique(turns.samples.context[:, -2:], axis=0)) for turns in asked)
    return {"parts": parts, "weights": weights[WITH], "asked": pairs}


def _judged(fit_on: Turns, judge_on: Turns) -> tuple[dict[str, Weights], dict[str, Judged]]:
    """The weights of all that foretells, and how well it does so on other turns."""
    weights = {name: _fitted(fit_on, signals) for name, signals in _sets(fit_on).items()}
    return weights, {name: _judge(judge_on, own) for name, own in weights.items()}


def _sets(turns: Turns) -> dict[str, tuple[str, ...]]:
    """What foretells: each signal by itself, all of the log's, and these with the model."""
    log = tuple(name for name in turns.said if name != "language_model")
    alone = {name: (name,) for name in (*log, "language_model")}
    return {**alone, WITHOUT: log, WITH: (*log, "language_model")}


def _turns(
    samples: Samples, successors: Successors, similarity_MM: Floats, ask: Ask, choice_M: NDArray[np.bool_]
) -> Turns:
    """Ask about the pairs of some samples, and gather what all signals say of the choice outside each context.

    Where the choice is not among all, counts and popularity know nothing of it.
    """
    M = len(choice_M)
    pairs, row = np.unique(samples.context[:, -2:], axis=0, return_inverse=True)
    model = ask(pairs.astype(np.int32), choice_M & outside(pairs, M), successors)[row.reshape(-1)]
    own = choice_M & outside(samples.context, M)
    known: Sequence[Signal] = [Similarity(similarity_MM)]
    if choice_M.all():
        known = Scorer.from_counts(successors, similarity_MM).signals
    said = {signal.name: np.broadcast_to(signal.scores(samples.context), own.shape) for signal in known}
    return Turns(samples, own, {**said, "language_model": model})


def _new_interests(
    transitions: Transitions, similarity_MM: Floats, ask: Ask, n: int, rng: np.random.Generator
) -> tuple[Turns, Turns] | None:
    """Turns to interests that the counts know nothing of, to weigh and to judge on; None where there are too few.

    The choice is among the new ones alone: with the old ones in it whoever has counts would win by knowing nothing.
    """
    M = transitions.clusters
    some = round(NEW * M)
    if some < 4:
        return None
    order = rng.permutation(M)
    found: list[Turns] = []
    new = np.zeros(M, np.bool_)
    new[order[: 2 * some]] = True
    old = ~new[transitions.train.label] & ~new[transitions.train.context].any(axis=1)
    successors = Successors.count(_some(transitions.train, old), M)
    for own, source in ((order[:some], transitions.validation), (order[some : 2 * some], transitions.heldout)):
        choice = np.zeros(M, np.bool_)
        choice[own] = True
        rows = choice[source.label] & ~new[source.context].any(axis=1)
        samples = _some(source, rows).several()
        if len(samples) < 30:
            return None
        found.append(_turns(pick(samples, n, rng), successors, similarity_MM, ask, choice))
    return found[0], found[1]


def _some(samples: Samples, rows: NDArray[np.bool_]) -> Samples:
    return Samples(samples.context[rows], samples.label[rows], samples.count[rows])


def _fitted(turns: Turns, signals: Sequence[str]) -> Weights:
    """The weights under which the turns are likeliest."""
    said = [turns.said[name] for name in signals]
    none = np.zeros(len(signals))
    found = likeliest(said, turns.allowed, turns.samples, none, none + 2 * RIDGE)
    return {name: float(weight) for name, weight in zip(signals, found, strict=True)}


def _judge(turns: Turns, weights: Weights) -> Judged:
    log_p = among(sum(weight * turns.said[name] for name, weight in weights.items()), turns.allowed)
    own = log_p[np.arange(len(log_p)), turns.samples.label]
    # Ties count against what was chosen, half of them: a ranking that names few interests ties all others.
    better = (log_p > own[:, None]).sum(axis=1)
    tied = (log_p == own[:, None]).sum(axis=1) - 1
    return Judged(own, better + (tied + 1) // 2)


def _figures(
    judged: dict[str, Judged], count: Ints, rows: NDArray[np.bool_], k: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Nats and recall at k of each, and what the model adds, with intervals over turns."""
    weight = count[rows].astype(np.float64)
    draws = rng.multinomial(len(weight), np.full(len(weight), 1 / len(weight)), DRAWS) * weight
    table = {
        name: {
            "nats": round(float(np.average(each.nats[rows], weights=weight)), 4),
            f"recall_at_{k}": round(float(np.average(each.rank[rows] < k, weights=weight)), 4),
        }
        for name, each in judged.items()
    }
    before, after = judged[WITHOUT], judged[WITH]
    gains = {
        "nats": after.nats[rows] - before.nats[rows],
        f"recall_at_{k}": (after.rank[rows] < k).astype(float) - (before.rank[rows] < k),
    }
    adds = {name: _interval(gain, weight, draws) for name, gain in gains.items()}
    return {"turns": int(weight.sum()), "k": k, "table": table, "adds": adds}


def _interval(gain: Floats, weight: Floats, draws: Floats) -> dict[str, float]:
    means = draws @ gain / draws.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.average(gain, weights=weight))
    return {"mean": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4)}
