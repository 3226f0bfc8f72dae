"""The n best legal names against a reference: every name scored by itself, unbatched."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.language.fast.choices import TrieSearch, by_model, top
from byway.language.fast.generate import Attention, Policy, prefill
from tests.language.conftest import HOSTILE, resolved
from tests.language.test_generate import CONTEXTS, make, reference


def brute_force(tiny: PreTrainedModel, policy: Policy, context: list[int]) -> np.ndarray:
    """[M] log-probability of every name when at each token only tokens that lead to a name are legal."""
    answers = policy.prompt.answers
    found = np.zeros(len(answers))
    for c, answer in enumerate(answers):
        log_p = reference(tiny, policy, context, answer)
        for t, token in enumerate(answer):
            legal = sorted({a[t] for a in answers if a[:t] == answer[:t] and len(a) > t})
            found[c] += float(log_p[t][legal].log_softmax(-1)[legal.index(token)])
    return found


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_every_name_has_its_brute_force_probability(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make(tiny, tokenizer, attention)
    with torch.no_grad():
        made = resolved(TrieSearch(policy, prefill(policy, CONTEXTS)))
    np.testing.assert_allclose(np.exp(made).sum(axis=1), 1, atol=1e-4)
    for row in range(0, len(CONTEXTS), 7):
        np.testing.assert_allclose(made[row], brute_force(tiny, policy, CONTEXTS[row].tolist()), atol=2e-3)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_the_best_are_exact_and_never_the_context(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make(tiny, tokenizer, attention)
    excluded = np.zeros((len(CONTEXTS), len(HOSTILE)), dtype=bool)
    np.put_along_axis(excluded, CONTEXTS.astype(np.int64), True, axis=1)
    with torch.no_grad():
        whole = np.where(excluded, -np.inf, resolved(TrieSearch(policy, prefill(policy, CONTEXTS))))
        lazy = TrieSearch(policy, prefill(policy, CONTEXTS))
        clusters, scores = by_model(policy, prefill(policy, CONTEXTS), 4, excluded)
    best = np.argsort(-whole, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(clusters, best)
    np.testing.assert_allclose(scores, np.take_along_axis(whole, best, 1), atol=1e-4)
    assert (lazy.pending_NM >= 0).any(), "the names must share beginnings, or nothing is shown"


def test_fewer_legal_names_than_wanted_end_in_minus_one(tiny: PreTrainedModel, tokenizer: Any) -> None:
    policy = make(tiny, tokenizer, "block")
    excluded = np.ones((1, len(HOSTILE)), dtype=bool)
    excluded[0, 5] = False
    clusters, _ = by_model(policy, prefill(policy, CONTEXTS[:1]), 3, excluded)
    assert clusters.tolist() == [[5, -1, -1]]


def test_only_what_is_among_the_best_is_read_to_its_end(tiny: PreTrainedModel, tokenizer: Any) -> None:
    policy = make(tiny, tokenizer, "block")
    read = list[int]()
    expand = TrieSearch.expand

    def counting(self: TrieSearch, rows: Any, nodes: Any) -> None:
        read.append(len(nodes))
        expand(self, rows, nodes)

    excluded = np.zeros((len(CONTEXTS), len(HOSTILE)), dtype=bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrieSearch, "expand", counting)
        top(policy, prefill(policy, CONTEXTS), [(1, lambda log_p: log_p)], excluded)
        few = sum(read)
        with torch.no_grad():
            resolved(TrieSearch(policy, prefill(policy, CONTEXTS)))
    assert 0 < few < (sum(read) - few) / 2
