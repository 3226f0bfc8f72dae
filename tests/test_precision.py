"""Arithmetic: what is asked for by name is that, and "auto" is what multiplies fastest by a clear margin."""

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
    monkeypatch.setattr(precision, "_seconds", seconds.get)
    assert precision.resolved("auto") == chosen
    assert precision.dtype("auto") == getattr(torch, chosen)
    assert precision.resolved("float32") == "float32"
    assert precision.dtype("bfloat16") == torch.bfloat16


def test_what_is_measured_is_a_product() -> None:
    assert precision.resolved("auto") in ("bfloat16", "float32")
    assert precision._seconds(torch.float32) > 0
