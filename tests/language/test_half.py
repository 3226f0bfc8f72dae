"""Float16 by MKL: the products are what they should be within its rounding, whoever shares them, or a sentence."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from byway.base import precision
from byway.base.errors import UserError
from byway.language import plan, prompts, tune
from byway.language.fast import bulk, half
from byway.language.fast.choices import TrieSearch
from byway.language.fast.generate import Attention, make_policy, prefill
from byway.language.fast.passes import forward_one, prepare
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.signals import Scorer
from tests.language.conftest import HOSTILE, make_tiny, needs_mkl, resolved
from tests.language.test_plan import DESCRIPTIONS, transitions

M = len(HOSTILE)


@needs_mkl
@pytest.mark.parametrize("shape", [(1, 8, 3), (7, 576, 192), (1300, 576, 96), (513, 1536, 64)])
def test_a_product_is_that_of_double_precision_within_its_rounding(shape: tuple[int, int, int]) -> None:
    N, K, wide = shape
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(N, K)).astype(np.float16), rng.normal(size=(wide, K)).astype(np.float16)
    found = half.product(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    exact = left.astype(float) @ right.T.astype(float)
    assert np.abs(found - exact).max() < 0.03 * np.sqrt(K)
    assert np.sqrt(((found - exact) ** 2).mean()) < 0.005 * np.sqrt(K)


@needs_mkl
def test_the_bytes_are_the_same_however_many_threads_share_them() -> None:
    left, right = torch.randn(1700, 96).half(), torch.randn(40, 96).half()
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(half.product(left, right))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def _small(kind: Any, config: Any, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return kind(config(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=300, **more)).eval()


@needs_mkl
@torch.no_grad()
@pytest.mark.parametrize("bias", ["none", "queries", "everywhere"])
def test_a_models_body_says_the_same_with_its_layers_replaced(bias: str) -> None:
    """A Llama layer is replaced whole, a gated block too, where they have no bias; Qwen queries have one."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    if bias == "queries":
        model = _small(Qwen2ForCausalLM, Qwen2Config, **heads)
    else:
        everywhere = bias == "everywhere"
        model = _small(LlamaForCausalLM, LlamaConfig, attention_bias=everywhere, mlp_bias=everywhere, **heads)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.normal_()
    ids = torch.arange(200)[None, None]
    here = (ids, ids[0, 0], torch.ones_like(ids, dtype=torch.bool), [])
    exact = model.base_model(ids[0]).last_hidden_state
    put = prepare(half.put(copy.deepcopy(model)))
    kinds = {type(layer) for layer in put.base_model.modules()}
    assert torch.nn.Linear not in kinds
    assert (half.Gated in kinds) == (bias != "everywhere")
    assert (half.Layer in kinds) == (bias == "none")
    found = forward_one(put, *here)[0][0].float()
    assert float((found - exact).abs().max()) < 0.02 * float(exact.abs().max())


@needs_mkl
@torch.no_grad()
@pytest.mark.parametrize("attention", ["block", "causal"])
def test_scores_of_names_are_float32s_within_rounding(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention])
    pairs = np.array([[a, b] for a in range(M) for b in range(M)], np.int32)
    exact = make_policy(tiny, prompt, attention)
    coarse = make_policy(half.put(make_tiny()), prompt, attention)
    fine, rough = (resolved(TrieSearch(of, prefill(of, pairs))) for of in (exact, coarse))
    error = np.abs(fine - rough)
    assert 0 < error.mean() < 0.03
    chosen = rough.argmax(axis=1)
    # Where the first answer is another one, the two are a tie but for rounding.
    assert (fine.max(axis=1) - fine[np.arange(len(fine)), chosen]).max() <= 2 * error.max()
    assert (chosen == fine.argmax(axis=1)).mean() > 0.95


@needs_mkl
@torch.no_grad()
def test_numbers_beyond_float16_are_said_and_not_ranked(tokenizer: Any) -> None:
    """A model whose numbers outgrow 65,504 inside of a layer, where float32 has no difficulty."""

    def large() -> PreTrainedModel:
        model = make_tiny()
        model.base_model.layers[0].mlp.up_proj.weight.mul_(100_000)
        return model

    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS["block"])
    exact = make_policy(large(), prompt, "block")
    assert np.isfinite(resolved(TrieSearch(exact, prefill(exact, np.array([[0, 1]], np.int32))))).all()
    coarse = make_policy(half.put(large()), prompt, "block")
    with pytest.raises(UserError, match="float32"):
        bulk.rounding(coarse, exact, 8, np.random.default_rng(0))
    once = np.ones(1, np.int32)
    evidence = Scorer.from_counts(Successors.count(Samples(np.array([[0, 1]], np.int32), 2 * once, once), M))
    with pytest.raises(UserError, match="float32"):
        bulk.answer_some(
            coarse, np.array([[0, 1]], np.int32), evidence, 0.5, 4, 4, recheck=bulk.rechecker(exact, 0.1)
        )


def test_without_the_library_float16_is_a_sentence_and_auto_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "library", lambda: None)
    monkeypatch.setattr(precision, "fastest", lambda: "bfloat16")
    with pytest.raises(UserError, match=r"byway\[mkl\]"):
        half.resolved("float16")
    assert half.fastest.__wrapped__() == "bfloat16"
    assert half.resolved("float32") == "float32"


@pytest.mark.parametrize(
    ("seconds", "chosen"), [(2.0, "float16"), (1.3, "float16"), (1.1, "float32"), (0.5, "float32")]
)
def test_auto_is_float16_only_where_that_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: float, chosen: str
) -> None:
    monkeypatch.setattr(half, "library", lambda: object())
    monkeypatch.setattr(precision, "fastest", lambda: "float32")
    monkeypatch.setattr(precision, "seconds", lambda run, dtype: 1.0 if dtype == torch.float16 else seconds)
    assert half.fastest.__wrapped__() == chosen


def test_how_near_a_tie_is_leaves_one_answer_in_a_thousand() -> None:
    """Planted: Gaussian errors, gaps spread evenly; what is left over is counted afterwards on fresh draws."""
    assert bulk.CHANGED < 0.001
    rng = np.random.default_rng(0)
    gap, error = rng.uniform(0, 1, 2000), np.abs(rng.normal(0, 0.03, 2000))
    near = bulk.nearness(gap, error)
    assert 0.02 < near < 0.08
    fresh, noise = rng.uniform(0, 1, 2_000_000), rng.normal(0, 0.03, 2_000_000)
    changed = (noise > fresh) & (fresh > near)
    assert bulk.CHANGED / 2 < changed.mean() < 1.5 * bulk.CHANGED
    assert bulk.nearness(gap, np.zeros(2000)) == 0.0
    assert bulk.nearness(gap, np.full(2000, 9.0)) > 0.99


@needs_mkl
def test_a_policy_is_opened_in_the_arithmetic_that_was_asked_for(tmp_path: Any, tokenizer: Any) -> None:
    make_tiny().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tuned = tune.Tuned(tmp_path, str(tmp_path), "block", prompts.ENDINGS["block"], [])
    opened = plan.open_policy(tuned, transitions(), DESCRIPTIONS, "float16")
    assert any(isinstance(layer, half.Gated) for layer in opened.model.modules())
