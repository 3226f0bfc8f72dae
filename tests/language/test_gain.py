"""Figures of what a model adds, on planted truth and against the loss."""

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from byway.language import gain, offset, tune
from byway.language.fast.generate import Attention
from byway.transitions.curate import Samples
from tests.language.conftest import HOSTILE
from tests.language.test_choices import brute_force
from tests.language.test_generate import make
from tests.language.test_offset import batch_beside, drawn

M = len(HOSTILE)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_every_name_is_read_and_a_choice_as_taught_is_that_of_the_loss(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make(tiny, tokenizer, attention)
    some = drawn(9, 2)
    batch = batch_beside(policy, some, np.full(9, 1 / 9, np.float32))
    _, choice = tune.loss(policy, batch, 1.0)
    model = gain.log_p(policy, batch.context)
    np.testing.assert_allclose(model[3], brute_force(tiny, policy, batch.context[3].tolist()), atol=2e-3)
    assert batch.offset is not None
    found = gain.as_taught(policy.trie, model, batch.offset, batch.context)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-6)
    seen = batch.target > 0
    assert choice.item() == pytest.approx(-float((batch.target[seen] * found[seen]).sum()), abs=1e-3)


def asked(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, Samples]:
    """Contexts, what is true beside a random offset, and transitions drawn by both."""
    rng = np.random.default_rng(seed)
    context = np.unique(drawn(n, 2, seed).context, axis=0)
    true, others = rng.normal(size=(2, len(context), M))
    several = np.repeat(np.arange(len(context)), 5)
    log_p = offset.normalised(true + others, context)[several]
    label = (log_p + rng.gumbel(size=log_p.shape)).argmax(axis=1).astype(np.int32)
    return true, others, Samples(context[several], label, np.ones(len(label), np.int32))


def test_who_knows_what_the_offset_leaves_is_seen_before_any_training() -> None:
    rng = np.random.default_rng(0)
    true, others, some = asked(300, 1)
    context = np.unique(some.context, axis=0)
    knows = gain.correlation(3 * true + 7, others, context, some, rng)
    assert knows["correlation"] > 0.3
    assert knows["z"] > 10
    assert knows["high"] < 0.1 < knows["in_context"]
    for nothing in (rng.normal(size=true.shape), others):
        blind = gain.correlation(nothing, others, context, some, rng)
        assert abs(blind["correlation"]) < 0.1
        assert abs(blind["z"]) < 3.5


def test_what_is_liked_anywhere_is_no_knowledge_of_a_context() -> None:
    """The model knows what all contexts share, which the offset does not: correlation, but none beyond chance."""
    rng = np.random.default_rng(0)
    context = np.unique(drawn(300, 2).context, axis=0)
    usual = np.tile(rng.normal(size=M), (len(context), 1))
    several = np.repeat(np.arange(len(context)), 5)
    log_p = offset.normalised(usual, context)[several]
    label = (log_p + rng.gumbel(size=log_p.shape)).argmax(axis=1).astype(np.int32)
    some = Samples(context[several], label, np.ones(len(label), np.int32))
    said = usual + 0.3 * rng.normal(size=usual.shape)
    found = gain.correlation(said, np.zeros_like(usual), context, some, rng)
    assert found["correlation"] > 0.2
    assert abs(found["z"]) < 3.5
    assert found["low"] <= found["in_context"] <= found["high"]


def test_nats_are_those_of_the_posterior() -> None:
    true, others, some = asked(60, 2)
    place = {tuple(c): n for n, c in enumerate(np.unique(some.context, axis=0).tolist())}
    row = [place[tuple(c)] for c in some.context.tolist()]
    gained = gain.nats(true[row], others[row], some, 1.0)
    assert gained.mean() > 0.2
    assert gain.nats(true[row], others[row], some, 0.0) == pytest.approx(0)
