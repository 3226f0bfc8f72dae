"""The sequence model: what a state may depend on, and relative positions as their paper writes them."""

import math

import pytest
import torch

from byway.items.transformer import Block, SequenceModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SequenceModel(n=30, dim=8, layers=2, heads=2, distances=6, dropout=0.5).eval()


def test_a_state_reads_nothing_that_comes_later(model):
    history = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    changed = history.clone()
    changed[0, 5:] = torch.tensor([7, 7, 7])
    before, after = model(history), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().min() > 1e-6


def test_padding_on_the_left_changes_nothing(model):
    short = torch.tensor([[3, 1, 4]])
    padded = torch.tensor([[0, 0, 0, 0, 3, 1, 4], [9, 8, 7, 6, 3, 1, 4]])
    torch.testing.assert_close(model(short)[0], model(padded)[0, 4:])
    assert torch.isfinite(model(torch.zeros(2, 5, dtype=torch.int64))).all()


def test_order_matters(model):
    one, other = model(torch.tensor([[1, 2, 3, 4]]))[:, -1], model(torch.tensor([[3, 2, 1, 4]]))[:, -1]
    assert (one - other).abs().max() > 1e-4


def test_relative_attention_is_the_papers():
    """Shaw et al., equations 3 and 4, head by head, with distances beyond the last clipped to it."""
    torch.manual_seed(1)
    block = Block(dim=6, heads=2, distances=3, dropout=0.0).double()
    torch.nn.init.normal_(block.key_of_distance)
    torch.nn.init.normal_(block.value_of_distance)
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    at = torch.arange(5)
    back = at[:, None] - at[None, :]
    found = block(x, (back < 0)[None, None], back.clamp(0, 2))

    read = block.read(block.before_attention(x))[0]
    query, key, value = read.split(6, dim=1)
    mixed = torch.zeros(5, 6, dtype=torch.float64)
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        for i in range(5):
            far = [min(i - j, 2) for j in range(i + 1)]
            scores = torch.stack(
                [
                    query[i, part] @ (key[j, part] + block.key_of_distance[far[j]]) / math.sqrt(3)
                    for j in range(i + 1)
                ]
            )
            share = scores.softmax(0)
            mixed[i, part] = sum(
                share[j] * (value[j, part] + block.value_of_distance[far[j]]) for j in range(i + 1)
            )
    x = x[0] + block.write(mixed)
    expected = x + block.narrow(torch.nn.functional.gelu(block.widen(block.before_feed(x))))
    torch.testing.assert_close(found[0], expected)
