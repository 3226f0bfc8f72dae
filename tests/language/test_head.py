"""The output layer while names are learned: the same scores, gradients for their rows alone, a plain one after."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from byway.base import models
from byway.language import head

ANSWERS = [[11, 7, 2], [40, 7, 2]]
TOKENS = [2, 7, 11, 40]


def moved(model: PreTrainedModel) -> None:
    """A step of some learning on the model's names."""
    rows = model.get_output_embeddings().rows
    with torch.no_grad():
        rows += torch.arange(rows.numel()).view_as(rows) / 100


def test_it_scores_as_the_layer_it_stands_for(tiny: PreTrainedModel) -> None:
    plain = copy.deepcopy(tiny)
    head.learn(tiny, ANSWERS)
    hidden = torch.randn(3, 5, 32)
    layer = tiny.get_output_embeddings()
    # Another product, which some processors round in another order.
    torch.testing.assert_close(layer(hidden), plain.get_output_embeddings()(hidden))
    assert torch.equal(layer.of(torch.tensor([40, 7])), plain.get_output_embeddings().weight[[40, 7]])
    with pytest.raises(IndexError):
        layer.of(torch.tensor([8]))


def test_gradients_are_the_whole_layer_s_at_the_names_rows(tiny: PreTrainedModel) -> None:
    plain = copy.deepcopy(tiny)
    whole = torch.nn.Parameter(plain.get_output_embeddings().weight.detach().clone())
    head.learn(tiny, ANSWERS)
    layer = tiny.get_output_embeddings()
    hidden, label = torch.randn(6, 32), torch.tensor([11, 40, 7, 2, 11, 40])
    torch.nn.functional.cross_entropy(layer(hidden), label).backward()
    torch.nn.functional.cross_entropy(hidden @ whole.T, label).backward()
    assert whole.grad is not None
    torch.testing.assert_close(layer.rows.grad, whole.grad[TOKENS])
    learned = {name for name, weight in tiny.named_parameters() if weight.requires_grad}
    assert not {name for name in learned if "embed" in name}
    assert {name for name in learned if "head" in name} == {"lm_head.rows"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_learned_is_saved_and_words_that_are_read_stay(
    tiny: PreTrainedModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    tiny.to(dtype)
    before = tiny.get_input_embeddings().weight.detach().clone()
    head.learn(tiny, ANSWERS)
    moved(tiny)
    hidden = torch.randn(4, 32).to(dtype)
    scores = tiny.get_output_embeddings()(hidden)
    head.settle(tiny)
    tiny.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
    again = models.load(str(tmp_path), dtype)
    torch.testing.assert_close(again.get_output_embeddings()(hidden), scores)
    assert torch.equal(again.get_input_embeddings().weight, before)
    changed = (again.get_output_embeddings().weight != before).any(1).nonzero().flatten()
    assert changed.tolist() == TOKENS
