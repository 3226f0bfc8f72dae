"""The n best legal names against a reference: every name scored by itself, unbatched."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.language.fast.choices import Choices, by_model, top
from byway.language.fast.generate import Attention, Policy, ask
from tests.language.conftest import HOSTILE, resolved
from tests.language.test_generate import CONTEXTS, make, reference


def brute_force(tiny: PreTrainedModel, asked_of: Policy, context: list[int]) -> np.ndarray:
    """[M] log-probability of every name when at each token only tokens that lead to a name are legal."""
    answers = asked_of.prompt.answers
    found = np.zeros(len(answers))
    for c, answer in enumerate(answers):
        log_p = reference(tiny, asked_of, context, answer)
        for t, token in enumerate(answer):
            legal = sorted({a[t] for a in answers if a[:t] == answer[:t] and len(a) > t})
            found[c] += float(log_p[t][legal].log_softmax(-1)[legal.index(token)])
    return found


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_every_name_has_its_brute_force_probability(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    asked_of = make(tiny, tokenizer, attention)
    with torch.no_grad():
        made = resolved(Choices(asked_of, ask(asked_of, CONTEXTS)))
    np.testing.assert_allclose(np.exp(made).sum(axis=1), 1, atol=1e-4)
    for row in range(0, len(CONTEXTS), 7):
        np.testing.assert_allclose(made[row], brute_force(tiny, asked_of, CONTEXTS[row].tolist()), atol=2e-3)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_the_best_are_exact_and_never_the_context(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    asked_of = make(tiny, tokenizer, attention)
    excluded = np.zeros((len(CONTEXTS), len(HOSTILE)), dtype=bool)
    np.put_along_axis(excluded, CONTEXTS.astype(np.int64), True, axis=1)
    with torch.no_grad():
        whole = np.where(excluded, -np.inf, resolved(Choices(asked_of, ask(asked_of, CONTEXTS))))
        lazy = Choices(asked_of, ask(asked_of, CONTEXTS))
        clusters, scores = by_model(asked_of, ask(asked_of, CONTEXTS), 4, excluded)
    best = np.argsort(-whole, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(clusters, best)
    np.testing.assert_allclose(scores, np.take_along_axis(whole, best, 1), atol=1e-4)
    assert (lazy.waits_NM >= 0).any(), "the names must share beginnings, or nothing is shown"


def test_fewer_legal_names_than_wanted_end_in_minus_one(tiny: PreTrainedModel, tokenizer: Any) -> None:
    asked_of = make(tiny, tokenizer, "block")
    excluded = np.ones((1, len(HOSTILE)), dtype=bool)
    excluded[0, 5] = False
    clusters, _ = by_model(asked_of, ask(asked_of, CONTEXTS[:1]), 3, excluded)
    assert clusters.tolist() == [[5, -1, -1]]


def test_only_what_is_among_the_best_is_read_to_its_end(tiny: PreTrainedModel, tokenizer: Any) -> None:
    asked_of = make(tiny, tokenizer, "block")
    read = list[int]()
    resolve = Choices.resolve

    def counting(self: Choices, rows: Any, nodes: Any) -> None:
        read.append(len(nodes))
        resolve(self, rows, nodes)

    excluded = np.zeros((len(CONTEXTS), len(HOSTILE)), dtype=bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Choices, "resolve", counting)
        top(asked_of, ask(asked_of, CONTEXTS), 1, excluded, [lambda log_p: log_p])
        few = sum(read)
        with torch.no_grad():
            resolved(Choices(asked_of, ask(asked_of, CONTEXTS)))
    assert 0 < few < (sum(read) - few) / 2
