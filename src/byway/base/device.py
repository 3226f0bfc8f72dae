"""Where torch computes: this machine's processors, or a GPU.

Chosen once a process, by `run.device`. Models are put there as they are loaded; what they read is made where they
are, and what they give comes back to the processor before it is an array. Random numbers are drawn on the processor
and files written from there, so that no result depends on the device but for rounding. This module knows tensors;
it does not know models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byway.base.errors import UserError

CPU = torch.device("cpu")
SHARE, MOST = 0.25, 16
"""Of a GPU's free memory, how much a batch may take; and how many of the processor's batches it is at most."""


@dataclass(slots=True)
class _Chosen:
    """What `use` was told; who never was computes on the processor."""

    device: torch.device = CPU


_chosen = _Chosen()


def use(setting: str, engine: str = "native") -> None:
    """Choose the device for this process: "cpu", "cuda", "mps", or "auto", which takes a GPU where there is one.

    What is spread over a Ray cluster is computed on its processors, and so is the rest of such a run.

    Raises UserError where a device is asked for that is not there.
    """
    if engine == "ray":
        if setting not in ("auto", "cpu"):
            raise UserError(f'A Ray cluster computes on its processors: leave run.device = "{setting}" out.')
        setting = "cpu"
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if setting == "auto":
        setting = next(name for name, is_there in there.items() if is_there())
    elif not there[setting]():
        raise UserError(
            f'run.device = "{setting}" needs a GPU that torch can use, and there is none: set run.device = "auto", '
            "or install the build of torch that is made for this machine's GPU."
        )
    _chosen.device = torch.device(setting)


def chosen() -> torch.device:
    """The device of this process."""
    return _chosen.device


def several(needs: int) -> int:
    """How many of the processor's batches are computed as one, where each needs so many bytes.

    One on the processor. On a GPU, which has little to do with so few numbers at a time, as many as fit into a
    share of its free memory.
    """
    if _chosen.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(_chosen.device)
    free += torch.cuda.memory_reserved(_chosen.device) - torch.cuda.memory_allocated(_chosen.device)
    return max(1, min(MOST, int(SHARE * free / max(1, needs))))


class Dropout(nn.Dropout):
    """Dropout that is drawn on the processor, so that a training goes the same way wherever it runs."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" or not self.training:
            return super().forward(input)
        kept = torch.empty(input.shape, dtype=input.dtype).bernoulli_(1 - self.p).div_(1 - self.p)
        return input * kept.to(input.device)
