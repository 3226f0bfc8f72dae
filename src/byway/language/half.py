"""Products in float16 by Intel's Math Kernel Library, where it is installed: `pip install 'byway[mkl]'`.

Processors with AVX-512 float16 multiply twice as many numbers at a time in it as in float32; torch widens them to
float32 first. Sums are rounded to float16 every few hundred products at the latest, so that what comes out is
coarser than bfloat16 added up in float32 would suggest: near ties are asked again in float32 (`bulk.rounding`).
"""

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from byway import precision
from byway.errors import UserError

ROWS = 512
"""Rows of one product, always from a multiple of it: however many threads share them, they are the same products."""
ROW_MAJOR, AS_IS, TRANSPOSED, SEQUENTIAL = 101, 111, 112, 1
ONE, ZERO = ctypes.c_uint16(0x3C00), ctypes.c_uint16(0)


@cache
def library() -> Any:
    """The library's product in float16; None where it is not installed."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    found = [file.locate() for file in files if file.name.startswith("libmkl_rt.so")]
    try:
        mkl = ctypes.CDLL(str(found[0]))
        mkl.MKL_Set_Threading_Layer(SEQUENTIAL)  # the rows are shared here, among as many threads as torch has
        return mkl.cblas_hgemm
    except (IndexError, OSError, AttributeError):
        return None


def resolved(knob: str) -> str:
    """`knob`, and for "auto" what is fastest here: "float16", "bfloat16" or "float32"."""
    if knob == "float16" and library() is None:
        raise UserError(
            "precision = \"float16\" needs Intel's MKL: pip install 'byway[mkl]', or set precision = \"auto\"."
        )
    return fastest() if knob == "auto" else knob


@cache
def fastest() -> str:
    """As `precision.fastest`, with float16; measured once a process."""
    known = precision.fastest()
    if library() is None:
        return known
    rows, inner, outer = precision.SHAPE
    left, right = torch.ones(rows, inner).half(), torch.ones(outer, inner).half()
    found: list[float] = []
    for _ in range(6):
        began = time.perf_counter()
        product(left, right)
        found.append(time.perf_counter() - began)
    other = precision.seconds(precision.dtype(known))
    return "float16" if other > precision.GAIN * min(found) else known


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def product(left_NK: Tensor, right_MK: Tensor) -> Tensor:
    """[N, M] `left @ right.T`, all in float16 with contiguous rows."""
    (N, K), M = left_NK.shape, right_MK.shape[0]
    out_NM = torch.empty(N, M, dtype=torch.float16)
    hgemm: Callable[..., None] = library()

    def part(start: int) -> None:
        left, out = left_NK[start : start + ROWS], out_NM[start : start + ROWS]
        a, b, c = (ctypes.c_void_p(each.data_ptr()) for each in (left, right_MK, out))
        order = (ROW_MAJOR, AS_IS, TRANSPOSED, len(left), M, K)
        hgemm(*order, ONE, a, left.stride(0), b, right_MK.stride(0), ZERO, c, M)

    threads, starts = torch.get_num_threads(), range(0, N, ROWS)
    if threads == 1 or len(starts) < 2:
        for start in starts:
            part(start)
    else:
        list(_pool(threads).map(part, starts))
    return out_NM


class Linear(torch.nn.Module):
    """A linear layer whose product is this module's."""

    def __init__(self, layer: torch.nn.Linear):
        super().__init__()
        self.weight = torch.nn.Parameter(layer.weight.detach().half().contiguous(), requires_grad=False)
        bias = None if layer.bias is None else layer.bias.detach().half()
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        made = product(x.reshape(-1, x.shape[-1]).contiguous(), self.weight)
        if self.bias is not None:
            made += self.bias
        return made.view(*x.shape[:-1], -1)


def put(model: PreTrainedModel) -> PreTrainedModel:
    """Replace the linear layers of the model's body, in place; the model is for reading only from then on."""
    body: Any = model.half().base_model
    for parent in list(body.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear:
                setattr(parent, name, Linear(layer))
    return model
