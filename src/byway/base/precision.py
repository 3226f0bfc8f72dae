"""In which number format this machine computes fastest.

bfloat16 has fast instructions of its own on some processors and none, or slow ones, on others: on an Intel Xeon
that has AVX-512 bfloat16 and no AMX, products of SmolLM2-135M's size ran at 154 to 174 GFLOP/s a core in float32,
and at 88 to 94 in bfloat16; without AVX-512 a convolution took seventy times as long. What a processor says of
itself does not tell, nor one operation of another, so each is measured.
"""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from byway.base import device

SHAPE = (1024, 576, 1536)
"""Rows, inner and outer width of the product: about one of SmolLM2-135M's."""
GAIN = 1.2
"""How much faster than float32 bfloat16 has to be for its rounding to be worth it, with some room for other work on
the machine: on that Xeon bfloat16 has 0.55 of float32's rate alone, and had 0.83 with both cores busy."""
ROUNDS, ENOUGH = 6, 1.0
"""An operation is timed so often, or until it has taken so many seconds."""


def resolved(precision: str) -> str:
    """`precision`, and for "auto" what multiplies fastest here: "bfloat16" or "float32".

    Of a GPU it is known: bfloat16 where it has instructions for it.
    """
    if precision != "auto":
        return precision
    at = device.chosen()
    if at.type == "cpu":
        return fastest()
    has = at.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has else "float32"


def dtype(precision: str) -> torch.dtype:
    """The format that `precision` names; "auto" is what multiplies fastest here."""
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(resolved(precision), torch.float32)


@cache
def fastest() -> str:
    """The format in which this machine's processor multiplies matrices fastest, measured once a process, in about
    50 ms."""
    return faster(product)


def faster(run: Callable[[torch.dtype], object]) -> str:
    """ "bfloat16" where `run` takes clearly less time in it, else "float32"."""
    return "bfloat16" if seconds(run, torch.float32) > GAIN * seconds(run, torch.bfloat16) else "float32"


def seconds(run: Callable[[torch.dtype], object], dtype: torch.dtype) -> float:
    """Of one run, the best of several."""
    found: list[float] = []
    while len(found) < ROUNDS and sum(found) < ENOUGH:
        began = time.perf_counter()
        run(dtype)
        found.append(time.perf_counter() - began)
    return min(found)


def product(dtype: torch.dtype, multiply: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """A product of `SHAPE`, by torch or by `multiply`."""
    left, right = _factors(dtype)
    return (multiply or torch.nn.functional.linear)(left, right)


@cache
def _factors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows, inner, outer = SHAPE
    return torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
