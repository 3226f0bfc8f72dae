"""A GPU where there is none: tensors that say they are elsewhere and refuse to meet those of the processor.

Each holds a tensor of the processor, by which it computes, so that what runs on this device runs to its end,
through every decision that depends on a number, and can be compared with the processor's result. What a real one
refuses is refused here: an operation whose tensors are not all in one place, and an array made of a tensor that is
not on the processor. As there, a number (a tensor without dimensions) and the rows of an index may come from the
processor.

It goes by the name of `meta`, since torch asks the driver where a tensor is said to be on `cuda`.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from transformers import PreTrainedModel

from byway.base import device

GPU = torch.device("meta")
CPU = torch.device("cpu")


class Away(Tensor):
    """A tensor on the GPU that is not there."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=GPU,
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

    # What a real one brings to the processor by itself.

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def item(self) -> Any:
        return self.detach().cpu().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    __index__ = __int__

    def __getitem__(self, index: Any) -> Tensor:
        several = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(i) if isinstance(i, list) else i for i in several))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    """While it is on, what is made on the device is made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.removeprefix("aten::")
    tensors = list[Tensor]()
    inside, named = (_map(lambda each: _inner(each, tensors), part) for part in (args, kwargs))
    away = any(isinstance(each, Away) for each in tensors)
    if away and name != "copy_":
        _together(name, tensors, args)
    to = kwargs.get("device")
    if to is not None:
        named["device"] = CPU
    out = func(*inside, **named)
    if name == "copy_":
        return args[0]
    if not (away if to is None else torch.device(to) == GPU):
        return out
    out = _map(Away, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if away else out


def _inner(each: Tensor, into: list[Tensor]) -> Tensor:
    into.append(each)
    return each.held if isinstance(each, Away) else each


def _map(change: Callable[[Tensor], Any], part: Any) -> Any:
    """`part` with each of its tensors changed."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple | list):
        return type(part)(_map(change, each) for each in part)
    return {name: _map(change, each) for name, each in part.items()} if isinstance(part, dict) else part


def _together(name: str, tensors: list[Tensor], args: tuple[Any, ...]) -> None:
    """RuntimeError where tensors of both places meet."""
    if name in ("index", "index_put", "index_put_", "_index_put_impl_") and isinstance(args[0], Away):
        tensors = list(args[2:3])  # the rows may be the processor's; what is put there may not
    stray = [each for each in tensors if isinstance(each, Tensor) and not isinstance(each, Away) and each.dim()]
    if stray:
        raise RuntimeError(f"Expected all tensors to be on the same device, and {name} got some of each.")


@contextmanager
def gpu() -> Iterator[torch.device]:
    """This process on a GPU that is not there."""
    made, load = torch.tensor, PreTrainedModel.from_pretrained.__func__  # pyright: ignore

    def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        # Of a list torch itself makes a tensor on `meta` without looking at the numbers.
        if isinstance(data, list):
            data = [each.item() if isinstance(each, Away) else each for each in data]
        whole = made(data, **options)
        return whole if device is None else whole.to(device)

    def loaded(cls: Any, *names: Any, **options: Any) -> Any:
        with _disable_current_modes():  # the library builds a model on `meta` before it has weights
            return load(cls, *names, **options)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), _Pretending():
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
        patch.setattr(torch._C, "_InferenceMode", lambda mode: torch.no_grad())  # whose tensors cannot be wrapped
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(PreTrainedModel, "from_pretrained", classmethod(loaded))
        optimiser = sys.modules["torch.optim.optimizer"]
        patch.setattr(optimiser, "_get_fused_kernels_supported_devices", lambda: ["cpu", GPU.type])
        patch.setattr(device._chosen, "device", GPU)
        yield GPU
