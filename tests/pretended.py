"""A GPU where there is none: tensors that say they are on `cuda` and refuse to meet those of the processor.

Each holds a tensor of the processor, by which it computes, so that what runs on this device runs to its end and can
be compared with the processor's result, through every decision that depends on a number. What a real one refuses is
refused here: an operation whose tensors are not all in one place, and an array made of a tensor that is not on the
processor. As there, a number (a tensor without dimensions) and the rows of an index may come from the processor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map

from byway.base import device

CUDA = torch.device("cuda", 0)
ACROSS = {"aten::copy_", "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations that take tensors of both places: `copy_` either way, an index of the processor on the GPU."""


class Away(Tensor):
    """A tensor on the GPU that is not there."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        made = Tensor._make_wrapper_subclass(  # pyright: ignore
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
            requires_grad=False,
        )
        made.held = held
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "Away":
        return Away(inner["held"])

    def __repr__(self) -> str:
        return f"Away({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """While it is on, what is made on `cuda` is made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    away = any(isinstance(each, Away) for each in tensors)
    name = func._schema.name
    to = kwargs.get("device")
    if away and name != "aten::copy_":
        own = tensors[0] if name in ACROSS else None
        stray = [each for each in tensors if not isinstance(each, Away) and each.dim()]
        if stray and not isinstance(own, Away):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
        # An index of the processor is taken, no mask and no values.
        if stray and name != "aten::index" and any(each.is_floating_point() for each in stray):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
    where = torch.device(to) if to is not None else (CUDA if away else torch.device("cpu"))
    inner = tree_map(lambda each: each.held if isinstance(each, Away) else each, (args, dict(kwargs)))
    if to is not None:
        inner[1]["device"] = torch.device("cpu")
    out = func(*inner[0], **inner[1])
    if name == "aten::copy_":
        return args[0]
    if where.type != "cuda":
        if to is not None and away and name == "aten::_to_copy":
            return out
        return out if not away else out
    out = tree_map(lambda each: Away(each) if isinstance(each, Tensor) else each, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if away else out


@contextmanager
def gpu() -> Iterator[torch.device]:
    """This process on a GPU that is not there."""
    before = device.chosen()
    torch._C._ensureCUDADeviceGuardSet()  # pyright: ignore
    lazily, lifts = torch.cuda._lazy_init, torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    torch.cuda._lazy_init = lambda: None
    device._chosen.device = CUDA
    try:
        with Pretended():
            yield CUDA
    finally:
        device._chosen.device = before
        torch.cuda._lazy_init = lazily
        torch._C._set_only_lift_cpu_tensors(lifts)
