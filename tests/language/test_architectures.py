"""Which causal models can be read in bulk: tiny random ones of each architecture, against their own reading."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from byway.base import known_models
from byway.base.errors import UserError
from byway.language.fast import readable, reference
from byway.language.fast.bulk import first
from byway.language.fast.generate import make_policy
from byway.language.prompts import ENDINGS, tokenise
from tests.language.conftest import HOSTILE

SMALL = {
    "vocab_size": 49152,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
READABLE = ["Llama", "Qwen2", "Qwen3", "Mistral", "SmolLM3", "Gemma", "Olmo2", "Phi3"]
HYBRID = ["Qwen3_5", "Qwen3Next", "Lfm2", "Jamba", "Mamba2", "GraniteMoeHybrid", "RecurrentGemma"]


def tiny(name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = {"Qwen3_5": "Qwen3_5TextConfig"}.get(name, f"{name}Config")
    made = getattr(transformers, config)(**{**SMALL, **more})
    return getattr(transformers, f"{name}ForCausalLM")(made).eval()


@pytest.mark.parametrize("attention", ["causal", "block"])
@pytest.mark.parametrize("name", READABLE)
def test_an_architecture_is_read_in_bulk_as_it_reads_itself(name: str, attention: Any, tokenizer: Any) -> None:
    model = tiny(name)
    readable.require_readable(model)
    prompt = tokenise(HOSTILE, 2, tokenizer, ENDINGS[attention])
    plain = tiny(name)
    policy = make_policy(model, prompt, attention)
    context = np.array([[0, 1], [3, 7], [11, 4], [6, 6]], np.int32)
    best = first(policy, context, 1)[:, 0]
    for own, found in zip(context.tolist(), best.tolist(), strict=True):
        cluster, own_p, other_p = reference.best(plain, prompt, policy.trie, attention, own, found)
        assert found == cluster or abs(own_p - other_p) < 1e-3


@pytest.mark.parametrize("name", HYBRID)
def test_a_hybrid_is_refused_with_the_reason(name: str) -> None:
    more: dict[str, Any] = {}
    if name == "Lfm2":
        more = {"layer_types": ["conv", "full_attention"] * 2}
    if name == "Mamba2":
        more = {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8, "expand": 2}
    if name == "GraniteMoeHybrid":
        more = {"mamba_n_heads": 4, "layer_types": ["mamba", "attention"] * 2}
    if name == "RecurrentGemma":
        more = {"lru_width": 32}
    with pytest.raises(UserError, match=r"cannot be read in bulk \(.+\).*answers = \"server\""):
        readable.require_readable(tiny(name, **more))


def test_scores_that_are_bent_are_refused() -> None:
    readable.require_readable(tiny("Granite", logits_scaling=1.0))
    with pytest.raises(UserError, match="answers otherwise"):
        readable.require_readable(tiny("Granite", logits_scaling=8.0))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_rounding_is_not_taken_for_another_answer(kind: torch.dtype, monkeypatch: Any) -> None:
    """What a processor's bfloat16 loses, a tenth of a standard deviation, refuses nothing; a scale of 8 does."""
    own = readable.forward_one

    def rounded(*given: Any) -> Any:
        hidden, cache = own(*given)
        noise = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)) * hidden.float().std()
        return hidden + (0.1 * noise).to(hidden.dtype), cache

    bent = tiny("Granite", logits_scaling=8.0).to(kind)
    with pytest.raises(UserError, match="answers otherwise"):
        readable.require_readable(bent)
    model = tiny("Llama").to(kind)
    monkeypatch.setattr(readable, "forward_one", rounded)
    if kind == torch.bfloat16:
        readable.require_readable(model)
    else:
        with pytest.raises(UserError, match="answers otherwise"):
            readable.require_readable(model)


def test_a_short_window_is_refused() -> None:
    with pytest.raises(UserError, match="looks back 64 tokens"):
        readable.require_readable(tiny("Mistral", sliding_window=64))


@pytest.mark.parametrize("name", sorted(known_models.KNOWN))
def test_a_model_by_name_has_a_record(name: str) -> None:
    record = known_models.record(name)
    assert "/" in record.hub
    assert record.tokenizer == name
    assert 1e-5 < record.learning_rate <= 1e-3
    assert 0 <= record.frozen < 1
