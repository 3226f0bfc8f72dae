"""The one place that chooses who runs the dataframes: this machine, or a Ray cluster.

Daft takes two seconds to import and sends usage reports unless it is told not to before its import, so nothing
else in Byway imports it: a module that needs a dataframe asks `daft()` inside the function that needs it. This
module does not know what the dataframes hold.
"""

import logging
import os
from types import ModuleType
from typing import Literal

from byway.errors import UserError

Engine = Literal["native", "ray"]

_QUIET = {"DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}

_chosen: list[Engine] = []


def daft() -> ModuleType:
    """Daft, imported at the first call with its telemetry and its progress bars off."""
    os.environ.update(_QUIET)
    import daft as module

    # What fails inside the engine reaches us as an exception; its log line would only repeat it.
    logging.getLogger("daft_local_execution").setLevel(logging.CRITICAL)
    return module


def use(engine: Engine) -> None:
    """Choose the runner for this process, once; the native one holds where nothing was chosen.

    Raises UserError where Ray is asked for and not installed, or where the process already has the other one.
    """
    if _chosen == [engine]:
        return
    if _chosen:
        raise UserError(
            f"This process already runs dataframes on {_chosen[0]}; start another one for {engine}."
        )
    module = daft()
    if engine == "ray":
        try:
            module.set_runner_ray(noop_if_initialized=True)
        except ImportError as error:
            raise UserError("--engine ray needs Ray: pip install 'daft[ray]'.") from error
    else:
        module.set_runner_native()
    _chosen.append(engine)
