"""In which number format this machine multiplies matrices.

bfloat16 has fast instructions of its own on some processors and none, or slow ones, on others: on an Intel Xeon
that has AVX-512 bfloat16 and no AMX, products of SmolLM2-135M's size ran at 154 to 174 GFLOP/s a core in float32,
and at 88 to 94 in bfloat16. What a processor says of itself does not tell, so it is measured.
"""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

SHAPE = (1024, 576, 1536)
"""Rows, inner and outer width of the product: about one of SmolLM2-135M's."""
GAIN = 1.2
"""How much faster than float32 bfloat16 has to be for its rounding to be worth it, with some room for other work on
the machine: on that Xeon bfloat16 has 0.55 of float32's rate alone, and had 0.83 with both cores busy."""


def resolved(precision: str) -> str:
    """`precision`, and for "auto" what is fastest here: "bfloat16" or "float32"."""
    return fastest() if precision == "auto" else precision


def dtype(precision: str) -> torch.dtype:
    """The format that `precision` names; "auto" is what is fastest here."""
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(resolved(precision), torch.float32)


@cache
def fastest() -> str:
    """The format in which this machine multiplies fastest, measured once a process, in about 50 milliseconds."""
    return "bfloat16" if seconds(torch.float32) > GAIN * seconds(torch.bfloat16) else "float32"


def seconds(dtype: torch.dtype, multiply: Callable[[Tensor, Tensor], Tensor] | None = None) -> float:
    """Of one product, by torch or by `multiply`, the best of several."""
    multiply = multiply or torch.nn.functional.linear
    rows, inner, outer = SHAPE
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    found: list[float] = []
    for _ in range(6):
        began = time.perf_counter()
        multiply(left, right)
        found.append(time.perf_counter() - began)
    return min(found)
