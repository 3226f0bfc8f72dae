"""Diversified against random curation, at equal size: what the model then answers to all pairs (paper 1, figure 3).

    python benchmarks/curation.py W [--seeds 3] [--set language_model.steps=150 ...]

W has been taken to 06-transitions by `byway run`. For each way to curate and each seed the language model is
fine-tuned anew and asked, alone, about every ordered pair. Printed as JSON, with the mean and the range over seeds:
how evenly its first answers fall on the labels (Gini 0 is even; entropy over that of an even spread; the share of
pairs that the most frequent 1% of labels take, the paper's region B; the share of labels with less than a tenth of
an even spread's pairs, region A), its recall at 10 on held-out transitions, over transitions and averaged over
labels, and its match rate. The paper's recipe is

    --set language_model.attention=causal --set language_model.choice_weight=0 --set language_model.further_weight=1
    --set language_model.balance=0
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from byway import config, memory
from byway.artifact import Work
from byway.data import events
from byway.evaluation import offline
from byway.interests import describe, embed, tree
from byway.language import curate, plan, tune
from byway.ranking import macro_recall_at, recall_at


def one(workspace: Path, knobs: config.Config, curation: Any, seed: int) -> dict[str, Any]:
    """Figures of one model."""
    grown = tree.load(workspace / "04-tree")
    names = describe.load(workspace / "05-descriptions")
    vectors = embed.load(workspace / "02-embeddings")
    with tempfile.TemporaryDirectory() as folder:

        def work(name: str) -> Work:
            out, scratch = Path(folder) / name, Path(folder) / f"{name}.scratch"
            out.mkdir()
            scratch.mkdir()
            return Work(out, scratch, np.random.default_rng([seed, len(name)]))

        log = events.load(workspace / "01-catalog")
        here = work("transitions")
        curate.build(here, replace(knobs.transitions, curation=curation), log, grown)
        transitions = curate.load(here.out)
        here = work("model")
        tune.build(here, knobs.language_model, transitions, names)
        tuned = tune.load(here.out)
        here = work("table")
        plan.build(here, knobs.transition_table, transitions, names, tuned, vectors, grown)
        table = plan.load(here.out)
        heldout = transitions.heldout.several()
        rank = offline.ranks_in_table(table.model, heldout, table.model_triples)
        last = tuned.curve[-1]
        found = {
            **offline.labels(table.model, "labels"),
            "samples": len(transitions.samples),
            "recall_at_10": recall_at(rank, 10, heldout.count),
            "macro_recall_at_10": macro_recall_at(rank, 10, heldout.label, heldout.count),
            "match_rate": last["match_rate"],
            "distinct_outputs": last["distinct_outputs"],
        }
    return found


def main() -> None:
    memory.keep()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curations", nargs="+", default=["diversified", "random"])
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", help="a knob, as byway run takes it"
    )
    given = parser.parse_args()
    knobs = config.load(given.workspace / "byway.toml", given.overrides)
    found: dict[str, Any] = {}
    for curation in given.curations:
        runs = [one(given.workspace, knobs, curation, seed) for seed in range(given.seeds)]
        figures = [name for name, value in runs[0].items() if not isinstance(value, list)]
        found[curation] = {
            name: {
                "mean": round(float(np.mean([run[name] for run in runs])), 4),
                "low": min(run[name] for run in runs),
                "high": max(run[name] for run in runs),
            }
            for name in figures
        } | {"histograms": [run["labels.histogram"] for run in runs]}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
