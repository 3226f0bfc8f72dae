"""A grid of sequences is read as the library reads each of them by itself, after what it looks back at."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from byway.language.fast import half, passes
from byway.language.fast.passes import Along, ForwardPass, KVCache, Prefix, forward, forward_one, prepare
from tests.language.conftest import make_tiny, needs_mkl

A, B = 3, 4
HERE = {"all": (1, 1), "rows": (A, 1), "columns": (1, B), "cells": (A, B)}


def drawn(a: int, b: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Random tokens [a, b, T], padded, and where they are real."""
    valid = torch.arange(int(lengths.max())) < lengths.view(a, b, 1)
    return torch.randint(0, 49_152, valid.shape).where(valid, 0), valid


def apart(model: PreTrainedModel, before: list[int], own: list[int]) -> Tensor:
    """Hidden states of the tokens `own` after `before`, by the library's own attention."""
    body: Any = model.base_model
    return body(torch.tensor([before + own]), use_cache=False).last_hidden_state[0, len(before) :]


def scattered(low: int, high: int, n: int) -> Tensor:
    """Lengths from low to high, of which the last is the greatest; some are alike."""
    return torch.cat([torch.randint(low, high, (n - 1,)), torch.tensor([high])])


@pytest.fixture(params=[1, passes.ALIKE])
def alike(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of one length by themselves however few they are, and padded, as so few are."""
    monkeypatch.setattr(passes, "ALIKE", request.param)


@torch.no_grad()
@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("along", HERE)
@pytest.mark.parametrize(("wide", "deep"), [(A, B), (A * B, 1), (1, A * B)])
def test_each_sequence_is_read_as_if_it_stood_alone(
    tiny: PreTrainedModel, along: Along, wide: int, deep: int, ends: bool
) -> None:
    torch.manual_seed(1)
    grid = {"all": (1, 1), "rows": (wide, 1), "columns": (1, deep), "cells": (wide, deep)}[along]
    model = prepare(copy.deepcopy(tiny))
    earlier, there = drawn(*grid, scattered(1, 5, grid[0] * grid[1]))
    ids, valid = drawn(wide, deep, scattered(1, 6, wide * deep))
    first = ForwardPass(earlier, torch.arange(earlier.shape[2]), there, [])
    length_ab = there.sum(-1)
    start_AB = length_ab.expand(wide, deep)
    one = ForwardPass(
        ids, start_AB[..., None] + torch.arange(ids.shape[2]), valid, [Prefix(first.cache, along)], ends
    )
    found = forward(model, [first, one])[1]
    for i in range(wide):
        for j in range(deep):
            a, b = (i if grid[0] > 1 else 0), (j if grid[1] > 1 else 0)
            exact = apart(tiny, earlier[a, b][there[a, b]].tolist(), ids[i, j][valid[i, j]].tolist())
            here = found[i, j] if ends else found[i, j][valid[i, j]]
            torch.testing.assert_close(here, exact[-1] if ends else exact, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.usefixtures("alike")
def test_rows_that_pick_what_they_look_back_at_and_sequences_without_a_token(tiny: PreTrainedModel) -> None:
    torch.manual_seed(2)
    model = prepare(copy.deepcopy(tiny))
    earlier, there = drawn(2, 1, torch.tensor([2, 4]))
    _, made = forward_one(model, earlier, torch.arange(4), there, [])
    pick = torch.tensor([1, 0, 1, 1, 0])
    ids, valid = drawn(5, 1, torch.tensor([3, 0, 1, 3, 2]))
    positions = there.sum(-1)[pick][..., None] + torch.arange(3)
    hidden, _ = forward_one(model, ids, positions, valid, [Prefix(made, "rows", pick)])
    for i, a in enumerate(pick.tolist()):
        exact = apart(tiny, earlier[a, 0][there[a, 0]].tolist(), ids[i, 0][valid[i, 0]].tolist())
        torch.testing.assert_close(hidden[i, 0][valid[i, 0]], exact, atol=1e-4, rtol=1e-4)


@needs_mkl
@torch.no_grad()
@pytest.mark.usefixtures("alike")
def test_a_last_layer_that_computes_only_ends_gives_the_same_ends_and_the_same_reading() -> None:
    torch.manual_seed(3)
    model = prepare(half.put(make_tiny()))
    ids, valid = drawn(1, 9, scattered(1, 6, 9))
    others, there = drawn(1, 1, torch.tensor([7]))

    def passes(ends: bool) -> list[ForwardPass]:
        of: KVCache | None = None
        both: list[ForwardPass] = []
        for tokens, real, short in ((others, there, False), (ids, valid, ends)):
            back = [] if of is None else [Prefix(of, "all")]
            both.append(ForwardPass(tokens, torch.arange(tokens.shape[2]), real, back, short))
            of = both[-1].cache
        return both

    whole, short = passes(False), passes(True)
    (other, every), (same, ends) = forward(model, whole), forward(model, short)
    torch.testing.assert_close(same, other, atol=0.01, rtol=0.01)
    last = valid.sum(-1)[0] - 1
    torch.testing.assert_close(ends[0], every[0, torch.arange(9), last], atol=0.01, rtol=0.01)
    for one, another in zip(whole[1].cache.keys, short[1].cache.keys, strict=True):
        assert torch.equal(one, another)
