"""The one place that chooses who runs the dataframes: this machine, or a Ray cluster.

Daft takes two seconds to import and sends usage reports unless it is told not to before its import, so nothing
else in Byway imports it: a module that needs a dataframe asks `daft()` inside the function that needs it. This
module does not know what the dataframes hold.
"""

import logging
import os
import sys
from functools import cache
from types import ModuleType
from typing import Literal

from byway.errors import UserError

Engine = Literal["native", "ray"]

_QUIET = {"DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}


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


def use(engine: Engine) -> None:
    """Choose the runner for this process, once; the native one holds where nothing was chosen.

    Raises UserError where Ray is asked for and not installed, or where the process already has the other one.
    """
    module = daft()
    if module.get_or_infer_runner_type() == engine:
        return
    try:
        if engine == "ray":
            module.set_runner_ray(noop_if_initialized=True)
        else:
            module.set_runner_native()
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'byway[ray]'.") from error
    except module.exceptions.DaftCoreException as error:
        raise UserError(
            f"This process already runs its dataframes elsewhere; start another for {engine}."
        ) from error
