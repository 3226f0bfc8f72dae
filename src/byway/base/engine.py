"""The one place that chooses who does the work that can be shared: this machine, or a Ray cluster.

Dataframes go through Daft (`daft`), long lists of equal tasks through `spread`.

Daft takes two seconds to import and sends usage reports unless it is told not to before its import, so nothing
else in Byway imports it: a module that needs a dataframe asks `daft()` inside the function that needs it. This
module does not know what the dataframes hold.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, TypeVar

from byway.base import memory
from byway.base.errors import UserError

Engine = Literal["native", "ray"]
Part = TypeVar("Part")
Made = TypeVar("Made")

ATTEMPTS = 3
"""How often a part is asked again after the process that had it was lost."""

_QUIET = {"DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}


@dataclass(slots=True)
class _Chosen:
    """What `use` was told."""

    engine: Engine = "native"
    threads: int = 0


_chosen = _Chosen()


@cache
def daft() -> ModuleType:
    """Daft, imported at the first call: telemetry and progress bars off, rows in the order of their files."""
    os.environ.update(_QUIET)
    import daft as module

    # What fails inside the engine reaches us as an exception; its log line would only repeat it.
    logging.getLogger("daft_local_execution").setLevel(logging.CRITICAL)
    module.set_execution_config(maintain_order=True)
    return module


def lost() -> tuple[type[BaseException], ...]:
    """What is raised where a cluster lost a worker in the middle of its work; nothing on one machine."""
    ray = sys.modules.get("ray")
    return () if ray is None else (ray.exceptions.RayError,)


def spread(make: Callable[[], Callable[[Part], Made]], parts: Sequence[Part]) -> Iterator[tuple[int, Made]]:
    """What the function that `make` returns makes of each part, with the part's number.

    Here: one part after the other. On a cluster: by actors of `run.threads` processors each (0: as many as its
    smallest node has), in the order in which they are done. Each calls `make` once, so that what it loads is loaded
    once; paths that it holds must mean the same on every node. The part of an actor that is lost is asked again by
    its successor.

    Raises UserError where one part was lost more than `ATTEMPTS` times.
    """
    if not parts:
        return
    if _chosen.engine == "native":
        work = make()
        yield from ((i, work(part)) for i, part in enumerate(parts))
        return
    ray: Any = import_module("ray")
    gone: type[Exception] = import_module("ray.exceptions").RayActorError

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    nodes = [n for node in ray.nodes() if node["Alive"] and (n := int(node["Resources"].get("CPU", 0)))]
    if not nodes:
        raise UserError("No node of the cluster has a processor; give one some with ray start --num-cpus.")
    size = min(_chosen.threads or min(nodes), max(nodes))
    actor: Any = ray.remote(num_cpus=size, max_restarts=-1, max_task_retries=ATTEMPTS)(_Actor)
    shared = ray.put(make)
    actors = [actor.remote(shared, size) for _ in range(min(len(parts), sum(n // size for n in nodes)))]
    left = iter(enumerate(parts))
    asked: dict[Any, tuple[int, Any]] = {}

    def ask(whom: Any) -> None:
        for i, part in left:
            asked[whom.work.remote(part)] = i, whom
            return

    for each in actors:
        ask(each)
    try:
        while asked:
            (done,), _ = ray.wait(list(asked), num_returns=1)
            i, whom = asked.pop(done)
            yield i, ray.get(done)
            ask(whom)
    except gone as error:
        raise UserError(
            f"A worker of the cluster was lost ({str(error).splitlines()[0]}); look at the memory of the nodes and "
            "run the same command again, which goes on from what is done."
        ) from error
    finally:
        for each in actors:
            ray.kill(each)


class _Actor:
    """A process of the cluster that does parts of one stage."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], threads: int):
        import torch

        memory.keep()
        torch.set_num_threads(threads)
        self.function = make()

    def work(self, part: Any) -> Any:
        return self.function(part)


def processors() -> int:
    """How many processors this process may use: OMP_NUM_THREADS where it is set, else those it is allowed to."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def use(engine: Engine, threads: int = 0) -> None:
    """Choose the runner for this process, once; the native one holds where nothing was chosen.

    `threads` is how many processors an actor of a cluster has.

    Raises UserError where Ray is asked for and not installed, or where the process already has the other one.
    """
    module = daft()
    try:
        if module.get_or_infer_runner_type() == engine:
            pass
        elif engine == "ray":
            module.set_runner_ray(noop_if_initialized=True)
        else:
            module.set_runner_native()
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'byway[ray]'.") from error
    except module.exceptions.DaftCoreException as error:
        raise UserError(
            f"This process already runs its dataframes elsewhere; start another for {engine}."
        ) from error
    _chosen.engine, _chosen.threads = engine, threads
