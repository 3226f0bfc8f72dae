"""What has come since the last full run, as 17-refresh holds it: items in their places, traffic, transitions.

Owns the artifact's files: how new rows are read and added to those that came before, which pairs of interests are
answered anew, and how far the world has drifted. It knows neither gates nor the bundle that is published with it.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Outcome, Record, Work
from byway.base.errors import UserError
from byway.data import catalog as items_of
from byway.data import events as events_of
from byway.data import sources
from byway.data.catalog import Catalog
from byway.data.events import Events
from byway.data.quarantine import Quarantine
from byway.data.text import compute
from byway.evaluation import drift
from byway.interests import embed, placement
from byway.interests import tree as trees
from byway.interests.partition import centroids, loads_of
from byway.interests.tree import LEVELS, Tree
from byway.language import answers, plan, tune
from byway.language.fast.generate import Policy
from byway.serving import bundle
from byway.transitions import curate
from byway.transitions import table as tables
from byway.transitions.curate import Samples, Transitions
from byway.transitions.standing import load_standing
from byway.transitions.triples import unkey
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import BUNDLE, CATALOG, EMBEDDINGS, LANGUAGE_MODEL, REFRESH, TRANSITIONS

ROOM = 1.1
"""Heaviest over mean cluster, in blended weight, that a new item may make; past it a re-partition is due."""
LEAST_OVERLAP = 0.5
"""A new fine-tuning is due where the clusters' most frequent successors overlap with the old ones by less than this
share of what a sample of that size would give without any change."""
MOST_SHIFT = 0.2
"""A re-partition is due where traffic has moved between clusters by more than this, beyond chance."""


LOG = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("time", pa.int64()), ("satisfaction", pa.float32())])
"""What tells an event from others. What pleased only after it had been exported is another one then."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """All that came since the full run, as read back from 17-refresh; empty where nothing has come."""

    items: pa.Table
    """New items, in the catalog's columns."""
    vectors: NDArray[np.float32]
    """[m, dim] their embeddings."""
    leaf: NDArray[np.int64]
    """[m] their clusters of level 4."""
    alike: NDArray[np.int32]
    """[m] the most similar item of the full run, which the item policy reads in their place."""
    users: list[str]
    """Ids of users that the full run's log did not have."""
    traffic: NDArray[np.float32]
    """[n + m] events an item, old and new."""
    log: pa.Table
    """The new events, users and items by number: a later export may hold them again."""
    transitions: Samples
    """Of new events, counted."""
    pairs: NDArray[np.int32]
    """[p, K] pairs, and triples of the table, whose most frequent successor is another one since."""
    answers: NDArray[np.int32]
    """[p, n] their rankings now."""


def load(path: Path) -> Arrivals:
    """Read 17-refresh."""
    counted = pq.read_table(path / "transitions.parquet")
    context = np.column_stack([counted[name].to_numpy() for name in counted.column_names[:-2]])
    return Arrivals(
        pq.read_table(path / "items.parquet"),
        *(np.load(path / f"{name}.npy") for name in ("vectors", "leaf", "alike")),
        users=events_of.load_users(path),
        traffic=np.load(path / "traffic.npy"),
        log=pq.read_table(path / "events.parquet"),
        transitions=Samples(context, counted["label"].to_numpy(), counted["count"].to_numpy()),
        pairs=np.load(path / "pairs.npy"),
        answers=np.load(path / "answers.npy"),
    )


def _nothing(workspace: Path, records: dict[str, Record], dim: int, history: int) -> Arrivals:
    """What there is before the first refresh."""
    opened = bundle.load(workspace / BUNDLE.folder)
    n = records["catalog"].counts["items"]
    if len(opened.policy_rows) != n:
        raise UserError(f"The bundle holds a refresh that {REFRESH} lacks; delete the bundle and run again.")
    traffic = np.zeros(n, np.float32)
    traffic[opened.policy_rows] = opened.traffic
    none = np.zeros(0, np.int32)
    return Arrivals(
        items_of.SCHEMA.empty_table(), np.zeros((0, dim), np.float32), none.astype(np.int64), none, [], traffic,
        LOG.empty_table(), Samples(np.zeros((0, history), np.int32), none, none), none[:, None], none[:, None],
    )  # fmt: skip


def write(arrivals: Arrivals, meta: dict[str, str], out: Path) -> None:
    """Write what `load` reads; `meta` goes with the transitions."""
    pq.write_table(arrivals.items, out / "items.parquet", compression="zstd")
    users = pa.table({"user": arrivals.users}, pa.schema([("user", pa.string())]))
    pq.write_table(users, out / "users.parquet")
    pq.write_table(arrivals.log, out / "events.parquet", compression="zstd")
    curate.write(arrivals.transitions, out / "transitions.parquet", meta)
    for name in ("vectors", "leaf", "alike", "traffic", "pairs", "answers"):
        np.save(out / f"{name}.npy", getattr(arrivals, name))


def build(work: Work, workspace: Path, records: dict[str, Record], again: bool, given: dict[str, Path]) -> Outcome:
    """Write what has come: the given tables, and where 17-refresh goes on (`again`) what it held before.

    `records` are those of the full run. Raises UserError where a table holds no usable row.
    """
    full = Artifacts(workspace)
    vectors, tree, transitions = full.vectors, full.tree, full.transitions
    level, dim, history = transitions.level, vectors.shape[1], transitions.train.context.shape[1]
    before = load(workspace / REFRESH) if again else _nothing(workspace, records, dim, history)
    new = _new_rows(work, full, records, before, given)

    new_vectors = _embed(workspace, records, new.items, dim)
    known = np.concatenate([vectors, before.vectors]) if len(before.leaf) else np.asarray(vectors)
    traffic_before = np.append(before.traffic, np.zeros(new.items.num_rows, np.float32))
    new_traffic = np.zeros(len(traffic_before)) if new.log is None else events_of.traffic(new.log)
    traffic = traffic_before + new_traffic
    placed, tree_after, balance = _place(placement.grown(tree, before.leaf), known, new_vectors, traffic)
    recent = _count(work, workspace / (REFRESH if again else TRANSITIONS.folder), new.log, tree_after, transitions)
    counted = curate.added(before.transitions, recent)
    pairs, rankings = _followed(full, records, transitions, counted, tree.similarity(vectors, level))
    alike = placement.most_similar(tree, vectors, new_vectors, tree_after.assign(2)[len(known) :])
    after = Arrivals(
        items=pa.concat_tables([before.items, new.items]),
        vectors=np.concatenate([before.vectors, new_vectors]),
        leaf=np.concatenate([before.leaf, placed.leaf]),
        alike=np.concatenate([before.alike, alike]),
        users=[*before.users, *new.users],
        traffic=traffic.astype(np.float32),
        log=before.log if new.log is None else pa.concat_tables([before.log, _told(new.log)]),
        transitions=counted,
        pairs=pairs,
        answers=rankings,
    )
    write(after, {"level": str(level), "clusters": str(transitions.clusters)}, work.out)

    counts = {
        **new.counts,
        "items": new.items.num_rows,
        "events": 0 if new.log is None else len(new.log),
        "users": len(new.users),
        "transitions": int(recent.count.sum()),
        "pairs": int((~tables.are_triples(pairs)).sum()),
        "triples": int(tables.are_triples(pairs).sum()),
        "all_items": after.items.num_rows,
        **{f"quarantined.{reason}": n for reason, n in new.kept_out.items()},
    }
    metrics = {f"refresh.{name}": counts[name] for name in ("items", "events", "users")} | {
        "refresh.quarantined": new.kept_out,
        "refresh.displaced": placed.displaced,
        "refresh.crowded": placed.crowded,
        "refresh.balance_blended": balance,
    }
    metrics |= _drift(
        work,
        _before(transitions, before.transitions),
        recent,
        tree,
        tree_after,
        vectors=(np.asarray(vectors), np.concatenate([known, new_vectors]) if len(new_vectors) else known),
        traffic=(traffic_before, new_traffic),
        level=level,
    )
    return Outcome(counts, metrics)


def _embed(workspace: Path, records: dict[str, Record], items: pa.Table, dim: int) -> NDArray[np.float32]:
    """[m, dim] vectors of the new items, by the full run's encoder."""
    if not items.num_rows:
        return np.zeros((0, dim), np.float32)
    settings = msgspec.convert(records["embeddings"].settings, config.Embeddings)
    return embed.embed_new(workspace / EMBEDDINGS.folder, settings, Catalog(items).texts())


def _place(
    tree: Tree, known: NDArray[np.float32], new: NDArray[np.float32], traffic: NDArray[np.float64]
) -> tuple[placement.Placed, Tree, list[float]]:
    """Where new items [m, dim] go beside the known [n, dim] of `tree`, the tree then, and the balance by level.

    `traffic` [n + m] is of both.
    """
    levels = range(1, LEVELS + 1)
    sizes = [tree.size(level) for level in levels]
    weights = [trees.blended_weights(traffic, sizes, level) for level in levels]
    placed = placement.place(tree, known, new, weights, ROOM)
    after = placement.grown(tree, placed.leaf)
    loads = (loads_of(after.assign(level), weights[level - 1], after.size(level)) for level in levels)
    return placed, after, [round(trees.balance(load), 4) for load in loads]


def _count(work: Work, standing_in: Path, log: Events | None, tree: Tree, transitions: Transitions) -> Samples:
    """The transitions of the new events; where they leave each user goes to the artifact."""
    standing, counted = load_standing(standing_in), transitions.train
    recent = Samples(counted.context[:0], counted.label[:0], counted.count[:0])
    if log is not None:
        recent, standing = curate.extend(standing, log, tree.assign(transitions.level), transitions.clusters)
    standing.write(work.out)
    return recent


@dataclass(frozen=True, slots=True)
class New:
    """The usable rows of the tables that are given."""

    items: pa.Table
    """Items that were not there before."""
    log: Events | None
    """Events of all users and items, old and new; None where there is none."""
    users: list[str]
    """Ids of users that were not there before."""
    counts: dict[str, int]
    """Of the rows that were read."""
    kept_out: dict[str, int]
    """Rows that could not be used, by reason."""


def _new_rows(
    work: Work, full: Artifacts, records: dict[str, Record], held: Arrivals, given: dict[str, Path]
) -> New:
    """Read and clean the given tables as the full run's were; what cannot be used goes to `quarantine.parquet`."""
    read = msgspec.convert(records["catalog"].settings, config.Catalog)
    known = full.catalog.items
    fresh, counts = items_of.SCHEMA.empty_table(), dict[str, int]()
    kept_out = Quarantine(work.out / "quarantine.parquet")
    copies = work.scratch / "copies"
    if "items" in given:
        raw = sources.new_rows(read, "items", given["items"], copies)
        fresh = items_of.cleaned(raw, kept_out, counts)
        if kept_out.reasons:
            items_of.require_some(fresh.num_rows, "items", given["items"], kept_out)
        found = compute.is_in(fresh["item"], value_set=_ids(known, held.items))
        counts["known_items"] = int(compute.sum(found).as_py() or 0)
        fresh = fresh.filter(compute.invert(found))
    log, users = None, list[str]()
    if "events" in given:
        raw, before = sources.new_rows(read, "events", given["events"], copies), kept_out.reasons.total()
        old_users = pa.array([*full.users, *held.users], pa.large_string())
        log, users = _new_events(raw, _ids(known, held.items, fresh), old_users, read.positive, kept_out)
        if kept_out.reasons.total() > before:
            items_of.require_some(0 if log is None else len(log), "events", given["events"], kept_out)
        if log is not None and log.clock:
            read_before = len(log)
            log = _unknown(log, full.workspace / CATALOG.folder / "events.parquet", held.log)
            counts["known_events"] = read_before - (0 if log is None else len(log))
    kept_out.close()
    return New(fresh, log, users, counts, dict(sorted(kept_out.reasons.items())))


def _ids(*items: pa.Table) -> pa.Array:
    """The ids of items, a table after the other."""
    return pa.chunked_array(
        [chunk for table in items for chunk in table["item"].chunks], pa.string()
    ).combine_chunks()


def _followed(
    full: Artifacts,
    records: dict[str, Record],
    transitions: Transitions,
    counted: Samples,
    similarity_MM: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The contexts that are answered anew and their rankings."""
    table = full.table
    fitted = table.fitted

    def ask() -> Policy:
        # In the table's own arithmetic, whatever is fastest where this runs.
        return plan.open_policy(tune.load(model), transitions, full.descriptions, fitted.precision)

    model = full.workspace / LANGUAGE_MODEL.folder
    said, top = answers.load(model), table.clusters.shape[-1]
    triples = None if table.triples is None else unkey(table.triples.keys, transitions.clusters)
    return plan.follow(transitions, counted, similarity_MM, fitted, top, ask, triples=triples, said=said)


def _new_events(
    raw: sources.Raw, ids: pa.Array, users: pa.Array, positive: float, kept_out: Quarantine
) -> tuple[Events | None, list[str]]:
    """The clean new log, its users numbered on from the old ones, and the ids of those who are new; None where the
    table has no usable row."""
    log = events_of.cleaned(raw, ids, kept_out, time.time_ns() // 1000)
    if not len(log):
        return None, []
    new_users = log.users.filter(compute.invert(compute.is_in(log.users, value_set=users)))
    everybody = pa.concat_arrays([users, new_users.cast(users.type)])
    numbers = compute.index_in(log.users, value_set=everybody).to_numpy(zero_copy_only=False)
    order = log.order
    user = numbers[log.columns["user"][order]]
    # By the old numbers now; a user's own events keep their order.
    order = order[np.argsort(user, kind="stable")]
    item, when, satisfaction = (log.columns[name][order] for name in ("item", "time", "satisfaction"))
    found = Events(
        np.sort(user).astype(np.int32), item, when, satisfaction, log.clock, len(everybody), len(ids), positive
    )
    return found, new_users.to_pylist()


def _told(log: Events) -> pa.Table:
    """[N] the events, in the columns of LOG."""
    return pa.table({name: getattr(log, name) for name in LOG.names}, LOG)


def _unknown(log: Events, full_run: Path, since: pa.Table) -> Events | None:
    """The log without the events of the full run's log and of earlier refreshes, which an export that overlaps with
    them holds again; None where nothing is left. `log` has times."""
    late = [("time", ">=", int(log.time.min())), ("time", "<=", int(log.time.max()))]
    before = pa.concat_tables([pq.read_table(full_run, columns=LOG.names, filters=late).cast(LOG), since])
    new = _told(log).append_column("row", pa.array(np.arange(len(log))))
    rows = np.sort(new.join(before, LOG.names, join_type="left anti")["row"].to_numpy())
    if not len(rows):
        return None
    return replace(log, **{name: getattr(log, name)[rows] for name in LOG.names})


def _before(transitions: Transitions, since: Samples) -> NDArray[np.float64]:
    """[M, M] transitions known before this refresh: the last interest, and what came next."""
    counts = np.zeros((transitions.clusters, transitions.clusters))
    for part in (transitions.train, transitions.validation, transitions.heldout, since):
        np.add.at(counts, (part.context[:, -1], part.label), part.count)
    return counts


def _drift(
    work: Work,
    old_MM: NDArray[np.float64],
    recent: Samples,
    tree: Tree,
    now: Tree,
    *,
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    traffic: tuple[NDArray[np.number], NDArray[np.number]],
    level: int,
) -> dict[str, Any]:
    """Drift by cluster into `drift.parquet`, its means, and what is due."""
    M = tree.size(level)
    new_MM = np.zeros((M, M))
    np.add.at(new_MM, (recent.context[:, -1], recent.label), recent.count)
    overlap, expected = drift.successor_overlap(old_MM, new_MM, work.rng)
    load, came = (np.bincount(now.assign(level), part, M) for part in traffic)
    middle = [centroids(v, t.assign(level), M) for v, t in zip(vectors, (tree, now), strict=True)]
    cosine = np.einsum("ij,ij->i", *middle)
    moved = drift.shift(load, came)
    chance = drift.expected_shift(load, int(came.sum()), work.rng)
    pq.write_table(
        pa.table(
            {
                "cluster": np.arange(M, dtype=np.int32),
                "items_before": np.diff(tree.starts[level - 1]),
                "items": np.diff(now.starts[level - 1]),
                "centroid_cosine": cosine,
                "traffic_share_before": load / max(1.0, load.sum()),
                "traffic_share": came / max(1.0, came.sum()),
                "successor_overlap": overlap,
                "successor_overlap_expected": expected,
            }
        ),
        work.out / "drift.parquet",
    )
    metrics: dict[str, Any] = {
        "refresh.successor_overlap": drift.mean_over(overlap),
        "refresh.successor_overlap_expected": drift.mean_over(expected),
        "refresh.clusters_compared": int((~np.isnan(overlap)).sum()),
        "refresh.traffic_shift": round(moved, 4),
        "refresh.traffic_shift_expected": round(chance, 4),
        "refresh.centroid_cosine_least": round(float(cosine.min()), 4),
    }
    items = np.bincount(now.assign(level), minlength=M).astype(np.float64)
    metrics["refresh.balance_items"] = round(trees.balance(items), 4)
    measured, usual = (metrics[f"refresh.successor_overlap{end}"] for end in ("", "_expected"))
    metrics["refresh.finetuning_due"] = measured is not None and measured < LEAST_OVERLAP * usual
    metrics["refresh.repartition_due"] = moved - chance > MOST_SHIFT
    return metrics
