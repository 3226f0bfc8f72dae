"""The device: what `auto` is, what is refused, what a GPU takes at once, and draws that do not depend on it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from byway.base import device, parallel, precision
from byway.base.errors import UserError
from tests.pretended import gpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    before = device.chosen()
    yield
    device.use(before.type)


def there(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """A machine with these GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("kinds", "setting", "engine", "found"),
    [
        ((), "auto", "native", "cpu"),
        (("cuda",), "auto", "native", "cuda"),
        (("mps",), "auto", "native", "mps"),
        (("cuda", "mps"), "auto", "native", "cuda"),
        (("cuda",), "cpu", "native", "cpu"),
        (("cuda",), "cuda", "native", "cuda"),
        (("cuda",), "auto", "ray", "cpu"),
    ],
)
def test_auto_takes_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], setting: str, engine: str, found: str
) -> None:
    there(monkeypatch, *kinds)
    device.use(setting, engine)
    assert device.chosen() == torch.device(found)


@pytest.mark.parametrize(("setting", "kinds"), [("cuda", ()), ("cuda", ("mps",)), ("mps", ("cuda",))])
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, kinds: tuple[str, ...]
) -> None:
    there(monkeypatch, *kinds)
    with pytest.raises(UserError, match=rf'run.device = "{setting}".*"auto"'):
        device.use(setting)
    assert device.chosen() == CPU


def test_a_cluster_and_several_processes_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, "cuda")
    with pytest.raises(UserError, match=r"Ray cluster.*run\.device"):
        device.use("cuda", "ray")
    device.use("auto")
    assert parallel.together(1, lambda: 7) == 7
    with pytest.raises(UserError, match="processes = 1"):
        parallel.together(2, lambda: 7)


@pytest.mark.parametrize(("has", "found"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_on_a_gpu_that_has_it_and_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, has: bool, found: str
) -> None:
    there(monkeypatch, "cuda")
    device.use("cuda")

    def supported(including_emulation: bool = True) -> bool:
        return has or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(precision, "fastest", lambda: pytest.fail("that is the processor's"))
    assert precision.resolved("auto") == found
    assert precision.resolved("float32") == "float32"


def test_a_gpu_takes_as_many_batches_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.several(1) == 1, "the processor takes one"
    there(monkeypatch, "cuda")
    device.use("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda at: (8 << 30, 80 << 30))
    assert [device.several(needs) for needs in (1, 1 << 28, 1 << 30, 1 << 34)] == [device.MOST, 8, 2, 1]


def test_dropout_drops_the_same_everywhere() -> None:
    ours, plain, x = device.Dropout(0.3), torch.nn.Dropout(0.3), torch.ones(50, 20)

    def drawn(layer: torch.nn.Module, at: Any = CPU) -> np.ndarray:
        torch.manual_seed(3)
        given = torch.nn.Parameter(x.to(at))
        layer(given).sum().backward()
        assert given.grad is not None
        return given.grad.cpu().numpy()

    wanted = drawn(plain)
    assert 0.6 < (wanted > 0).mean() < 0.8
    np.testing.assert_array_equal(drawn(ours), wanted)
    with gpu() as at:
        np.testing.assert_allclose(drawn(ours, at), wanted, rtol=1e-6)
        ours.eval()
        np.testing.assert_array_equal(drawn(ours, at), np.ones((50, 20)))


def test_what_a_gpu_refuses_is_refused_where_one_is_pretended() -> None:
    """Planted mixes of every kind, and what is allowed."""
    with gpu() as at:
        away, here = torch.tensor([1.0, 2.0, 3.0], device=at), torch.ones(3)
        rows = torch.tensor([0, 2])
        for mixed in (
            lambda: away + here,
            lambda: torch.cat([away, here]),
            lambda: away.index_select(0, rows),
            lambda: here[rows.to(at)],
            lambda: torch.where(here > 0, away, away),
            lambda: torch.nn.functional.embedding(rows, away[:, None]),
            lambda: away.index_put_((rows,), here[:2]),
            lambda: away @ here,
            lambda: away + torch.arange(3),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(RuntimeError, match="numpy"):
            away.numpy()
        assert away[rows].tolist() == [1, 3]
        assert (away * torch.tensor(2.0)).cpu().numpy().tolist() == [2, 4, 6]
        here.copy_(away)
    assert here.tolist() == [1, 2, 3]
