"""What a language model adds: found where it knows something, and nothing where it knows nothing."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byway.evaluation import worth
from byway.transitions.counts import Successors
from byway.transitions.curate import Ints, Samples, Transitions
from byway.transitions.signals import by_place

M = 40


def transitions(seed: int = 0, n: int = 12000) -> tuple[Transitions, NDArray[np.float64]]:
    """A log, and [M, M, M] the truth that it was drawn from: how likely each comes after each pair."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(0.1, size=(M, M, M))
    for c in range(M):
        truth[c, :, c] = truth[:, c, c] = 0
    truth /= truth.sum(axis=2, keepdims=True)
    context = rng.integers(0, M, (n, 2)).astype(np.int32)
    context = context[context[:, 0] != context[:, 1]]
    label = np.array(
        [min(M - 1, int(np.searchsorted(truth[a, b].cumsum(), rng.random()))) for a, b in context], np.int32
    )
    parts = [
        Samples(context[rows], label[rows], np.ones(len(rows), np.int32))
        for rows in np.split(np.arange(len(label)), [len(label) // 3, 2 * len(label) // 3])
    ]
    return Transitions(2, M, True, *parts, parts[0]), truth


def knows(truth: NDArray[np.float64], reliability: float) -> Any:
    """A model that ranks by the truth, or, so much less often, at random."""
    rng = np.random.default_rng(1)

    def ask(pairs: Ints, allowed: NDArray[np.bool_], successors: Successors) -> NDArray[np.float64]:
        score = np.where(rng.random((len(pairs), 1)) < reliability, truth[pairs[:, 0], pairs[:, 1]], 0)
        score = np.where(allowed, score + 1e-3 * rng.random(score.shape), -1)
        best = np.argsort(-score, axis=1)[:, :5].astype(np.int32)
        ranking = np.where(np.take_along_axis(allowed, best, 1), best, np.int32(-1))
        return by_place(ranking, np.where(allowed, np.arange(M, dtype=np.int32), np.int32(-1)), M)

    return ask


@pytest.mark.parametrize("part", ["all", "unseen pairs", "new interests"])
def test_a_model_that_knows_is_worth_something_and_one_that_guesses_nothing(part: str) -> None:
    log, truth = transitions()
    gains = {}
    for reliability in (0.0, 0.5, 1.0):
        found = worth.worth(log, np.eye(M), knows(truth, reliability), 4000, np.random.default_rng(0))
        gains[reliability] = found["parts"][part]["adds"]["nats"]
    assert gains[0.0]["high"] < 0.05
    assert gains[0.0]["low"] < 0.01
    assert gains[0.5]["low"] > 0.05
    assert gains[0.5]["high"] < gains[1.0]["low"]


def test_the_table_holds_each_signal_by_itself() -> None:
    log, truth = transitions(n=2000)
    found = worth.worth(log, np.eye(M), knows(truth, 1.0), 600, np.random.default_rng(0))
    table = found["parts"]["all"]["table"]
    assert set(table) == {"counts", "similarity", "popularity", "language_model", worth.WITHOUT, worth.WITH}
    assert table[worth.WITH]["nats"] > table[worth.WITHOUT]["nats"] > -np.log(M - 2) - 0.1
    # Of new interests the counts know nothing.
    assert set(found["parts"]["new interests"]["table"]) == {
        "similarity", "language_model", worth.WITHOUT, worth.WITH,
    }  # fmt: skip


def test_nothing_is_new_to_a_model_that_learned_from_the_log() -> None:
    log, truth = transitions(n=2000)
    found = worth.worth(log, np.eye(M), knows(truth, 1.0), 600, np.random.default_rng(0), new=False)
    assert set(found["parts"]) == {"all", "unseen pairs"}


def test_a_conditional_logit_finds_the_weights_that_drew_the_choices() -> None:
    rng = np.random.default_rng(0)
    said = {name: rng.normal(size=(8000, M)) for name in ("counts", "language_model")}
    score = 0.7 * said["counts"] + 1.4 * said["language_model"] + rng.gumbel(size=(8000, M))
    label = score.argmax(axis=1).astype(np.int32)
    samples = Samples(np.zeros((8000, 2), np.int32), label, np.ones(8000, np.int32))
    turns = worth.Turns(samples, np.ones((8000, M), np.bool_), said)
    found = worth._fitted(turns, ("counts", "language_model"))
    assert found == pytest.approx({"counts": 0.7, "language_model": 1.4}, abs=0.05)
