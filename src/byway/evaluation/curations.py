"""18-curations: diversified against random samples at equal size, and what a model then says (paper 1, figure 3).

For each way to curate and each seed the language model is fine-tuned anew, with the settings of its own section,
and asked, alone, about every ordered pair. It takes as long as so many runs of 07 and 08, so it is made when it is
asked for.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.metrics import over_seeds
from byway.base.ranking import recall_at
from byway.data.events import Events
from byway.evaluation import offline
from byway.evaluation.comparison import Runs, place, trained
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import plan, tune
from byway.transitions import curate
from byway.transitions import table as tables
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples

KINDS: tuple[config.Curation, ...] = ("diversified", "random")
"""The ways to curate that paper 1 compares, of as many samples each; the log has more."""
CLAIMED = ("labels.gini", "model.macro_recall_at_10.heldout")
"""What diversified samples should make smaller, and what greater."""


def build(
    work: Work,
    *,
    events: Events,
    vectors: NDArray[np.float32],
    tree: Tree,
    descriptions: Descriptions,
    sections: config.Config,
) -> Outcome:
    """Compare; figures of a finished model are kept in the scratch, so that a stopped run goes on."""
    one = partial(_one, events=events, vectors=vectors, tree=tree, descriptions=descriptions, sections=sections)
    runs = trained(work, KINDS, one)
    return Outcome(counts={"models": sum(map(len, runs.values()))}, metrics=pooled(runs))


def pooled(runs: Runs) -> dict[str, Any]:
    """Figures over the seeds of each kind, and paper 1's claim as differences, seed by seed, with intervals."""
    metrics: dict[str, Any] = {}
    for kind, found in runs.items():
        metrics |= _over_seeds(kind, found)
    for figure in CLAIMED:
        pairs = zip(runs["diversified"], runs["random"], strict=True)
        apart = over_seeds([one[figure] - other[figure] for one, other in pairs])
        metrics[f"curations.difference.{figure}"] = apart
    return metrics


def _one(
    kind: str,
    seed: int,
    folder: Path,
    *,
    events: Events,
    vectors: NDArray[np.float32],
    tree: Tree,
    descriptions: Descriptions,
    sections: config.Config,
) -> dict[str, Any]:
    """Figures of one model."""
    here = place(folder / "transitions", seed, 6)
    curate.build(here, replace(sections.transitions, curation=kind), events, tree)
    transitions = curate.load(here.out)
    similarity_MM = tree.similarity(vectors, transitions.level)
    here = place(folder / "model", seed, 7)
    tune.build(
        here,
        sections.language_model,
        transitions,
        descriptions,
        similarity_MM,
        arithmetic=sections.run.precision,
        processes=sections.run.processes,
    )
    tuned = tune.load(here.out)
    here = place(folder / "table", seed, 8)
    given = plan.Given(transitions, descriptions, tuned, similarity_MM, sections.run.precision)
    plan.build(here, given)
    table = tables.load(here.out)
    heldout = transitions.heldout.several()
    known = Successors.of(transitions).seen(heldout.context)
    last = tuned.curve[-1]
    return {
        **offline.labels(table.model, "labels"),
        "samples": len(transitions.samples),
        "match_rate": last["match_rate"],
        "distinct_outputs": last["distinct_outputs"],
        "curve": tuned.curve,
        **offline.recalls(
            "model", offline.ranks_in_table(table.model, heldout, table.model_triples), heldout, known
        ),
        **offline.recalls("served", offline.ranks_in_table(table.clusters, heldout, table.triples), heldout, known),
        **(_turned(table.model, heldout) if sections.transitions.history == 2 else {}),
    }


def _turned(ranking_MMn: NDArray[np.int32], heldout: Samples) -> dict[str, float]:
    """What the order of the two interests is worth to the model: the same asked the other way round."""
    other = ranking_MMn.swapaxes(0, 1)
    two = ~np.eye(len(other), dtype=bool)
    return {
        "turned.recall_at_10.heldout": recall_at(offline.ranks_in_table(other, heldout), 10, heldout.count),
        "turned.same_first": round(float((other[two][:, 0] == ranking_MMn[two][:, 0]).mean()), 4),
    }


def _over_seeds(kind: str, runs: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Each figure's mean and 95% interval; histograms, sorted, are averaged place by place."""
    metrics: dict[str, Any] = {}
    histogram, curve = "labels.histogram", "curve"
    for name in (name for name in runs[0] if name not in (histogram, curve)):
        key = f"language.{name}.{kind}" if name.startswith("labels.") else f"curations.{name}.{kind}"
        found = over_seeds([run[name] for run in runs], share=name not in ("samples", "distinct_outputs"))
        metrics |= {key: found["mean"], f"{key}.low": found["low"], f"{key}.high": found["high"]}
    metrics[f"language.{histogram}.{kind}"] = np.round(np.mean([r[histogram] for r in runs], axis=0), 2).tolist()
    return metrics
