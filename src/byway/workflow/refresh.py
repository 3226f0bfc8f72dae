"""17-refresh: new items and events between two full runs, and the bundle with them in it.

Owns what a refresh stands on, when it is refused, and the bundle that is published with it; what has come is in
`arrivals`. New items are servable at once, and pairs of interests whose most frequent successor has changed are
answered anew. The tree's cut, its names, the language model and the item policy stay as they are; what they do not
know is said. A full run starts over from the sources, so new rows belong there too.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from byway.base import artifact, config, device, engine
from byway.base.artifact import Gate, Outcome, Record
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import say
from byway.data.catalog import Catalog
from byway.data.sources import OWN
from byway.interests import placement
from byway.serving import bundle, pack, publish
from byway.workflow import arrivals, pipeline
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import BUNDLE, CONTEXT_TABLE, REFRESH, REFRESHED, STAGES

BASE = (
    "catalog", "embeddings", "tree", "descriptions", "transitions", "transition_table", "item_policy", "planner",
)  # fmt: skip
"""The artifacts of the full run that a refresh stands on."""


def run(workspace: Path, config: Config, items: Path | None, events: Path | None) -> tuple[dict[str, Any], str]:
    """Take in the tables of new items and events and publish the bundle with them; figures, and words for them.

    A table that was taken in before is left out; without new tables the bundle is published again where a run has
    rebuilt it. Raises UserError where the full run is missing or out of date, and where a gate fails.
    """
    for path in (items, events):
        if path is not None and not path.is_file():
            raise UserError(f"{path} is no file; give a table of new rows.")
    with artifact.locked(workspace):
        device.use(config.run.device, config.run.engine)
        engine.use(config.run.engine, config.run.threads)
        records = _full_run(workspace)
        gates = _gates(records, config.serving)
        path = workspace / REFRESH
        inputs = {name: records[name].digest for name in BASE}
        record = artifact.read_record(path)
        if record is not None and (record.layout != artifact.LAYOUT or not inputs.items() <= record.inputs.items()):
            say(f"{REFRESH} belongs to an earlier full run; starting over.")
            record = None
        if record is not None:
            inputs |= record.inputs
        given: dict[str, Path] = {}
        for kind, table in (("items", items), ("events", events)):
            if table is None:
                continue
            digest = artifact.hash_file(table)
            name = f"{kind} {digest}"
            if name in inputs or digest in records["catalog"].inputs.values():
                say(f"{table} was taken in before; left out.")
                continue
            given[kind] = table.resolve()
            inputs[name] = "taken in"
        if given:
            record = _take_in(workspace, config, records, record is not None, given, inputs, gates=gates)
        if record is None:
            raise UserError("There is nothing to take in: give --items or --events, a table of new rows.")
        if records["bundle"].metrics.get(REFRESHED) != record.digest:
            _publish(workspace, records["bundle"], record)
    return record.metrics | {"refresh.taken_in": len(given)}, _in_words(record, bool(given))


def _full_run(workspace: Path) -> dict[str, Record]:
    """The records that a refresh stands on; UserError where one is missing or not what the bundle was made of."""
    records = pipeline.records(workspace)
    folder = {stage.name: stage.folder for stage in STAGES}
    for name in (*BASE, "bundle"):
        if name not in records:
            raise UserError(f"A refresh needs {folder[name]}; run all stages first.")
        if records[name].layout != artifact.LAYOUT:
            raise UserError(f"{folder[name]} is of an older version; run all stages first.")
    for owner, digest in records["bundle"].inputs.items():
        if owner not in records or records[owner].digest != digest:
            raise UserError(f"The bundle is older than {folder[owner]}; run all stages first.")
    if records["catalog"].settings["source"] not in OWN:
        raise UserError(f"A refresh takes tables of your own, [catalog] source {', '.join(OWN)}; run in full.")
    return records


def _gates(records: dict[str, Record], settings: config.Serving) -> dict[str, Gate]:
    """Match rate and held-out recall of the full run, where they were measured; UserError where one fails."""
    figures, asked = pipeline.figures(records), settings.min_match_rate
    bars = {publish.MATCH: asked, publish.RECALL: figures.get(publish.POPULARITY, 0.0) if asked else 0.0}
    gates = {name: Gate(figures[name], bar) for name, bar in bars.items() if name in figures}
    for name, gate in gates.items():
        if not gate.passed:
            raise UserError(
                f"Nothing was published: {name} = {gate}. Tune longer, or set serving.min_match_rate = 0 knowingly."
            )
    return gates


def _take_in(
    workspace: Path,
    config: Config,
    records: dict[str, Record],
    again: bool,
    given: dict[str, Path],
    inputs: dict[str, str],
    *,
    gates: dict[str, Gate],
) -> Record:
    """Build 17-refresh from what it held (`again`) and the given tables."""
    started = time.perf_counter()
    path = workspace / REFRESH
    settings = {"min_match_rate": config.serving.min_match_rate}
    with artifact.part(path, "refresh", settings, inputs, config.run.seed) as work:
        outcome = arrivals.build(work, workspace, records, again, given)
    outcome.gates = gates
    seconds = time.perf_counter() - started
    outcome.timings["seconds"] = seconds
    whole = sum(record.timings.get("seconds", 0.0) for record in records.values())
    outcome.metrics["refresh.share_of_full_run"] = round(seconds / whole, 4) if whole > 0 else None
    return artifact.commit(path, "refresh", settings, inputs, outcome)


def _publish(workspace: Path, base: Record, record: Record) -> None:
    """Put what 17-refresh holds into the bundle; its record keeps the settings and inputs, so no run rebuilds
    it."""
    path = workspace / BUNDLE.folder
    full, held = Artifacts(workspace), arrivals.load(workspace / REFRESH)
    policy = full.item_policy
    whole = Catalog(pa.concat_tables([full.catalog.items, held.items]))
    known = np.concatenate([np.arange(len(full.vectors), dtype=np.int32), held.alike])
    served = np.concatenate([policy.items, held.vectors @ policy.content]).astype(np.float32)
    before = bundle.load(path)
    judged = {before.ids[p]: float(before.quality[p]) for p in range(len(before.ids))}
    usual = float(before.quality.mean())
    quality = np.array([judged.get(item, usual) for item in whole.ids()], dtype=np.float32)
    # Not whatever stands there: a catalog that lost its pictures leaves a table of other clusters behind.
    contexts = full.contexts if CONTEXT_TABLE.name in base.inputs else None
    started = time.perf_counter()
    with artifact.part(path, "bundle", base.settings, base.inputs) as work:
        pack.build(
            work,
            msgspec.convert(base.settings, config.Bundle),
            catalog=whole,
            counted=pack.Counted(held.traffic, quality, known, before.manifest.clock),
            tree=placement.grown(full.tree, held.leaf),
            descriptions=full.descriptions,
            transitions=full.transitions,
            table=full.table.answered_anew(held.pairs, held.answers),
            item_policy=replace(policy, items=served),
            planned=full.planned,
            contexts=contexts,
        )
    outcome = Outcome(
        counts={"items": len(whole), "clusters": base.counts["clusters"], "refreshed": held.items.num_rows},
        metrics={REFRESHED: record.digest},
        timings={"seconds": time.perf_counter() - started},
    )
    artifact.commit(path, "bundle", base.settings, base.inputs, outcome)


def _in_words(record: Record, took: bool) -> str:
    """What was taken in, if anything was, what it did not change, and what is due."""
    found = record.metrics
    new = f"{found['refresh.items']:,} new items are servable and {found['refresh.events']:,} new events counted"
    if not took:
        new = "Nothing new was taken in"
    triples = f"and {n:,} triples " if (n := record.counts.get("triples", 0)) else ""
    lines = [
        f"{new}; {record.counts['all_items']:,} items have come since the last full run.",
        f"Since then {record.counts['pairs']:,} pairs {triples}of interests are answered anew: another one follows "
        "most often now. "
        "The rest of the table, the names of clusters, the models and the item policy are as they were: a new item "
        "is ranked by what it says, and read in a history as the most similar item that the policy knows.",
    ]
    for kind in ("items", "events"):
        if took and (known := record.counts.get(f"known_{kind}")):
            lines.insert(1, f"{known:,} {kind} were known already and are left as they were.")
    if took and (told := pipeline.kept_out(record)):
        lines.insert(1, f"{told}; {REFRESH}/quarantine.parquet has them all.")
    if found["refresh.crowded"] or max(found["refresh.balance_blended"][:2]) > arrivals.ROOM:
        lines.append(
            "A re-partition is due: clusters have outgrown their room. Add the rows to the sources and run."
        )
    elif found["refresh.repartition_due"]:
        lines.append("A re-partition is due: traffic has moved between clusters. Add the rows and run.")
    if found["refresh.finetuning_due"]:
        lines.append(
            "A new fine-tuning is due: what people turn to next overlaps with before by "
            f"{found['refresh.successor_overlap']:.2f}, and by {found['refresh.successor_overlap_expected']:.2f} "
            "if nothing had changed. Add the rows to the sources and run."
        )
    return "\n".join(lines)
