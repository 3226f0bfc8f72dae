"""One model trained by several processes: each draws batches of its own, and their gradients are averaged.

The processes are of one machine and join through accelerate. This module knows tensors; it does not know models,
losses or artifacts.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from byway.base import device, memory
from byway.base.errors import UserError

Made = TypeVar("Made")


def together(processes: int, function: Callable[..., Made], *arguments: Any) -> Made:
    """Run `function(*arguments)` here, and at the same time in `processes - 1` more; returns what it returns here.

    Function and arguments must be picklable. The processors of this process are shared out among all. Raises
    UserError where one of the others ends before its time, and on a GPU, which one process has to itself.
    """
    if processes <= 1:
        return function(*arguments)
    if device.chosen().type != "cpu":
        raise UserError(
            'Several processes train together on processors only: set run.processes = 1, or run.device = "cpu".'
        )
    threads = torch.get_num_threads()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    common |= {"LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": str(max(1, threads // processes))}
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(rank, common, function, arguments), daemon=True)
        for rank in range(1, processes)
    ]
    for helper in helpers:
        helper.start()
    try:
        with _joined(0, common):
            return function(*arguments)
    except RuntimeError as error:
        for helper in helpers:
            helper.join(5)
        ended = [helper.exitcode for helper in helpers if helper.exitcode]
        if not ended:
            raise
        raise UserError(
            f"One of the {processes} processes that train together ended with code {ended[0]}; run the same "
            "command again, which goes on from the last checkpoint, or set run.processes = 1."
        ) from error
    finally:
        for helper in helpers:
            helper.join(5)
            helper.kill()
        torch.set_num_threads(threads)


def rank() -> int:
    """Number of this process among those that train together; 0 is the one that writes."""
    return torch.distributed.get_rank() if _several() else 0


def size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _several() else 1


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Give each weight its gradient's mean over the processes, 0 where one has none; waits for all of them."""
    if size() == 1:
        return
    from accelerate.utils import reduce

    own = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    averaged: Any = reduce(own, reduction="mean")
    for weight, gradient in zip(weights, averaged, strict=True):
        weight.grad = gradient


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _help(number: int, common: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    memory.keep()
    with _joined(number, common):
        function(*arguments)


@contextmanager
def _joined(number: int, common: dict[str, str]) -> Generator[None]:
    """This process as number `number`, until all have come."""
    from accelerate import PartialState

    own = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    state = PartialState(cpu=True)
    torch.set_num_threads(int(common["OMP_NUM_THREADS"]))
    try:
        yield
        state.wait_for_everyone()
    finally:
        state.destroy_process_group()
        PartialState._reset_state()  # pyright: ignore[reportPrivateUsage]  # else the next training finds it
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
