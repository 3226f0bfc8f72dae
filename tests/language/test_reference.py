"""The slow way agrees with the planner in float32, and notices a table that is wrong."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.language import prompts
from byway.language.fast import reference
from byway.language.fast.choices import TrieSearch
from byway.language.fast.generate import Attention, make_policy, prefill
from tests.language.conftest import HOSTILE, resolved

PAIRS = np.array([[0, 1], [5, 5], [11, 3], [7, 2], [2, 0]], dtype=np.int32)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_it_finds_the_best_of_all_names(tiny: PreTrainedModel, tokenizer: Any, attention: Attention) -> None:
    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention])
    policy = make_policy(copy.deepcopy(tiny), prompt, attention)
    with torch.no_grad():
        log_p = resolved(TrieSearch(policy, prefill(policy, PAIRS)))
    np.put_along_axis(log_p, PAIRS.astype(np.int64), -np.inf, axis=1)
    for context, own in zip(PAIRS.tolist(), log_p, strict=True):
        other = int(np.argsort(own)[-2])
        name, value, of_other = reference.best(tiny, prompt, policy.trie, attention, context, other)
        assert name == own.argmax()
        assert value == pytest.approx(float(own.max()), abs=2e-3)
        assert of_other == pytest.approx(float(own[other]), abs=2e-3)
    right = log_p.argmax(axis=1)
    found = reference.agreement(tiny, prompt, policy.trie, attention, PAIRS, right)
    assert found == reference.Agreement(1.0, 0.0)
    wrong = right.copy()
    wrong[0] = int(np.argsort(log_p[0])[-2])
    found = reference.agreement(tiny, prompt, policy.trie, attention, PAIRS, wrong)
    assert found.same == 0.8
    assert found.largest_gap == pytest.approx(float(np.sort(log_p[0])[-1] - np.sort(log_p[0])[-2]), abs=2e-3)
