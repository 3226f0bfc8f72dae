"""06-transitions: what people turned to next that was new to them.

A transition `[(C1, C2), C_L]` (paper 1, section 2.3): from a user's high-quality interactions in time order, the
first item of a cluster the user had never consumed (C_L) and the K unique clusters most recently consumed before
it, the most recent last. The same cluster twice in a row counts once. This module counts; it knows no words.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.base.progress import say
from byway.data.events import Events
from byway.data.heldout import progress, split, split_instants
from byway.interests.tree import Tree
from byway.transitions.standing import CHUNK, Standing, by_users, most_recent, where_users_stand
from byway.transitions.triples import key

Ints = NDArray[np.int32]
HELDOUT = 0.2
"""Last share of the transitions, in time, that training never sees."""
VALIDATION = 0.1
"""Last share of what is not held out that chooses the checkpoint and fits weights; it is not trained on either."""
PER_LABEL = 10
"""Pairs kept a label under diversified curation (paper 1, section 2.3), and drawn a label under random curation."""
TIED = 0.05
"""Share of the turns at split instants from which it is said."""
PARTS = ("train", "validation", "heldout", "samples")


@dataclass(frozen=True, slots=True)
class Samples:
    """Counted transitions, one row for each different one."""

    context: Ints
    """[N, K] clusters, the most recent last. A user with a single interest so far has it K times."""
    label: Ints
    """[N] the novel cluster."""
    count: Ints
    """[N] how often."""

    def __len__(self) -> int:
        return len(self.label)

    def several(self) -> "Samples":
        """Only transitions whose K clusters are all different, which is the paper's definition."""
        ordered = np.sort(self.context, axis=1)
        keep = (np.diff(ordered, axis=1) != 0).all(axis=1)
        return Samples(self.context[keep], self.label[keep], self.count[keep])


@dataclass(frozen=True, slots=True)
class Transitions:
    """06-transitions as read back."""

    level: int
    clusters: int
    whole_log: bool
    """Whether the samples are the training log itself."""
    train: Samples
    """The log up to the validation part: evidence for counting."""
    validation: Samples
    """The last part of what is not held out: for choosing a checkpoint and fitting weights."""
    heldout: Samples
    """Later than everything above: for figures only."""
    samples: Samples
    """What the model is fine-tuned on, after curation."""

    def popularity(self) -> NDArray[np.float64]:
        """Training transitions into each cluster, [clusters]."""
        return np.bincount(self.train.label, self.train.count, self.clusters).astype(np.float64)


EXHAUSTED = 0.2
"""Share of people who have met every interest beyond which that is said."""


def _why_few(events: Events) -> str:
    """Why a log has too few turns to learn from, and what to do."""
    good = np.bincount(events.user[events.good()], minlength=1)
    if (good < 2).all():
        return "nobody has two events that reach catalog.positive, and a turn takes two; use more of the log"
    if (good > 0).sum() == 1:
        return "all that reaches catalog.positive is of one user; use more of the log"
    return "too few to learn from; use more of the log, lower tree.items_per_cluster, or a deeper transitions.level"


def build(work: Work, settings: config.Transitions, events: Events, tree: Tree) -> Outcome:
    """Find the transitions, split them in time, curate the fine-tuning samples."""
    clusters = tree.size(settings.level)
    if clusters <= settings.history:
        raise UserError(
            f"Level {settings.level} of the tree has {clusters} clusters, and a prompt holds {settings.history} "
            "of them: there is nothing to choose from. Set transitions.level deeper, or the numbers in "
            "tree.levels higher."
        )
    cluster_of = tree.assign(settings.level)
    found = find(events, cluster_of, clusters, settings.history)
    standing = where_users_stand(events, cluster_of, clusters, settings.history)
    standing.write(work.out)
    exhausted = float((np.diff(standing.starts) >= clusters).mean())
    part = split(found.time, found.progress, found.user, events.clock, HELDOUT, VALIDATION)
    counted = {
        name: count(found.context[part == i], found.label[part == i], clusters) for i, name in enumerate(PARTS[:3])
    }
    several = counted["train"].several()
    counted["samples"] = counted["train"]
    if settings.curation == "diversified":
        counted["samples"] = diversified(several, PER_LABEL, clusters, work.rng)
    elif settings.curation == "random":
        counted["samples"] = sampled(several, PER_LABEL * clusters, work.rng)
    # What is measured on are contexts of different interests alone.
    lacking = [] if len(counted["samples"]) else ["samples"]
    lacking += [name for name in ("validation", "heldout") if not len(counted[name].several())]
    if lacking:
        raise UserError(
            f"The log has {len(found.label):,} turns to an interest that was new to somebody, and none for the "
            f"{' and the '.join(lacking)}: {_why_few(events)}."
        )
    if exhausted > EXHAUSTED:
        say(
            f"  [yellow]{exhausted:.0%} of the people have met all {clusters} interests[/], so that nothing new is "
            "left for them: lower tree.items_per_cluster for more interests."
        )
    meta = {"level": str(settings.level), "clusters": str(clusters), "curation": settings.curation}
    for name in PARTS:
        write(counted[name], work.out / f"{name}.parquet", meta)
    samples, heldout = counted["samples"], counted["heldout"].several()
    labels = np.bincount(samples.label, minlength=clusters)
    tied = split_instants(found.time, part).mean() if events.clock else 0.0
    if tied > TIED:
        say(
            f"  [yellow]{tied:.0%} of the turns are of instants that a cut splits[/]: the clock is coarse, and of "
            "such an instant some users are held out, by their numbers."
        )
    unseen = heldout.count[~np.isin(key(heldout.context, clusters), key(several.context, clusters))].sum()
    return Outcome(
        counts={
            **{name: int(counted[name].count.sum()) for name in PARTS[:3]},
            "samples": len(samples),
            "short_history": found.short,
            "not_new": found.not_new,
        },
        metrics={
            "transitions.exhausted": round(exhausted, 4),
            "transitions.train": int(several.count.sum()),
            "transitions.heldout": int(heldout.count.sum()),
            "transitions.heldout_unseen_pairs": round(float(unseen / max(1, heldout.count.sum())), 4),
            "transitions.tied": round(float(tied), 4),
            "transitions.labels_covered": round(float((labels > 0).mean()), 4),
            "transitions.samples_a_label": [int(labels.min()), float(np.median(labels)), int(labels.max())],
        },
    )


@dataclass(frozen=True, slots=True)
class FoundTransitions:
    """Every transition of the log, one row each, in order of user and time."""

    context: Ints
    label: Ints
    time: NDArray[np.int64]
    progress: NDArray[np.float64]
    """Where in the user's own sequence the label stands, in (0, 1]."""
    user: Ints
    short: int
    """Novel clusters without any cluster before them."""
    not_new: int
    """High-quality visits to a cluster that was not new."""


def find(events: Events, cluster_of: Ints, clusters: int, history: int, chunk: int = CHUNK) -> FoundTransitions:
    """All transitions with `history` unique clusters before them; fewer are filled up with the oldest one.

    A cluster is new to a user where no event of any quality touched it before; contexts and labels are
    high-quality interactions. Users are independent, so about `chunk` events are looked at together.
    """
    parts = [_find(part, cluster_of, clusters, history) for part in by_users(events, chunk)]
    names = ("context", "label", "time", "progress", "user")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return FoundTransitions(
        **columns, short=sum(part.short for part in parts), not_new=sum(part.not_new for part in parts)
    )


def _find(events: Events, cluster_of: Ints, clusters: int, history: int) -> FoundTransitions:
    cluster = cluster_of[events.item].astype(np.int64)
    user = events.user.astype(np.int64)
    first = np.zeros(len(user), dtype=bool)
    first[np.unique(user * clusters + cluster, return_index=True)[1]] = True
    good = events.good()
    user, cluster, first, time = user[good], cluster[good], first[good], events.time[good]
    place = progress(user)
    # Runs: the same cluster twice in a row counts once.
    run = np.flatnonzero((np.diff(user, prepend=-1) != 0) | (np.diff(cluster, prepend=-1) != 0))
    user, cluster, first, time, place = user[run], cluster[run], first[run], time[run], place[run]
    start = np.maximum.accumulate(np.where(np.diff(user, prepend=-1) != 0, np.arange(len(user)), 0))
    new = np.flatnonzero(first)
    context = most_recent(cluster, start[new], new, history)
    enough = context[:, -1] >= 0
    new, context = new[enough], context[enough]
    for k in range(history - 2, -1, -1):
        context[:, k] = np.where(context[:, k] < 0, context[:, k + 1], context[:, k])
    return FoundTransitions(
        context=context.astype(np.int32),
        label=cluster[new].astype(np.int32),
        time=time[new],
        progress=place[new],
        user=user[new].astype(np.int32),
        short=int((~enough).sum()),
        not_new=len(user) - int(first.sum()),
    )


def extend(standing: Standing, events: Events, cluster_of: Ints, clusters: int) -> tuple[Samples, Standing]:
    """The transitions of new events of users who stand as `standing` says, and where these leave them.

    `events` are sorted by user and later than what `standing` knows; `n_users` counts new users too. What a user
    did before is played again in short: each cluster touched, then those most recently enjoyed; it makes no
    transition, since none of them is new, and is all that those of the new events depend on.
    """
    history = standing.recent.shape[1]
    users = np.arange(events.n_users)
    fresh = events.n_users - (len(standing.starts) - 1)
    recent = np.concatenate([standing.recent, np.full((fresh, history), -1, np.int32)])
    owner = np.repeat(users[: len(users) - fresh], np.diff(standing.starts))
    active = np.isin(users, events.user)
    before = active[owner]
    liked_by, slot = np.nonzero((recent >= 0) & active[:, None])
    user = np.concatenate([owner[before], liked_by, events.user])
    item = np.concatenate([standing.touched[before], recent[liked_by, slot], cluster_of[events.item]])
    good = np.concatenate([np.zeros(before.sum(), bool), np.ones(len(slot), bool), events.good()])
    order = np.argsort(user, kind="stable")
    replayed = Events(
        user=user[order].astype(np.int32),
        item=item[order].astype(np.int32),
        time=np.zeros(len(order), np.int64),
        satisfaction=good[order].astype(np.float32),
        clock=False,
        n_users=events.n_users,
        n_items=clusters,
    )
    itself = np.arange(clusters, dtype=np.int32)
    found = find(replayed, itself, clusters, history)
    after = where_users_stand(replayed, itself, clusters, history)
    # Users without new events stay where they were.
    owner = np.concatenate([owner[~before], np.repeat(users, np.diff(after.starts))])
    touched = np.concatenate([standing.touched[~before], after.touched])
    standing = Standing(
        np.append(0, np.cumsum(np.bincount(owner, minlength=len(users)))),
        touched[np.argsort(owner, kind="stable")],
        np.where(active[:, None], after.recent, recent),
    )
    return count(found.context, found.label, clusters), standing


def count(context: Ints, label: Ints, clusters: int) -> Samples:
    """One row for each different transition, in order of context and label."""
    keys = key(np.column_stack([context, label]), clusters)
    _, index, counts = np.unique(keys, return_index=True, return_counts=True)
    return Samples(context[index], label[index], counts.astype(np.int32))


def added(a: Samples, b: Samples) -> Samples:
    """Both counts in one."""
    rows = np.concatenate([np.column_stack([s.context, s.label]) for s in (a, b)])
    if not len(rows):
        return a
    different, at = np.unique(rows, axis=0, return_inverse=True)
    total = np.bincount(at.reshape(-1), np.concatenate([a.count, b.count]))
    return Samples(*(np.ascontiguousarray(x, np.int32) for x in (different[:, :-1], different[:, -1], total)))


def diversified(log: Samples, per_label: int, clusters: int, rng: np.random.Generator) -> Samples:
    """The `per_label` most frequent contexts of every label: each label equally often (paper 1, section 2.3).

    Ties are broken at random.
    """
    chosen = equally_often(log.label, (-log.count, rng.random(len(log))), per_label, clusters)
    return Samples(log.context[chosen], log.label[chosen], np.ones(len(chosen), dtype=np.int32))


def equally_often(label: Ints, least: tuple[NDArray[Any], ...], per_label: int, clusters: int) -> NDArray[np.int64]:
    """Ascending rows, `per_label` of each label: those of the least values, ties by the next array.

    A label with fewer rows repeats its own, the best first, and one that has none stays absent: no behaviour is
    invented.
    """
    order = np.lexsort((*reversed(least), label))
    ordered = label[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = order[rank < per_label]
    have = np.bincount(label[kept], minlength=clusters)
    rows = [kept]
    for c in np.flatnonzero((have > 0) & (have < per_label)):
        rows.append(np.resize(kept[label[kept] == c], per_label - have[c]))
    return np.sort(np.concatenate(rows))


def sampled(log: Samples, size: int, rng: np.random.Generator) -> Samples:
    """`size` transitions drawn from the log as they come: the paper's low-diversity control (figure 3)."""
    total = int(log.count.sum())
    drawn = rng.choice(np.repeat(np.arange(len(log)), log.count), min(size, total), replace=False)
    drawn.sort()
    return Samples(log.context[drawn], log.label[drawn], np.ones(len(drawn), dtype=np.int32))


def pick(samples: Samples, n: int, rng: np.random.Generator) -> Samples:
    """At most n different samples, drawn by their counts, each counted once."""
    if len(samples) <= n:
        return samples
    chosen = rng.choice(len(samples), n, replace=False, p=samples.count / samples.count.sum())
    chosen.sort()
    return Samples(samples.context[chosen], samples.label[chosen], np.ones(n, dtype=np.int32))


def spread_out(rows_NK: Ints, n: int) -> Ints:
    """At most n rows, evenly spaced: the first n of ordered contexts would all begin in one corner of the tree."""
    return rows_NK[np.linspace(0, len(rows_NK) - 1, min(n, len(rows_NK))).astype(int)]


def write(samples: Samples, path: Path, meta: dict[str, str]) -> None:
    table = _table(samples.context, label=samples.label, count=samples.count)
    pq.write_table(table.replace_schema_metadata(meta), path)


def _table(context: Ints, **columns: NDArray[Any]) -> pa.Table:
    """A context in columns `c1`, `c2` and so on, and two more columns."""
    return pa.table({f"c{k}": column for k, column in enumerate(context.T, 1)} | columns)


def _columns(table: pa.Table) -> tuple[Ints, NDArray[Any], NDArray[Any]]:
    """What `_table` was made of."""
    *context, one, other = (column.to_numpy() for column in table.columns)
    return np.column_stack(context), one, other


def load(path: Path) -> Transitions:
    """Read 06-transitions."""
    parts: dict[str, Samples] = {}
    meta: dict[bytes, bytes] = {}
    for name in PARTS:
        table = pq.read_table(path / f"{name}.parquet")
        meta = table.schema.metadata
        parts[name] = Samples(*_columns(table))
    level, clusters, whole = int(meta[b"level"]), int(meta[b"clusters"]), meta[b"curation"] == b"log"
    return Transitions(level, clusters, whole, **parts)
