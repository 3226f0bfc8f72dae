"""18-curations: diversified against random samples at equal size, and what a model then says (paper 1, figure 3).

For each way to curate and each seed the language model is fine-tuned anew, with the knobs of its own section, and
asked, alone, about every ordered pair. It takes as long as so many runs of 07 and 08, so it is made when it is
asked for.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway import artifact, config
from byway.artifact import Outcome, Work
from byway.data.events import Events
from byway.evaluation import offline
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import curate, plan, tune
from byway.progress import say
from byway.ranking import macro_recall_at, recall_at

SKEW = ("gini", "entropy", "top1pct_share", "rare_share")
"""How evenly first answers fall on the labels (`offline.labels`)."""


def build(
    work: Work,
    knobs: config.Curations,
    events: Events,
    vectors: NDArray[np.float32],
    tree: Tree,
    descriptions: Descriptions,
    sections: config.Config,
) -> Outcome:
    """Compare; each finished model is kept in the scratch, so that a stopped run goes on with the next."""
    metrics: dict[str, Any] = {}
    runs: dict[str, list[dict[str, Any]]] = {}
    for kind in knobs.kinds:
        runs[kind] = []
        for seed in range(knobs.seeds):
            known = work.scratch / f"{kind}-{seed}.json"
            if not known.exists():
                say(f"{kind} curation, seed {seed + 1} of {knobs.seeds} …")
                found = _one(work, kind, seed, events, vectors, tree, descriptions, sections)
                artifact.write_atomic(known, msgspec.json.encode(found))
                shutil.rmtree(work.scratch / f"{kind}-{seed}")
            runs[kind].append(msgspec.json.decode(known.read_bytes()))
        metrics |= _over_seeds(kind, runs[kind])
    (work.out / "runs.json").write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=1))
    return Outcome(counts={"models": sum(map(len, runs.values()))}, metrics=metrics)


def _one(
    work: Work,
    kind: config.Curation,
    seed: int,
    events: Events,
    vectors: NDArray[np.float32],
    tree: Tree,
    descriptions: Descriptions,
    sections: config.Config,
) -> dict[str, Any]:
    """Figures of one model."""

    def place(number: int, name: str) -> Work:
        out, scratch = (work.scratch / f"{kind}-{seed}" / name / part for part in ("out", "scratch"))
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        return Work(out, scratch, np.random.default_rng([seed, number]))

    here = place(6, "transitions")
    curate.build(here, replace(sections.transitions, curation=kind), events, tree)
    transitions = curate.load(here.out)
    here = place(7, "model")
    tune.build(here, sections.language_model, transitions, descriptions)
    tuned = tune.load(here.out)
    here = place(8, "table")
    plan.build(here, sections.transition_table, transitions, descriptions, tuned, vectors, tree)
    table = plan.load(here.out)
    heldout = transitions.heldout.several()
    rank = offline.ranks_in_table(table.model, heldout, table.model_triples)
    last = tuned.curve[-1]
    return {
        **offline.labels(table.model, "labels"),
        "samples": len(transitions.samples),
        "recall_at_10": recall_at(rank, 10, heldout.count),
        "macro_recall_at_10": macro_recall_at(rank, 10, heldout.label, heldout.count),
        "match_rate": last["match_rate"],
        "distinct_outputs": last["distinct_outputs"],
    }


def _over_seeds(kind: str, runs: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The mean of each figure under its key, and its range; histograms, sorted, are averaged place by place."""
    metrics: dict[str, Any] = {}
    keys = {f"labels.{name}": f"language.labels.{name}.{kind}" for name in SKEW}
    keys |= {
        name: f"curations.{name}.{kind}"
        for name in ("samples", "recall_at_10", "macro_recall_at_10", "match_rate", "distinct_outputs")
    }
    for name, key in keys.items():
        values = [run[name] for run in runs]
        metrics[key] = round(float(np.mean(values)), 4)
        metrics |= {f"{key}.low": min(values), f"{key}.high": max(values)}
    histograms = np.mean([run["labels.histogram"] for run in runs], axis=0)
    metrics[f"language.labels.histogram.{kind}"] = np.round(histograms, 2).tolist()
    return metrics
