"""Running stages: which has to run again, in which order, and what is said of it."""

import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from byway.base import artifact
from byway.base.artifact import Record
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import say
from byway.workflow.artifacts import Inputs, Stage, inputs_of, settings_of, skipped
from byway.workflow.stages import STAGES, TRANSITION_TABLE, fill_table


def run(workspace: Path, config: Config, until: str | None = None, only: str | None = None) -> dict[str, Record]:
    """Build every artifact that is missing or out of date, in order; returns all records by stage.

    `until` stops after a stage; `only` builds just that stage, from what is there.
    """
    names = [stage.name for stage in STAGES]
    for name in (until, only):
        if name is not None and name not in names:
            raise UserError(f"There is no stage {name!r}; the stages are {', '.join(names)}.")
    if until is not None and only is not None:
        raise UserError("--until and --only exclude each other; choose one.")
    if only is not None:
        chosen = [stage for stage in STAGES if stage.name == only]
    else:
        before = STAGES if until is None else STAGES[: names.index(until) + 1]
        chosen = [stage for stage in before if not stage.asked_for or stage.name == until]
    records: dict[str, Record] = {}
    with artifact.locked(workspace):
        for stage in chosen:
            stage.refuse(config)
        prepare(config)
        for stage in chosen:
            if not skipped(workspace, stage):
                records[stage.name] = _make(workspace, config, stage)
            elif only is not None:
                raise UserError(f"{stage.folder} needs items with videos or thumbnails, and there are none.")
    return records


def run_shard(workspace: Path, config: Config, number: int, shards: int) -> dict[str, Record]:
    """Compute one shard's rows of the transition table, from artifacts that are up to date.

    Shards may run at once; a run of the whole pipeline afterwards finds all rows there and joins them. Returns the
    records of the stages that were read.
    """
    with artifact.locked(workspace, together=True):
        prepare(config)
        found = records(workspace)
        earlier = [stage for stage in STAGES if stage.number < TRANSITION_TABLE.number and not stage.asked_for]
        read = [stage for stage in earlier if not skipped(workspace, stage)]
        for stage in read:
            record = found.get(stage.name)
            now = settings_of(config, stage), inputs_of(workspace, config, stage)
            if record is None or artifact.drift(record, *now):
                raise UserError(
                    f"A shard needs {stage.folder}, and it is out of date: run with --until language_model."
                )
        table = TRANSITION_TABLE
        settings, inputs = settings_of(config, table), inputs_of(workspace, config, table)
        work = artifact.shared(workspace / table.folder, table.name, settings, inputs, config.run.seed)
        fill_table(work, Inputs(workspace, config, table), (number, shards))
    return {stage.name: found[stage.name] for stage in read}


def _make(workspace: Path, config: Config, stage: Stage) -> Record:
    path = workspace / stage.folder
    settings, inputs = settings_of(config, stage), inputs_of(workspace, config, stage)
    record = artifact.read_record(path)
    if record is not None:
        lost = [f"file {name} is missing" for name in artifact.missing(path, record)]
        if not (changes := artifact.drift(record, settings, inputs) + lost):
            artifact.tidy(path)
            return record
        say(f"[bold]{stage.folder}[/] is out of date: {escape('; '.join(changes[:3]))}")
    started = time.perf_counter()
    say(f"[bold]{stage.folder}[/] …")
    with artifact.part(path, stage.name, settings, inputs, config.run.seed) as work:
        outcome = stage.build(work, Inputs(workspace, config, stage))
    outcome.timings["seconds"] = time.perf_counter() - started
    record = artifact.commit(path, stage.name, settings, inputs, outcome)
    for name, gate in record.gates.items():
        if not gate.passed:
            say(f"  [yellow]gate[/] {name} = {gate}")
    if told := kept_out(record):
        say(f"  [yellow]{told}[/]; {stage.folder}/quarantine.parquet has them all")
    say(f"[bold]{stage.folder}[/] {record.timings['seconds']:.1f} s")
    return record


def prepare(config: Config) -> None:
    """Set what holds for the whole process: threads, the device, and which engine runs the dataframes."""
    import torch

    from byway.base import device, engine

    torch.set_num_threads(config.run.threads or engine.processors())
    device.use(config.run.device, config.run.engine)
    engine.use(config.run.engine, config.run.threads)


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


def records(workspace: Path) -> dict[str, Record]:
    """The records of all artifacts that are there, by stage."""
    there = [stage for stage in STAGES if not skipped(workspace, stage)]
    found = {stage.name: artifact.read_record(workspace / stage.folder) for stage in there}
    return {name: record for name, record in found.items() if record is not None}


def figures(found: dict[str, Record]) -> dict[str, Any]:
    """All figures under their stable keys."""
    return {name: value for record in found.values() for name, value in record.metrics.items()}
