"""Reading against a reference: every prompt by itself, unbatched, with the library's own forward pass."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.base.errors import UserError
from byway.language import prompts
from byway.language.fast.generate import (
    Attention,
    Policy,
    decode_freely,
    extend,
    make_policy,
    prefill,
    read_grid,
    slot_end,
)
from tests.language.conftest import HOSTILE

CONTEXTS = np.array([[a, b] for a in range(len(HOSTILE)) for b in (0, 3, 6, 11)], dtype=np.int32)


def make(tiny: PreTrainedModel, tokenizer: Any, attention: Attention) -> Policy:
    return make_policy(
        copy.deepcopy(tiny), prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention]), attention
    )


def reference(tiny: PreTrainedModel, policy: Policy, context: list[int], answer: list[int]) -> torch.Tensor:
    """Log-probabilities [len(answer), vocabulary] at each token of the answer, from one plain forward pass.

    Block attention is written out as a mask: a description sees the instruction and itself, the rest sees all.
    """
    prompt = policy.prompt
    pieces = [prompt.instruction, *(s[c] for s, c in zip(prompt.slots, context, strict=True)), prompt.cue, answer]
    ids = torch.tensor([[token for piece in pieces for token in piece]])
    owner = torch.tensor([i for i, piece in enumerate(pieces) for _ in piece])
    n = ids.shape[1]
    sees = torch.ones(n, n, dtype=torch.bool).tril()
    positions = torch.arange(n)
    if policy.attention == "block":
        slots = range(1, 1 + len(context))
        for k in slots:
            inside = owner == k
            sees[inside] &= (owner == 0) | inside
            positions[inside] = slot_end(prompt, k - 1) - int(inside.sum()) + torch.arange(int(inside.sum()))
        after = owner > len(context)
        positions[after] = slot_end(prompt, len(context) - 1) + torch.arange(int(after.sum()))
    mask = torch.zeros(n, n).masked_fill(~sees, float("-inf"))[None, None]
    plain = copy.deepcopy(tiny)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        scores = plain(input_ids=ids, attention_mask=mask, position_ids=positions[None]).logits[0]
    start = n - len(answer) - 1
    return scores[start : n - 1].log_softmax(-1)


def test_a_grid_of_pairs_is_what_its_pairs_say(tiny: PreTrainedModel, tokenizer: Any) -> None:
    policy = make(tiny, tokenizer, "block")
    first, second = np.array([4, 0, 9]), np.array([2, 11])
    pairs = np.array([[a, b] for a in first for b in second], dtype=np.int32)
    which = torch.tensor([5, 0, 3])
    ids, valid = policy.pad([policy.prompt.answers[c] for c in (1, 7, 3)])
    with torch.no_grad():
        at_cue, further = read_grid(policy, first, second, which, ids, valid)
        asked = prefill(policy, pairs)
        then, _ = extend(policy, asked, which, ids, valid)
    np.testing.assert_allclose(at_cue, asked.hidden_NH, atol=1e-4)
    np.testing.assert_allclose(further[valid], then[valid], atol=1e-4)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_several_sequences_that_go_on_from_a_prompt_are_those_that_do_so_alone(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    """Also a step further on, from some of them."""
    policy = make(tiny, tokenizer, attention)
    pairs = np.array([[4, 2], [0, 2], [9, 11]], dtype=np.int32)
    which, further = torch.tensor([2, 0, 2, 1, 0, 2]), torch.tensor([4, 1, 4, 2, 5])
    ids, valid = policy.pad([policy.prompt.answers[c] for c in (1, 7, 3, 5, 0, 6)])
    more, there = policy.pad([policy.prompt.answers[c] for c in (8, 2, 9, 1, 4)])
    with torch.no_grad():
        asked = prefill(policy, pairs)
        hidden, after = extend(policy, asked, which, ids, valid)
        at_end, _ = extend(policy, after, further, more, there)
        for i, place in enumerate(which.tolist()):
            one, _ = extend(policy, asked, torch.tensor([place]), ids[[i]], valid[[i]])
            np.testing.assert_allclose(hidden[i][valid[i]], one[0][valid[i]], atol=1e-4)
        for i, place in enumerate(further.tolist()):
            _, before = extend(policy, asked, which[[place]], ids[[place]], valid[[place]])
            one, _ = extend(policy, before, torch.tensor([0]), more[[i]], there[[i]])
            np.testing.assert_allclose(at_end[i][there[i]], one[0][there[i]], atol=1e-4)


def test_what_is_read_together_learns_what_is_read_apart(tiny: PreTrainedModel, tokenizer: Any) -> None:
    policy = make(tiny, tokenizer, "block")
    members = np.array([4, 0, 9])
    pairs = np.array([[a, b] for a in members for b in members], dtype=np.int32)
    which = torch.tensor([8, 1])
    ids, valid = policy.pad([policy.prompt.answers[c] for c in (2, 6)])
    gradients: list[list[torch.Tensor]] = []
    for together in (True, False):
        policy.model.zero_grad()
        if together:
            _, hidden = read_grid(policy, members, members, which, ids, valid)
        else:
            hidden, _ = extend(policy, prefill(policy, pairs), which, ids, valid)
        hidden[valid].square().sum().backward()
        gradients.append([p.grad.clone() for p in policy.model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", [torch.nn.Linear(32, 49152), None])
def test_a_model_whose_output_layer_cannot_score_names_is_refused(
    tiny: PreTrainedModel, tokenizer: Any, layer: torch.nn.Module | None
) -> None:
    tiny.set_output_embeddings(layer)
    with pytest.raises(UserError, match="give another model"):
        make_policy(tiny, prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS["block"]), "block")


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_free_answers_are_the_greedy_ones(tiny: PreTrainedModel, tokenizer: Any, attention: Attention) -> None:
    policy = make(tiny, tokenizer, attention)
    answers = decode_freely(policy, CONTEXTS[:6], 5)
    for context, answer in zip(CONTEXTS[:6].tolist(), answers, strict=True):
        log_p = reference(tiny, policy, context, answer)
        assert answer == log_p.argmax(-1).tolist()
