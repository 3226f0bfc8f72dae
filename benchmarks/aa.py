"""How often identical arms differ significantly: an experiment's A/A control, over as many pairs as one likes.

    python benchmarks/aa.py W [--pairs 100] [--design paired|segments] [--set SETTING=VALUE] [--json PATH]

W is a workspace whose stages up to 12-planner are there. Each pair is lived for real: two controls with the
same accounts and other chance, or each with a segment, over as many deals as `experiment.seeds` says. About 5% of
comparisons should be significant; from 3% to 7% is as it should be. Metrics of one pair hang together, so that the
interval of the share is over pairs.
`--scratch` keeps the runs, and takes those that are there.
"""

import argparse
import contextlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config, metrics
from byway.base.artifact import Work
from byway.simulation import experiment
from byway.simulation.arms import CONTROL
from byway.workflow.artifacts import Inputs
from byway.workflow.stages import EXPERIMENT

AS_IT_SHOULD = 0.03, 0.07


def lived(workspace: Path, settings: config.Config, scratch: Path, seed: int) -> dict[str, Any]:
    """The whole stage with the control alone: its figures."""
    with tempfile.TemporaryDirectory() as out:
        work = Work(Path(out), scratch, np.random.default_rng(seed))
        EXPERIMENT.build(work, Inputs(workspace, settings, EXPERIMENT))
        return experiment.load(Path(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--design", choices=("paired", "segments"), default="paired")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SETTING=VALUE", help="as experiment.users=400"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="keeps runs; of one workspace and setting")
    parser.add_argument("--json", type=Path, help="where to write the result")
    given = parser.parse_args()
    read = config.load(given.workspace / "byway.toml", given.set)
    own = replace(read.experiment, arms=(CONTROL,), design=given.design)
    experiment.AA_PAIRS = given.pairs
    with contextlib.ExitStack() as stack:
        scratch = given.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        found = lived(given.workspace, replace(read, experiment=own), scratch, given.seed)
    aa, setting = found["controls"]["aa"], found["setting"]
    by_pair = metrics.over_seeds(aa["by_pair"], share=True)
    low, high = AS_IT_SHOULD
    result = {
        "setting": setting,
        "pairs": aa["seeds"],
        "tests": aa["tests"],
        "share": {**by_pair, "mean": aa["share"]},
        "as_it_should_be": low <= aa["share"] <= high,
        "by_metric": aa["by_metric"],
    }
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
