"""Arithmetic: what is asked for by name is that, and "auto" is what multiplies fastest by a clear margin."""

import time
from collections.abc import Iterator

import pytest
import torch

from byway.base import precision


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    precision.fastest.cache_clear()
    yield
    precision.fastest.cache_clear()


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [(0.2, "bfloat16"), (0.8, "bfloat16"), (0.9, "float32"), (1.0, "float32"), (2.0, "float32")],
)
def test_auto_is_bfloat16_only_where_that_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, chosen: str
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr(precision, "seconds", lambda run, dtype: seconds[dtype])
    assert precision.resolved("auto") == chosen
    assert precision.dtype("auto") == getattr(torch, chosen)
    assert precision.resolved("float32") == "float32"
    assert precision.dtype("bfloat16") == torch.bfloat16


def test_what_is_measured_is_a_product_in_each_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that sleeps in one format alone decides."""
    real = torch.nn.functional.linear
    for slow, chosen in ((torch.float32, "bfloat16"), (torch.bfloat16, "float32")):

        def linear(left: torch.Tensor, right: torch.Tensor, slow: torch.dtype = slow) -> torch.Tensor:
            assert left.dtype == right.dtype
            time.sleep(0.3 if left.dtype == slow else 0)
            return real(left[:1], right)

        monkeypatch.setattr(torch.nn.functional, "linear", linear)
        precision.fastest.cache_clear()
        assert precision.fastest() == chosen


def test_an_operation_of_one_s_own_is_measured_and_a_slow_one_once() -> None:
    """A convolution may be slow where a product is fast: what is measured is what is given."""
    ran: list[torch.dtype] = []

    def slow_in_bfloat16(dtype: torch.dtype) -> None:
        ran.append(dtype)
        time.sleep(1.1 if dtype == torch.bfloat16 else 0.01)

    assert precision.faster(slow_in_bfloat16) == "float32"
    assert ran.count(torch.bfloat16) == 1
    assert ran.count(torch.float32) == precision.ROUNDS
