"""The context table after a fifth of new items: what the refresh costs, and whether it answers as a full run does.

    python benchmarks/context.py W [--new 0.2] [--json]

W is a workspace that was taken to 11-context-table. In a copy of it three runs make that artifact: all items that W
covers; all but the least popular `new` of them; and all again, which finds the others answered. `ratio.seconds` is
the last run's stage over the first's, model loading included; `ratio.items` what was computed over what is there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.base import artifact
from byway.data import events
from byway.data.events import traffic as traffic_of
from byway.multimodal import plan

STAGE = "11-context-table"


def made(folder: Path, coverage: float | None) -> tuple[float, dict[str, int], plan.ContextTable]:
    """Make the artifact; the seconds of the stage, its counts and the table."""
    command = [sys.executable, "-m", "byway", "run", str(folder), "--only", "context_table"]
    command += [] if coverage is None else ["--set", f"context_table.coverage={coverage}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    record = artifact.read_record(folder / STAGE)
    assert record is not None
    return record.timings["seconds"], record.counts, plan.load(folder / STAGE)


def at_share(items: NDArray[np.int32], traffic: NDArray[np.float64], kept: int) -> float:
    """The share of the traffic that the `kept` most popular of `items` make up, so that no more are covered."""
    order = np.lexsort((items, -traffic[items]))
    return float(traffic[items][order][:kept].sum() / traffic.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--new", type=float, default=0.2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    # Beside the workspace, so that files can be linked instead of copied.
    with tempfile.TemporaryDirectory(dir=given.workspace.resolve().parent) as place:
        folder = Path(place) / "w"
        shutil.copytree(given.workspace, folder, copy_function=os.link)
        for path in folder.glob(f"{STAGE}*"):
            shutil.rmtree(path)
        full, _, whole = made(folder, None)
        traffic = traffic_of(events.load(folder / "01-catalog"))
        kept = round((1 - given.new) * len(whole.item))
        made(folder, at_share(whole.item, traffic, kept))
        seconds, counts, again = made(folder, None)
        same = all(
            np.array_equal(getattr(whole, name), getattr(again, name)) for name in ("item", "clusters", "via")
        )
        apart = np.abs(np.where(np.isfinite(whole.scores), whole.scores - again.scores, 0)).max()
        first = (whole.clusters[:, 0] == again.clusters[:, 0]).mean()
    result: dict[str, Any] = {
        "items": len(whole.item),
        "computed": counts["computed"],
        "seconds_full": round(full, 1),
        "seconds_refresh": round(seconds, 1),
        "ratio.seconds": round(seconds / full, 3),
        "ratio.items": round(counts["computed"] / len(whole.item), 3),
        "same_answers": same,
        "same_first_answers": round(float(first), 4),
        "scores_apart": round(float(apart), 4),
    }
    print(json.dumps(result) if given.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
