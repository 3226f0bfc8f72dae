"""Figures 3, 4 and 5 of paper 2 on a workspace that `byway run` took to 09-pairs: recall and match rate by step.

    python benchmarks/video.py W --figure 3 --seeds 3 --steps 300 > figure-3.json

Figure 3 compares the four prompts, figure 4 the number of frames (the workspace needs media.frames = 8), figure 5
the thumbnail and one sampled frame; 4 and 5 with the chain of thought, as in the paper. Every variant has the same
pairs, steps, batches and seeds. One JSON object: a list of curves, and the last point's mean and 95% interval over
the seeds (Student's t).
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from byway import config
from byway.artifact import Work
from byway.data import catalog, media
from byway.interests import describe, tree
from byway.video import curate, tune
from byway.video.model import contexts, new_seer

VARIANTS: dict[int, dict[str, dict[str, Any]]] = {
    3: {kind: {"prompts": (kind,)} for kind in ("text", "video", "both", "thought")},
    4: {f"{n} frames": {"prompts": ("thought",), "frames": n} for n in (1, 2, 4, 8)},
    5: {
        "thumbnail": {"prompts": ("thought",), "pictures": "thumbnail"},
        "one frame": {"prompts": ("thought",), "frames": 1},
    },
}


def curve(
    workspace: Path, knobs: config.MultimodalModel, seed: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Train once; the curve on validation pairs and the final figures on held-out ones."""
    pairs = curate.load(workspace / "09-pairs")
    asked = contexts(
        knobs,
        pairs.level,
        pairs.delta,
        catalog.load(workspace / "01-catalog"),
        tree.load(workspace / "04-tree"),
        describe.load(workspace / "05-descriptions"),
        media.load(workspace / "01-media"),
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), Path(folder), np.random.default_rng(seed))
        seer = new_seer(tune.started_from(knobs, workspace / "07-language-model"), asked, work.rng)
        points, _ = tune.fine_tune(seer, knobs, pairs, asked, work)
        # The held-out pairs are the same for every variant and seed.
        final = tune.measure(seer, knobs.prompts[0], asked, pairs, knobs, np.random.default_rng(0))
    return points, final


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half the width of its 95% interval."""
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {"mean": round(float(np.mean(values)), 4), "half_width": round(half, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--figure", type=int, choices=sorted(VARIANTS), required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="knob=value", help="of multimodal_model")
    given = parser.parse_args()
    overrides = [f"multimodal_model.{text}" for text in given.set]
    base = config.load(given.workspace / "byway.toml", overrides).multimodal_model
    if given.steps:
        base = replace(base, steps=given.steps)
    runs: list[dict[str, Any]] = []
    for name, changes in VARIANTS[given.figure].items():
        for seed in range(given.seeds):
            started = time.perf_counter()
            points, final = curve(given.workspace, replace(base, **changes), seed)
            seconds = round(time.perf_counter() - started, 1)
            runs.append({"variant": name, "seed": seed, "seconds": seconds, "curve": points, "final": final})
    summary = {
        name: {
            figure: interval([_of(run["final"], figure) for run in runs if run["variant"] == name])
            for figure in ("recall", "recall_at_10", "match_rate")
        }
        for name in VARIANTS[given.figure]
    }
    print(json.dumps({"figure": given.figure, "steps": base.steps, "summary": summary, "runs": runs}, indent=1))


def _of(final: dict[str, float], figure: str) -> float:
    """A figure whatever its kind of prompt."""
    return next((v for k, v in final.items() if k.startswith(f"video.{figure}.")), 0.0)


if __name__ == "__main__":
    main()
