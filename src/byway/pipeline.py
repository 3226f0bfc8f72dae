"""The road from the log to the bundle: which stage reads what, and which has to run again."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape

from byway import artifact
from byway.artifact import Record
from byway.config import Config
from byway.errors import UserError
from byway.progress import say


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table of stages."""

    number: int
    name: str
    """Of the artifact and of its section of knobs."""
    module: str
    """Module whose `build` makes the artifact and whose `load` reads it."""
    needs: tuple[str, ...] = ()
    """What `build` reads, by the names of its parameters."""
    only_if: tuple[str, str] | None = None
    """A stage and one of its counts: where that is 0 this stage is skipped, and whoever reads it is given None."""
    asked_for: bool = False
    """Whether it is built only when it is named: not every workspace has what it takes."""

    @property
    def folder(self) -> str:
        return f"{self.number:02d}-{self.name.replace('_', '-')}"


STAGES = (
    Stage(1, "catalog", "byway.data.catalog"),
    Stage(1, "media", "byway.data.media", ("catalog",), only_if=("catalog", "media")),
    Stage(2, "embeddings", "byway.interests.embed", ("catalog", "seen")),
    Stage(3, "graph", "byway.interests.graph", ("vectors",)),
    Stage(4, "tree", "byway.interests.tree", ("vectors", "graph", "events")),
    Stage(5, "descriptions", "byway.interests.describe", ("catalog", "tree")),
    Stage(6, "transitions", "byway.language.curate", ("events", "tree")),
    Stage(7, "language_model", "byway.language.tune", ("transitions", "descriptions", "vectors", "tree")),
    Stage(
        8,
        "transition_table",
        "byway.language.plan",
        ("transitions", "descriptions", "tuned", "vectors", "tree"),
    ),
    Stage(9, "pairs", "byway.video.curate", ("events", "tree", "seen"), only_if=("media", "items")),
    Stage(
        10,
        "multimodal_model",
        "byway.video.tune",
        ("pairs", "catalog", "tree", "descriptions", "seen", "tuned"),
        only_if=("pairs", "samples"),
    ),
    Stage(
        11,
        "context_table",
        "byway.video.plan",
        ("events", "vectors", "catalog", "tree", "descriptions", "seen", "pairs", "seer"),
        only_if=("pairs", "samples"),
    ),
    Stage(12, "item_policy", "byway.policy.sequence", ("events", "vectors")),
    Stage(
        13,
        "bundle",
        "byway.serving.bundle",
        ("catalog", "events", "tree", "descriptions", "transitions", "table", "item_policy", "contexts"),
    ),
    Stage(
        14,
        "metrics",
        "byway.evaluation.offline",
        ("transitions", "descriptions", "tuned", "table", "vectors", "tree"),
    ),
    Stage(
        15,
        "experiment",
        "byway.evaluation.experiment",
        (
            "catalog",
            "events",
            "vectors",
            "tree",
            "descriptions",
            "transitions",
            "table",
            "item_policy",
            "seen",
            "contexts",
        ),
        asked_for=True,
    ),
    Stage(16, "report", "byway.evaluation.report", asked_for=True),
    Stage(
        18,
        "curations",
        "byway.evaluation.curations",
        ("events", "vectors", "tree", "descriptions"),
        asked_for=True,
    ),
    Stage(
        19,
        "views",
        "byway.evaluation.views",
        ("catalog", "tree", "descriptions", "seen", "pairs", "tuned"),
        only_if=("pairs", "samples"),
        asked_for=True,
    ),
)

READS = {
    "catalog": ("catalog", "byway.data.catalog"),
    "events": ("catalog", "byway.data.events"),
    "vectors": ("embeddings", "byway.interests.embed"),
    "graph": ("graph", "byway.interests.graph"),
    "tree": ("tree", "byway.interests.tree"),
    "descriptions": ("descriptions", "byway.interests.describe"),
    "transitions": ("transitions", "byway.language.curate"),
    "tuned": ("language_model", "byway.language.tune"),
    "table": ("transition_table", "byway.language.plan"),
    "item_policy": ("item_policy", "byway.policy.sequence"),
    "seen": ("media", "byway.data.media"),
    "pairs": ("pairs", "byway.video.curate"),
    "seer": ("multimodal_model", "byway.video.tune"),
    "contexts": ("context_table", "byway.video.plan"),
}
"""What a stage may read: the artifact that holds it and the module that loads it."""

REFRESH = "17-refresh"
"""Folder of what `byway refresh` makes between two runs; it is no stage of the road."""

REFRESHED = "refresh.digest"
"""Metric of the bundle's record: the refresh that is in it."""

DRAWN = ("language_model", "metrics", "experiment", "curations", "views")
"""Stages whose figures the report draws, where they are there."""

RETRAINS = {
    "experiment": ("item_policy",),
    "curations": ("transitions", "language_model", "transition_table"),
    "views": ("media", "multimodal_model"),
}
"""Sections by which a stage that compares makes artifacts of its own."""

OWN = ("parquet", "csv", "json")
"""Sources that are tables of one's own."""

TABLES = {".csv", ".tsv", ".dat", ".data", ".item", ".parquet", ".json", ".jsonl"}
"""Endings of the files of a public data set that hold items and events."""

BY_NAME = {stage.name: stage for stage in STAGES}


def run(workspace: Path, config: Config, until: str | None = None, only: str | None = None) -> dict[str, Record]:
    """Build every artifact that is missing or out of date, in order; returns all records by stage.

    `until` stops after a stage; `only` builds just that stage, from what is there.
    """
    for name in (until, only):
        if name is not None and name not in BY_NAME:
            raise UserError(f"There is no stage {name!r}; the stages are {', '.join(BY_NAME)}.")
    if until is not None and only is not None:
        raise UserError("--until and --only exclude each other; choose one.")
    records: dict[str, Record] = {}
    with artifact.locked(workspace):
        _prepare(config)
        for stage in STAGES:
            if skipped(workspace, stage):
                if only == stage.name:
                    raise UserError(f"{stage.folder} needs items with videos or thumbnails, and there are none.")
            elif stage.name == only or (only is None and (stage.name == until or not stage.asked_for)):
                if stage.name == "pairs":
                    _say_of_levels(config)
                if stage.name == "language_model" and until != stage.name and not only:
                    _require_pairs_or_triples(config)
                records[stage.name] = _make(workspace, config, stage)
            if stage.name == until:
                break
    return records


def _require_pairs_or_triples(config: Config) -> None:
    """Before the hours of 07: a model of other histories can be fine-tuned, and no table made of it."""
    if config.transitions.history not in (2, 3):
        raise UserError(
            f"transitions.history is {config.transitions.history}, and the table answers pairs and triples: set it "
            "to 2 or 3, or stop with --until language_model."
        )


def _say_of_levels(config: Config) -> None:
    """Before the hours of 10 and 11: what is made for another level of the tree than plans are is not served."""
    seen, planned = config.pairs.level, config.transitions.level
    if seen != planned:
        say(
            f"[yellow]pairs.level is {seen} and transitions.level {planned}[/]: what the multimodal model says of "
            "other clusters is made, and neither served nor given an arm. Set both to one level, 2 or deeper."
        )


def run_shard(workspace: Path, config: Config, number: int, shards: int) -> dict[str, Record]:
    """Compute one shard's rows of the transition table, from artifacts that are up to date.

    Shards may run at once; a run of the whole pipeline afterwards finds all rows there and joins them. Returns the
    records of the stages that were read.
    """
    stage = BY_NAME["transition_table"]
    with artifact.locked(workspace, together=True):
        _prepare(config)
        found = records(workspace)
        read = [before for before in STAGES[: STAGES.index(stage)] if not skipped(workspace, before)]
        for before in read:
            record = found.get(before.name)
            if record is None or artifact.drift(
                record, knobs_of(config, before), inputs_of(workspace, config, before)
            ):
                raise UserError(
                    f"A shard needs {before.folder}, and it is out of date: run with --until language_model."
                )
        knobs, inputs = knobs_of(config, stage), inputs_of(workspace, config, stage)
        work = artifact.shared(workspace / stage.folder, stage.name, knobs, inputs, config.run.seed)
        fill: Callable[..., float] = import_module(stage.module).fill
        fill(work, config.transition_table, **_arguments(workspace, config, stage), shard=(number, shards))
    return {before.name: found[before.name] for before in read}


def _make(workspace: Path, config: Config, stage: Stage) -> Record:
    path = workspace / stage.folder
    knobs, inputs = knobs_of(config, stage), inputs_of(workspace, config, stage)
    record = artifact.read_record(path)
    if record is not None:
        lost = [f"file {name} is missing" for name in artifact.missing(path, record)]
        if not (changes := artifact.drift(record, knobs, inputs) + lost):
            artifact.tidy(path)
            return record
        say(f"[bold]{stage.folder}[/] is out of date: {escape('; '.join(changes[:3]))}")
    started = time.perf_counter()
    say(f"[bold]{stage.folder}[/] …")
    with artifact.part(path, stage.name, knobs, inputs, config.run.seed) as work:
        build: Callable[..., artifact.Outcome] = import_module(stage.module).build
        outcome = build(work, getattr(config, stage.name), **_arguments(workspace, config, stage))
    outcome.timings["seconds"] = time.perf_counter() - started
    record = artifact.commit(path, stage.name, knobs, inputs, outcome)
    for name, gate in record.gates.items():
        if not gate.passed:
            say(f"  [yellow]gate[/] {name} = {gate}")
    if told := kept_out(record):
        say(f"  [yellow]{told}[/]; {stage.folder}/quarantine.parquet has them all")
    say(f"[bold]{stage.folder}[/] {record.timings['seconds']:.1f} s")
    return record


def kept_out(record: Record) -> str:
    """How many rows or files an artifact could not use, and why; empty where it used all."""
    reasons = {
        reason: count
        for name, found in record.metrics.items()
        if name.endswith(".quarantined") and isinstance(found, dict)
        for reason, count in found.items()
    }
    if not reasons:
        return ""
    most = sorted(reasons, key=lambda reason: -reasons[reason])[:3]
    return f"{sum(reasons.values()):,} kept out ({', '.join(f'{reason}: {reasons[reason]:,}' for reason in most)})"


def skipped(workspace: Path, stage: Stage) -> bool:
    """Whether there is nothing for this stage to do, as those of paper 2 where no item can be seen."""
    if stage.only_if is None:
        return False
    owner, count = stage.only_if
    if skipped(workspace, BY_NAME[owner]):
        return True
    record = artifact.read_record(workspace / BY_NAME[owner].folder)
    return record is not None and not record.counts.get(count, 0)


def _arguments(workspace: Path, config: Config, stage: Stage) -> dict[str, Any]:
    """Load what the stage reads. The first stage and the experiment read the world outside the workspace too."""
    if stage.name == "catalog":
        return {"workspace": workspace}
    arguments: dict[str, Any] = {}
    for name in stage.needs:
        owner, module = READS[name]
        absent = skipped(workspace, BY_NAME[owner])
        folder = workspace / BY_NAME[owner].folder
        with artifact.reading(folder):
            arguments[name] = None if absent else import_module(module).load(folder)
    if arguments.get("seen") is not None:
        arguments["seen"] = replace(arguments["seen"], folder=_media_folder(workspace, config))
    if stage.name == "media":
        arguments["folder"] = _media_folder(workspace, config)
    if stage.name == "experiment":
        users = import_module("byway.data.events").load_users(workspace / BY_NAME["catalog"].folder)
        arguments |= {"user_ids": users, "folder": _truth(workspace, config)}
    if stage.name in RETRAINS:
        arguments |= {"sections": config}
    if stage.name == "report":
        found = {name: record for name, record in records(workspace).items() if name in DRAWN}
        if not found:
            raise UserError("There is nothing to report yet: run the stages, or an experiment, first.")
        arguments |= {"experiment": None, "drawn": figures(found)}
        if "experiment" in found:
            stage = BY_NAME["experiment"]
            arguments["experiment"] = import_module(stage.module).load(workspace / stage.folder)
    return arguments


def _media_folder(workspace: Path, config: Config) -> Path:
    """The folder that relative names of media files start at: that of the input."""
    path = workspace / config.catalog.items
    return path if path.is_dir() and config.catalog.source not in OWN else path.parent


def _truth(workspace: Path, config: Config) -> Path:
    """The folder that says what people feel: named, or beside the tables of items."""
    if config.experiment.truth:
        return workspace / config.experiment.truth
    items = workspace / config.catalog.items
    return items if items.is_dir() else items.parent


def knobs_of(config: Config, stage: Stage) -> dict[str, Any]:
    """The knobs that shape the artifact, as its record will hold them: its own section and the run's seed."""
    knobs = msgspec.json.decode(msgspec.json.encode(getattr(config, stage.name)))
    for name in RETRAINS.get(stage.name, ()):
        knobs[name] = msgspec.json.decode(msgspec.json.encode(getattr(config, name)))
    return {**knobs, "seed": config.run.seed}


def inputs_of(workspace: Path, config: Config, stage: Stage) -> dict[str, str]:
    """Identity of everything that the stage reads."""
    if stage.name == "catalog":
        return {name: artifact.hash_file(path) for name, path in _source_files(config, workspace).items()}
    inputs: dict[str, str] = {}
    for owner in dict.fromkeys(READS[name][0] for name in stage.needs):
        if skipped(workspace, BY_NAME[owner]):
            continue
        record = artifact.read_record(workspace / BY_NAME[owner].folder)
        if record is None:
            raise UserError(f"{stage.folder} needs {BY_NAME[owner].folder}; run the stages before it first.")
        inputs[owner] = record.digest
    if stage.name == "media":
        catalog = import_module("byway.data.catalog").load(workspace / BY_NAME["catalog"].folder)
        inputs["files"] = import_module(stage.module).state(catalog, _media_folder(workspace, config))
    if stage.name == "experiment":
        found = import_module("byway.evaluation.truth").files(_truth(workspace, config))
        inputs |= {f"truth/{path.name}": artifact.hash_file(path) for path in found}
    if stage.name == "report":
        inputs |= {name: record.fingerprint for name, record in records(workspace).items() if name in DRAWN}
    return inputs


def _source_files(config: Config, workspace: Path) -> dict[str, Path]:
    """The tables that the catalog is read from: those named, also by pattern, and all in a named folder.

    Their names start with the knob, since files of items and of events may share one.
    """
    found: dict[str, Path] = {}
    for knob, name in (("items", config.catalog.items), ("events", config.catalog.events)):
        path = workspace / name
        if not name:
            continue
        folder = path if path.is_dir() else path.parent
        files: list[Path] = []
        for each in [path] if path.is_dir() else folder.glob(path.name):
            files += [p for p in each.rglob("*") if _is_table(p, each, config)] if each.is_dir() else [each]
        found |= {f"{knob}/{p.relative_to(folder).as_posix()}": p for p in sorted(files) if p.is_file()}
    return found


def _is_table(path: Path, folder: Path, config: Config) -> bool:
    """Whether a file in a named folder is read: each part of an own table, else what ends as tables do."""
    if config.catalog.source in OWN:
        return import_module("byway.data.containers").is_part(path, folder)
    return any(suffix in TABLES for suffix in path.suffixes[-2:])


def _prepare(config: Config) -> None:
    """Set what holds for the whole process: threads, and which engine runs the dataframes."""
    import torch

    threads = config.run.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    import_module("byway.engine").use(config.run.engine, config.run.threads)


def records(workspace: Path) -> dict[str, Record]:
    """The records of all artifacts that are there, by stage."""
    stages = [stage for stage in STAGES if not skipped(workspace, stage)]
    found = {stage.name: artifact.read_record(workspace / stage.folder) for stage in stages}
    return {name: record for name, record in found.items() if record is not None}


def figures(found: dict[str, Record]) -> dict[str, Any]:
    """All figures under their stable keys."""
    return {name: value for record in found.values() for name, value in record.metrics.items()}
