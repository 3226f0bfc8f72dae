"""09-pairs: context videos and the serendipitous clusters that pleased next (paper 2, sections 2 and 4.1).

A pair is an event and the one before it of the same person: the context video and the next. The two are *similar*
where they lie in the same cluster at level l, *serendipitous* where they lie in different ones there and in the
same at level l - δ. This module counts; it sees no pictures and knows no words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.data.events import Events
from byway.data.heldout import progress, split
from byway.data.media import Media
from byway.interests.tree import Tree
from byway.transitions.curate import equally_often

Ints = NDArray[np.int32]
PARTS = ("log", "samples", "validation", "heldout", "fresh")
COLUMNS = ("item", "label", "count", "satisfaction", "liked")
DELTA = 1
"""δ: a serendipitous item is of another cluster at level l, where the policy plans, and of the same at level l - δ.
Above the usual level 2 there is no other."""
GAP_HOURS = 12.0
"""An event this long after the one before it does not follow from it, where the log has a clock."""
HELDOUT = 0.2
"""Last share of the pairs, in time, that training never sees."""
VALIDATION = 0.1
"""Last share of the rest, which chooses the checkpoint."""
FRESH = 0.1
"""Share of the context videos that no training ever sees: what a model says of pictures that are new to it."""
PER_LABEL = 10
"""Context videos kept a cluster, those with the highest satisfaction (paper 2, section 4.1)."""
PRIOR = 2.0
"""A mean counts as if the cluster's own had been seen this many times more: with 0, the paper's, videos that
pleased one person once are the best of all."""
BACK_OFF = 20.0
"""Liked pairs that its siblings' popularity weighs as much as, in what is known of a cluster."""
BACK_OFFS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""The same of a cluster, in what is known of a context video: validation chooses. The last is hardly any video."""
HOUR = 3_600_000_000
"""Microseconds."""
SIMILAR, SERENDIPITOUS, UNRELATED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class PairSamples:
    """Context items and clusters, one row for each different pair."""

    item: Ints
    """[N] row of the catalog."""
    label: Ints
    """[N] the serendipitous cluster."""
    count: Ints
    """[N] how often; of validation and held-out pairs, how often with high quality."""
    satisfaction: NDArray[np.float32]
    """[N] mean satisfaction with the next video."""
    liked: NDArray[np.float32]
    """[N] summed satisfaction of those with high quality: the evidence that this cluster pleases next."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, slots=True)
class Pairs:
    """09-pairs as read back."""

    level: int
    clusters: int
    log: PairSamples
    """All serendipitous pairs of the training part."""
    samples: PairSamples
    """The best context videos of each cluster, every cluster equally often: what the paper fine-tunes on."""
    validation: PairSamples
    """High-quality pairs later than the samples' log: for choosing a checkpoint."""
    heldout: PairSamples
    """Later than both: for figures only."""
    fresh: PairSamples
    """High-quality pairs of all times whose context videos are in none of the above: for figures only."""
    back_off: float = BACK_OFF
    """Liked pairs that a cluster's weigh as much as, beside a context video's own."""


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """Every event that follows from another, in order of user and time."""

    context: Ints
    """[N] item before."""
    next: Ints
    """[N] item after."""
    satisfaction: NDArray[np.float32]
    """[N] with the next."""
    time: NDArray[np.int64]
    progress: NDArray[np.float64]
    """Where in the user's own sequence the next one stands, in (0, 1]."""
    user: Ints


def build(work: Work, level: int, events: Events, tree: Tree, seen: Media) -> Outcome:
    """Find the pairs of a level, report who was content with what, split them in time, curate the samples."""
    fine, broad = tree.assign(level), tree.assign(level - DELTA)
    clusters = tree.size(level)
    found = find(events, GAP_HOURS)
    kind = kinds(found, fine, broad)
    part = split(found.time, found.progress, found.user, events.clock, HELDOUT, VALIDATION)
    seeable = np.zeros(events.n_items, bool)
    seeable[seen.item] = True
    new = np.zeros(events.n_items, bool)
    new[work.rng.permutation(seen.item)[: int(FRESH * len(seen.item))]] = True
    usable = (kind == SERENDIPITOUS) & seeable[found.context]
    known = usable & ~new[found.context]
    good = found.satisfaction >= events.positive
    label = fine[found.next]

    def counted(keep: NDArray[np.bool_]) -> PairSamples:
        return aggregate(found, label, keep, clusters, good)

    log = counted(known & (part == 0))
    if not len(log):
        raise UserError(
            f"The log has {int((kind == SERENDIPITOUS).sum()):,} turns from one video to another of a neighbouring "
            "cluster, and none to learn from, by a video whose pictures were seen: use more of the log, or a tree "
            f"with more clusters at level {level} in each of level {level - DELTA} (tree.levels)."
        )
    tables = {
        "log": log,
        "samples": diversified(log, PER_LABEL, PRIOR, clusters, work.rng),
        "validation": counted(known & (part == 1) & good),
        "heldout": counted(known & (part == 2) & good),
        "fresh": counted(usable & new[found.context] & good),
    }
    back_off = fit_back_off(Evidence.of(log, fine, broad, clusters), tables["validation"])
    meta = {"level": str(level), "clusters": str(clusters), "back_off": str(back_off)}
    for name, samples in tables.items():
        table = pa.table({column: getattr(samples, column) for column in COLUMNS})
        pq.write_table(table.replace_schema_metadata(meta), work.out / f"{name}.parquet")
    labels = np.bincount(tables["samples"].label, minlength=clusters)
    return Outcome(
        counts={
            "pairs": len(kind),
            "similar": int((kind == SIMILAR).sum()),
            "serendipitous": int((kind == SERENDIPITOUS).sum()),
            "unseen_context": int(((kind == SERENDIPITOUS) & ~seeable[found.context]).sum()),
            **{name: len(samples) for name, samples in tables.items() if name != "log"},
        },
        metrics={
            **satisfactions(found, kind, part),
            "pairs.serendipitous": int((kind == SERENDIPITOUS).sum()),
            "pairs.contexts": len(np.unique(log.item)),
            "pairs.labels_covered": round(float((labels > 0).mean()), 4),
            "pairs.samples": len(tables["samples"]),
            "pairs.back_off": back_off,
        },
    )


def find(events: Events, gap_hours: float) -> FoundPairs:
    """Each event of a person and the one before it, unless it is the same item or the gap is too long."""
    user = events.user
    follows = (user[1:] == user[:-1]) & (events.item[1:] != events.item[:-1])
    if events.clock:
        follows &= np.diff(events.time) <= gap_hours * HOUR
    at = np.flatnonzero(follows) + 1
    return FoundPairs(
        events.item[at - 1], events.item[at], events.satisfaction[at], events.time[at], progress(user)[at], user[at]
    )


def kinds(found: FoundPairs, fine: Ints, broad: Ints) -> NDArray[np.int8]:
    """[N] SIMILAR, SERENDIPITOUS or UNRELATED, from each item's cluster at level l and at level l - δ."""
    similar = fine[found.context] == fine[found.next]
    near = broad[found.context] == broad[found.next]
    return np.where(similar, SIMILAR, np.where(near, SERENDIPITOUS, UNRELATED)).astype(np.int8)


def satisfactions(found: FoundPairs, kind: NDArray[np.int8], part: NDArray[np.int8]) -> dict[str, float]:
    """Mean satisfaction with the next video after similar, serendipitous and unrelated pairs, outside held out.

    Paper 2 (section 2) justifies its hypothesis by the first two.
    """
    out: dict[str, float] = {}
    for name, number in (("similar", SIMILAR), ("serendipitous", SERENDIPITOUS), ("unrelated", UNRELATED)):
        some = found.satisfaction[(kind == number) & (part < 2)]
        out[f"video.{name}_satisfaction"] = round(float(some.mean()), 4) if len(some) else 0.0
    return out


def aggregate(
    found: FoundPairs, label: Ints, keep: NDArray[np.bool_], clusters: int, good: NDArray[np.bool_]
) -> PairSamples:
    """One row for each (context item, next cluster) among the pairs to keep, with count and satisfaction."""
    key = found.context[keep].astype(np.int64) * clusters + label[keep]
    unique, row, count = np.unique(key, return_inverse=True, return_counts=True)
    felt = found.satisfaction[keep]
    total = np.bincount(row.reshape(-1), felt, len(unique))
    return PairSamples(
        (unique // clusters).astype(np.int32),
        (unique % clusters).astype(np.int32),
        count.astype(np.int32),
        (total / np.maximum(count, 1)).astype(np.float32),
        np.bincount(row.reshape(-1), felt * good[keep], len(unique)).astype(np.float32),
    )


def diversified(
    log: PairSamples, per_label: int, prior: float, clusters: int, rng: np.random.Generator
) -> PairSamples:
    """The `per_label` context items with the highest satisfaction of every cluster (paper 2, section 4.1).

    A mean over one event is mostly luck, so every mean is drawn towards its cluster's as if that had been seen
    `prior` times. Ties go to the more frequent pair, then to chance.
    """
    total = np.bincount(log.label, log.satisfaction * log.count, clusters)
    usual = total / np.maximum(np.bincount(log.label, log.count, clusters), 1)
    drawn = (log.satisfaction * log.count + prior * usual[log.label]) / np.maximum(log.count + prior, 1e-9)
    chosen = equally_often(log.label, (-drawn, -log.count, rng.random(len(log))), per_label, clusters)
    return rows_of(log, chosen)


def rows_of(samples: PairSamples, rows: NDArray[np.integer] | NDArray[np.bool_]) -> PairSamples:
    """Some rows of a table."""
    return PairSamples(*(getattr(samples, name)[rows] for name in COLUMNS))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the log says of what pleases next: by context item, by its cluster, by all."""

    of_item: sparse.csr_array
    """[items, clusters] summed satisfaction of the liked pairs."""
    of_cluster: NDArray[np.float64]
    """[clusters, clusters] the same of a cluster's items, backed off to its siblings' popularity; rows sum to 1."""
    fine: Ints

    @classmethod
    def of(cls, log: PairSamples, fine: Ints, broad: Ints, clusters: int) -> "Evidence":
        """Sum up a log of pairs; `fine` and `broad` [items] are the clusters at level l and at level l - δ."""
        own = np.zeros(clusters, np.int32)
        own[fine] = broad
        possible = (own[:, None] == own[None, :]) & ~np.eye(clusters, dtype=bool)
        of_item = sparse.csr_array((log.liked.astype(float), (log.item, log.label)), shape=(len(fine), clusters))
        of_cluster = np.zeros((clusters, clusters))
        np.add.at(of_cluster, (fine[log.item], log.label), log.liked)
        popular = of_cluster.sum(axis=0) + 1.0
        prior = possible * popular
        prior /= np.maximum(prior.sum(axis=1, keepdims=True), 1e-12)
        known = of_cluster + BACK_OFF * prior
        return cls(of_item, known / np.maximum(known.sum(axis=1, keepdims=True), 1e-12), fine)

    def next(self, items: Ints, back_off: float) -> NDArray[np.float64]:
        """[N, clusters] what is likely to please after each item; rows sum to 1, or to 0 where nothing is possible.

        The item's own evidence and its cluster's, as if that were `back_off` liked pairs more: a Dirichlet prior.
        """
        found = self.of_item[items].toarray() + back_off * self.of_cluster[self.fine[items]]
        return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)


def fit_back_off(evidence: Evidence, validation: PairSamples) -> float:
    """That of BACK_OFFS under which later liked pairs are likeliest; the middle one where there are none."""
    if not len(validation):
        return BACK_OFF
    rows = np.arange(len(validation))

    def likelihood(back_off: float) -> float:
        chance = evidence.next(validation.item, back_off)[rows, validation.label]
        return float(np.log(np.maximum(chance, 1e-12)) @ validation.liked)

    return max(BACK_OFFS, key=likelihood)


def posterior(pairs: Pairs, fine: Ints, broad: Ints) -> Callable[[Ints], NDArray[np.float32]]:
    """What the log says is likely to please after each context item: [N, clusters], see `Evidence.next`."""
    evidence = Evidence.of(pairs.log, fine, broad, pairs.clusters)
    return lambda items: evidence.next(items, pairs.back_off).astype(np.float32)


def load(path: Path) -> Pairs:
    """Read 09-pairs."""
    parts: dict[str, PairSamples] = {}
    meta: dict[bytes, bytes] = {}
    for name in PARTS:
        table = pq.read_table(path / f"{name}.parquet")
        meta = table.schema.metadata
        parts[name] = PairSamples(*(table[column].to_numpy() for column in COLUMNS))
    level, clusters = int(meta[b"level"]), int(meta[b"clusters"])
    return Pairs(level, clusters, **parts, back_off=float(meta[b"back_off"]))
