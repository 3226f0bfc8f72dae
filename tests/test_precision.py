"""Arithmetic: what is asked for by name is that, and "auto" is what multiplies fastest by a clear margin."""

import time
from collections.abc import Iterator

import pytest
import torch

from byway import precision


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
    monkeypatch.setattr(precision, "seconds", seconds.get)
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
