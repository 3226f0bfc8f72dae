"""11-context-table: the answer for every item that much of the traffic meets (paper 2, section 3.2).

The most popular items are answered once each, until they make up the share of the impressions that is asked for.
An answer stands under a hash of all that it follows from, so that a later run computes what is new or changed and
takes the rest over. An item without an answer of its own is given that of its nearest covered neighbour in
embedding space within its own cluster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import log_softmax

from byway.base import config, engine, precision
from byway.base.artifact import Outcome, Work, hash_json, read_record, write_atomic
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.data.events import Events
from byway.data.events import traffic as traffic_of
from byway.multimodal import prompts, weigh
from byway.multimodal.contexts import Contexts, VisionLanguageModel, serendipitous
from byway.multimodal.curate import Pairs
from byway.multimodal.model import open_model
from byway.multimodal.tune import Tuned, linear

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ContextTable:
    """For every covered item its best serendipitous clusters, best first; -1 where its wider cluster has fewer."""

    item: Ints
    """[N] rows of the catalog, ascending."""
    clusters: Ints
    """[N, n]."""
    scores: NDArray[np.float32]
    """[N, n] log-probability among the legal names."""
    via: Ints
    """[items] row of this table that answers for each item of the catalog; -1 where none does."""
    level: int


def load(path: Path) -> ContextTable:
    """Read 11-context-table."""
    table = pq.read_table(path / ANSWERS, columns=["item"])
    arrays = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("clusters", "scores", "via"))
    level = int((table.schema.metadata or {})[b"level"])
    return ContextTable(table["item"].to_numpy(), *arrays, level=level)


TOP = 10
"""Clusters kept an item, best first: all that an answer beside one video draws on."""
RULE = "another cluster of the wider one"
"""Which answers are legal: part of every answer's hash."""
ANSWERS, MODEL = "answers.parquet", "model.parquet"
"""What is served, and what the model said where that is weighed."""
BATCH = 32
"""Items answered between two commits of the progress file. Another number pads prompts otherwise, which changes
scores in the last digits."""


def build(
    work: Work,
    settings: config.ContextTable,
    *,
    events: Events,
    vectors: NDArray[np.float32],
    asked: Contexts,
    pairs: Pairs,
    model: Tuned,
    arithmetic: str,
) -> Outcome:
    """Answer the popular items, a batch at a time; a batch that is there is not computed again."""
    # A hash of an answer names it, and all machines that share the items follow it.
    arithmetic = precision.resolved(arithmetic)
    traffic = traffic_of(events)
    can_be_shown = asked.row >= 0 if model.kind in prompts.SEES else np.ones(len(traffic), np.bool_)
    items = covered(traffic, can_be_shown, settings.coverage)
    wanted, depth, file = items, TOP, ANSWERS
    if settings.by == "fitted":
        # The model's answers are kept whole where they are weighed, and of the pairs too on which they are.
        weighed_by = np.unique(pairs.validation.item[can_be_shown[pairs.validation.item]])
        wanted, depth, file = np.union1d(items, weighed_by).astype(np.int32), _most(asked), MODEL
    keys = keys_of(wanted, asked, model, depth, arithmetic)
    started = time.perf_counter()
    answers = _known(work, depth, file)
    former_n = len(answers)
    if settings.by == "pictures":
        log = pairs.log
        fitted_on = hash_json([log.item.tolist(), log.label.tolist(), log.liked.tolist()])
        keys = {i: hash_json([fitted_on, key]) for i, key in keys.items()}
    to_compute = [i for i in wanted.tolist() if keys[i] not in answers]
    if settings.by == "pictures":
        answers |= by_pictures(pairs, asked, items, TOP, keys)
    elif to_compute:
        opened = partial(_answerer, model, asked, depth, arithmetic, keys)
        answers |= _answered(work, to_compute, keys, opened, len(wanted))
    seconds = time.perf_counter() - started
    rows = [answers[keys[i]] for i in wanted.tolist()]
    clusters = np.array([row["clusters"] for row in rows], np.int32).reshape(len(wanted), depth)
    scores = np.array([row["scores"] for row in rows], np.float32).reshape(len(wanted), depth)
    thoughts = [row["thought"] for row in rows]
    level, figures = {"level": str(pairs.level)}, dict[str, Any]()
    if settings.by == "fitted":
        table = _table(wanted, keys, clusters, scores, thoughts)
        pq.write_table(table.replace_schema_metadata(level), work.out / MODEL)
        clusters, scores, figures = weigh.ranked(pairs, asked, wanted, (clusters, scores), TOP)
        places = np.searchsorted(wanted, items)
        clusters, scores, thoughts = clusters[places], scores[places], [thoughts[i] for i in places.tolist()]
    table = _table(items, keys, clusters, scores, thoughts)
    pq.write_table(table.replace_schema_metadata(level), work.out / ANSWERS)
    via = nearest(items, vectors, asked.cluster)
    for name, array in (("clusters", clusters), ("scores", scores), ("via", via)):
        np.save(work.out / f"{name}.npy", array)
    share = float(traffic[items].sum() / max(traffic.sum(), 1e-12))
    taken_over = len(wanted) - len(to_compute)
    return Outcome(
        counts={
            "items": len(items),
            "computed": len(to_compute),
            "taken_over": taken_over,
            "left": former_n - taken_over,
        },
        metrics={
            **figures,
            "video.coverage": round(share, 4),
            "video.covered_items": len(items),
            "video.reached": round(float(traffic[via >= 0].sum() / max(traffic.sum(), 1e-12)), 4),
            "video.distinct": len(np.unique(clusters[:, 0])),
            # What is computed over what a full run would compute: 1 where nothing was there.
            "video.refresh_cost_ratio": round(len(to_compute) / max(1, len(wanted)), 4),
            "video.table_seconds": round(seconds, 1),
            "video.items_per_second": round(len(to_compute) / seconds, 2) if to_compute else 0.0,
        },
    )


def covered(traffic: NDArray[np.float64], able: NDArray[np.bool_], share: float) -> Ints:
    """Items in order of traffic until they make up `share` of it, ascending; only those that can be looked at.

    Where many popular items cannot be, less popular ones make up for them; an item without traffic never counts.
    """
    order = np.lexsort((np.arange(len(traffic)), -traffic))
    order = order[able[order] & (traffic[order] > 0)]
    upto = np.cumsum(traffic[order])
    enough = int(np.searchsorted(upto, share * traffic.sum() - 1e-9)) + 1
    return np.sort(order[:enough]).astype(np.int32)


def keys_of(items: Ints, asked: Contexts, model: Tuned, top: int, arithmetic: str) -> dict[int, str]:
    """A hash for each item of all that its answer follows from: model, names, what is shown and what is said."""
    record = read_record(model.path)
    assert record is not None
    weights = {name: digest for name, digest in record.files.items() if name != "curve.jsonl"}
    common = hash_json([RULE, weights, asked.names, model.kind, top, arithmetic])
    looks = model.settings.pictures, asked.picks.shape[1]
    out: dict[int, str] = {}
    for i in items.tolist():
        shown = asked.seen.digest[int(asked.row[i])] if model.kind in prompts.SEES else ""
        said = prompts.before(model.kind, asked.item(i))
        out[i] = hash_json([common, looks, shown, said, int(asked.cluster[i])])
    return out


def by_pictures(
    pairs: Pairs, asked: Contexts, items: Ints, top: int, keys: dict[int, str]
) -> dict[str, dict[str, Any]]:
    """The answers of a logistic regression, by their keys. Raises UserError where the log has too few pairs."""
    score = linear(pairs, asked)
    if score is None:
        raise UserError(
            "The log has too few liked pairs for a regression on pictures: set context_table.by to model."
        )
    # What is no surprise scores so low that it takes no share.
    log_p = np.where(serendipitous(asked, items), log_softmax(score(items), axis=1), -np.inf)
    clusters, scores = weigh.best_of(log_p, top)
    rows = zip(items.tolist(), clusters.tolist(), scores.tolist(), strict=True)
    return {keys[i]: {"key": keys[i], "clusters": c, "scores": s, "thought": ""} for i, c, s in rows}


def _most(asked: Contexts) -> int:
    """Clusters that can follow an item, at most."""
    one_each = np.unique(asked.cluster, return_index=True)[1]
    return max(1, int(serendipitous(asked, one_each).sum(1).max(initial=0)))


def _known(work: Work, top: int, file: str) -> dict[str, dict[str, Any]]:
    """The answers of the artifact that this one replaces, by their keys."""
    path = work.out.with_name(work.out.name.removesuffix(".part"))
    if path == work.out or read_record(path) is None or not (path / file).exists():
        return {}
    rows = pq.read_table(path / file).to_pylist()
    return {row["key"]: row for row in rows if len(row["clusters"]) == top}


Answerer = Callable[[list[int]], bytes]


def _answered(
    work: Work, left: list[int], keys: dict[int, str], opened: Callable[[], Answerer], total: int
) -> dict[str, dict[str, Any]]:
    """The answers of the items that are left, by their keys; of a run that was cut what is there is taken over."""
    parts = [left[start : start + BATCH] for start in range(0, len(left), BATCH)]
    path_of = [work.scratch / f"answers-{keys[part[0]]}.parquet" for part in parts]
    waiting = [(path, part) for path, part in zip(path_of, parts, strict=True) if not path.exists()]
    with bar("context table", total, total - sum(len(part) for _, part in waiting)) as advance:
        for i, made in engine.spread(opened, [part for _, part in waiting]):
            path, part = waiting[i]
            write_atomic(path, made)
            advance(len(part))
    return {row["key"]: row for path in path_of for row in pq.read_table(path).to_pylist()}


def _answerer(tuned: Tuned, asked: Contexts, top: int, arithmetic: str, keys: dict[int, str]) -> Answerer:
    """What answers a batch of items."""
    model = open_model(tuned.path, asked, arithmetic)
    return lambda part: answer(model, tuned.kind, part, asked, top, keys)


def answer(
    model: VisionLanguageModel, kind: prompts.Kind, part: list[int], asked: Contexts, top: int, keys: dict[int, str]
) -> bytes:
    """Answer a few items: a parquet file in bytes."""
    n = min(top, len(asked.names))
    items = np.array(part, np.int32)
    best = model.best(kind, part, n, ~serendipitous(asked, items))
    fill = ((0, 0), (0, top - n))
    clusters = np.pad(best.clusters, fill, constant_values=-1)
    scores = np.pad(best.scores, fill, constant_values=-np.inf)
    sink = pa.BufferOutputStream()
    pq.write_table(_table(items, keys, clusters, scores, best.thoughts), sink)
    return sink.getvalue().to_pybytes()


def _table(
    items: Ints, keys: dict[int, str], clusters: Ints, scores: NDArray[np.float32], thoughts: list[str]
) -> pa.Table:
    """One row an item."""
    return pa.table(
        {
            "item": items,
            "key": [keys[i] for i in items.tolist()],
            "clusters": pa.array(clusters.tolist(), pa.list_(pa.int32())),
            "scores": pa.array(scores.tolist(), pa.list_(pa.float32())),
            "thought": pa.array(thoughts, pa.string()),
        }
    )


def nearest(items: Ints, vectors: NDArray[np.float32], cluster: Ints) -> Ints:
    """[n] place in `items` that answers for each item: its own, else its cluster's nearest; -1 without any."""
    via = np.full(len(vectors), -1, np.int32)
    via[items] = np.arange(len(items), dtype=np.int32)
    of_cluster = cluster[items]
    for c in np.unique(of_cluster):
        here = np.flatnonzero(of_cluster == c)
        open_items = np.flatnonzero((cluster == c) & (via < 0))
        if len(open_items):
            similarity = np.asarray(vectors[open_items]) @ np.asarray(vectors[items[here]]).T
            via[open_items] = here[similarity.argmax(axis=1)]
    return via
