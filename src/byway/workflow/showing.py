"""What a workspace holds, for a person and for a machine."""

import json
from pathlib import Path
from typing import Any

import msgspec

from byway.base import artifact
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import command
from byway.serving import bundle
from byway.serving.answers import Answer
from byway.serving.bundle import Bundle
from byway.serving.trial import BROKEN_MODEL
from byway.workflow import pipeline
from byway.workflow.artifacts import Artifacts, Stage, inputs_of, settings_of
from byway.workflow.stages import BUNDLE, CATALOG, DESCRIPTIONS, REFRESH, TREE

SHOWN = (
    ("tree.levels", "clusters at levels 1 to 4"),
    ("tree.balance_blended", "heaviest over mean cluster, blended weight"),
    ("tree.balance_raw", "heaviest over mean cluster, raw traffic"),
    ("tree.coherence", "mean cosine of an item to its cluster's centroid"),
    ("language.match_rate", "free answers that are exactly a cluster's description"),
    ("language.distinct_outputs", "different ones among them"),
    ("language.recall_at_1.heldout", "the table's first answer is what people turned to"),
    ("language.recall_at_10.heldout", "the table's first ten hold it"),
    ("language_model.recall_at_10.heldout", "  the model without the log's counts"),
    ("baseline.successor.recall_at_10.heldout", "  the log's counts without the model"),
    ("baseline.popularity.recall_at_10.heldout", "  popularity"),
    ("baseline.zero_shot.recall_at_10.heldout", "  the model before fine-tuning"),
    ("table.entries", "pairs of interests answered"),
    ("table.legal", "share whose answer is a cluster and neither of the two"),
    ("video.similar_satisfaction", "content with the next video where it is similar"),
    ("video.serendipitous_satisfaction", "  where it is serendipitous"),
    *(
        shown
        for kind in ("text", "video", "both", "thought")
        for shown in (
            (f"video.match_rate.{kind}", f"free answers that are exactly a description, prompt {kind!r}"),
            (f"video.recall.{kind}", "  the first answer is what surprised and pleased next"),
            (f"video.recall_at_10.{kind}", "  among the first ten"),
        )
    ),
    ("video.baseline.popularity.recall_at_10", "  popularity"),
    ("video.baseline.counts.recall_at_10", "  who knows the video's cluster and the log"),
    ("video.coverage", "share of the impressions whose videos were answered"),
    ("item_policy.recall_at_10", "the item policy's first ten hold the next item"),
    ("baseline.item_popularity.recall_at_10", "  popularity"),
)
OF_REFRESH = "refresh"


def as_json(workspace: Path, config: Config) -> str:
    """One object, a key an artifact, each with its record, metrics, gates and drift; and all figures by name."""
    records = _records(workspace)
    shown = {
        stage.folder: _shown(records[stage.name], _drift(workspace, config, stage, records[stage.name]))
        for stage in pipeline.STAGES
        if stage.name in records
    }
    if refreshed := records.get(OF_REFRESH):
        shown[REFRESH] = _shown(refreshed, _edited(workspace / REFRESH, refreshed))
    return json.dumps({**shown, "figures": pipeline.figures(records)}, indent=2, ensure_ascii=False)


def figures(workspace: Path) -> dict[str, Any]:
    """All figures under their stable keys, with those of a refresh."""
    return pipeline.figures(_records(workspace))


def _records(workspace: Path) -> dict[str, artifact.Record]:
    """All records by stage, and that of a refresh."""
    refreshed = artifact.read_record(workspace / REFRESH)
    return pipeline.records(workspace) | ({} if refreshed is None else {OF_REFRESH: refreshed})


def _shown(record: artifact.Record, drift: list[str]) -> dict[str, Any]:
    gates = {name: {**msgspec.to_builtins(gate), "passed": gate.passed} for name, gate in record.gates.items()}
    return {"record": msgspec.to_builtins(record), "metrics": record.metrics, "gates": gates, "drift": drift}


def as_text(workspace: Path, config: Config, depth: int) -> str:
    """Artifacts, gates, drift, the main figures and the interest tree."""
    records = _records(workspace)
    lines: list[str] = []
    for stage in pipeline.STAGES:
        record = records.get(stage.name)
        if record is None:
            lines.append(f"{stage.folder:24} –")
            continue
        drift = _drift(workspace, config, stage, record)
        failed = [name for name, gate in record.gates.items() if not gate.passed]
        said = ["out of date: " + ", ".join(drift)] * bool(drift) + [f"gate {name} failed" for name in failed]
        state = "; ".join(filter(None, [*(said or ["up to date"]), pipeline.kept_out(record)]))
        lines.append(f"{stage.folder:24} {record.timings['seconds']:8.1f} s  {state}")
    if refreshed := records.get(OF_REFRESH):
        state = "; ".join(_edited(workspace / REFRESH, refreshed)) or "new items and events since the run"
        lines.append(f"{REFRESH:24} {refreshed.timings['seconds']:8.1f} s  {state}")
    figures = pipeline.figures(records)
    known = [(key, figures[key], gloss) for key, gloss in SHOWN if key in figures]
    if known:
        width = max(len(str(value)) for _, value, _ in known)
        lines += ["", *(f"{key:44} {value!s:>{width}}  {gloss}" for key, value, gloss in known)]
    if all(_there(workspace, stage, records) for stage in (CATALOG, TREE, DESCRIPTIONS)):
        mixed = older(workspace, records)
        lines += ["", f"The tree is not shown: {mixed}" if mixed else _tree(workspace, depth)]
    return "\n".join(lines)


def served(workspace: Path) -> Bundle:
    """What the workspace answers with. Raises UserError where there is no bundle yet, or it is damaged."""
    path = workspace / BUNDLE.folder
    if not (path / "record.json").exists():
        raise UserError(f"{workspace} has no bundle yet; run: {command('run', workspace)}")
    with artifact.reading(path, *BROKEN_MODEL):
        return bundle.load(path)


def answer_text(answer: Answer) -> str:
    """The reasons of an answer, a line each, and its items, the best first."""
    items = (f"{at:3d}. {i.title or i.item}  [{i.item}]  {i.score:.3f}" for at, i in enumerate(answer.items, 1))
    return "\n".join([*answer.reasons, *items])


def in_lines(metrics: dict[str, Any]) -> str:
    """Figures of a comparison: each with its interval, if it has one."""
    lines: list[str] = []
    for name, value in metrics.items():
        if isinstance(value, int | float):
            lines.append(f"{name:56} {value}")
        elif isinstance(value, dict) and "mean" in value:
            interval = "" if value["low"] is None else f" ({value['low']:.4f} to {value['high']:.4f})"
            lines.append(f"{name:56} {value['mean']:.4f}{interval}")
    return "\n".join(lines)


def older(workspace: Path, records: dict[str, artifact.Record]) -> str:
    """What to do where the tree is of another catalog, or its names of another tree; empty where all fit."""
    for made, stage in ((TREE, CATALOG), (DESCRIPTIONS, TREE)):
        if records[made.name].inputs.get(stage.name, digest := records[stage.name].digest) != digest:
            again = command("run", workspace, "--until", DESCRIPTIONS.name)
            return f"{made.folder} is older than {stage.folder}; run: {again}"
    return ""


def _there(workspace: Path, stage: Stage, records: dict[str, artifact.Record]) -> bool:
    """Whether an artifact and all of its files are there."""
    record = records.get(stage.name)
    return record is not None and not artifact.missing(workspace / stage.folder, record)


def _tree(workspace: Path, depth: int) -> str:
    from byway.data import events
    from byway.interests import describe

    built = Artifacts(workspace)
    return describe.outline(built.tree, built.descriptions, events.traffic(built.events), depth)


def _drift(workspace: Path, config: Config, stage: Stage, record: artifact.Record) -> list[str]:
    """Why the artifact is out of date, and which of its files were changed by hand."""
    try:
        inputs = inputs_of(workspace, config, stage)
    except UserError:
        inputs = record.inputs
    return artifact.drift(record, settings_of(config, stage), inputs) + _edited(workspace / stage.folder, record)


def _edited(folder: Path, record: artifact.Record) -> list[str]:
    lost = artifact.missing(folder, record)
    return [f"file {name} {'missing' if name in lost else 'edited'}" for name in artifact.edited(folder, record)]
