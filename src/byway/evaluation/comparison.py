"""Models of several kinds, each from several seeds: trained one after the other, figures kept as they come.

It takes hours, so the figures of a finished model stand in the scratch and a stopped run goes on after it. What is
trained, and what is measured, is its caller's.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from byway.base.artifact import Work, write_atomic
from byway.base.metrics import SEEDS
from byway.base.progress import say

Runs = dict[str, list[dict[str, Any]]]
"""By kind, the figures of each seed's model."""


def trained(work: Work, names: Sequence[str], one: Callable[[str, int, Path], dict[str, Any]]) -> Runs:
    """Figures of every kind and seed, written to `runs.json` too.

    `one` trains and measures the model of a name and a seed, in a folder that goes with it.
    """
    runs: Runs = {name: [] for name in names}
    for seed in range(SEEDS):
        for place, name in enumerate(names):
            known, folder = work.scratch / f"{name}-{seed}.json", work.scratch / f"{name}-{seed}"
            if not known.exists():
                number = seed * len(names) + place + 1
                say(f"{name}, seed {seed + 1} of {SEEDS} (model {number} of {SEEDS * len(names)}) …")
                write_atomic(known, msgspec.json.encode(one(name, seed, folder)))
                shutil.rmtree(folder)
            runs[name].append(msgspec.json.decode(known.read_bytes()))
    (work.out / "runs.json").write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=1))
    return runs


def place(folder: Path, *seed: int) -> Work:
    """A stage's place of its own, empty but for what its scratch has kept."""
    out, scratch = folder / "out", folder / "scratch"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    return Work(out, scratch, np.random.default_rng(seed))
