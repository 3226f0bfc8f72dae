"""12-planner: the linear models of the whole person, and the weights of all signals together.

Fitted on people of whom the item policy was not shown the end (`12-item-policy`): which of the items in interests
that they did not know did they take up then, and how much did these please? Weights are those of least squares,
twice. Over all such items of each person, where an item that was not taken up counts as neutral, one that
displeased as less: that is the criterion of EASE itself. And over what was taken up alone: which of it pleased
most. Either alone does worse than the other somewhere; their sum pleases the people of Jester, MovieLens and the
embedded world more than the first (docs/LOG.md).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.progress import bar
from byway.data.events import DAY, Events
from byway.interests.tree import LEVELS, Tree
from byway.items import ease, export
from byway.items.ease import SparseMatrix
from byway.items.sequence import ItemPolicy, on_first_axes
from byway.items.windows import HeldOut
from byway.planner import regression
from byway.planner.planner import SIGNALS, Asker, Planner, PlannerWeights, item_stats
from byway.planner.regression import Compared
from byway.transitions import draws
from byway.transitions.table import Table
from byway.transitions.triples import look_up

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITEMS = 10_000
"""Items that EASE is over, those watched most: the inverse takes seconds for 2,400 and a minute for 10,000 on two
cores, and 3 GB. The leaves of the tree speak for all others."""
RIDGE = 200.0
"""λ of EASE, where the mean square of the values is 1. On the demo's world 100 to 400 please alike."""
NEUTRAL = 0.6
"""Part of the mean satisfaction that speaks neither for an item nor against it."""
CONTENT = 64
"""Axes of the contents that are kept for their likeness."""
PEOPLE = 1000
"""People on whom weights are fitted."""
CANDIDATES = 10_000
"""Items that nobody took up, a person, that are compared with those that were; all where there are fewer."""
RAREST = 0.05
"""Propensity below which an exposure counts no more than at it: a few of the rarest would decide the weights."""


@dataclass(frozen=True, slots=True)
class FittedPlanner:
    """12-planner as read back; items by row of the catalog."""

    fitted: PlannerWeights
    unit: NDArray[np.int32]
    """[n] row of `items` of each item, -1 where it has none."""
    items: SparseMatrix
    leaves: SparseMatrix
    content: Floats
    """[n, w], or [leaves, w] where there are more than ITEMS items."""


def load(path: Path) -> FittedPlanner:
    """Read the finished artifact at `path`."""
    fitted = msgspec.json.decode((path / "fitted.json").read_bytes(), type=PlannerWeights)
    items, leaves = (ease.load(path, name) for name in ("items", "leaves"))
    return FittedPlanner(
        fitted, np.load(path / "unit.npy"), items, leaves, np.load(path / "content.npy", mmap_mode="r")
    )


def build(
    work: Work,
    sections: config.Config,
    *,
    events: Events,
    vectors: Floats,
    tree: Tree,
    table: Table,
    level: int,
    item_policy: ItemPolicy,
) -> Outcome:
    """Fit on what was held out, then solve the linear models anew over the whole log.

    People are seen here as they will be served: the item policy reads as many items as it was trained on
    (`item_policy.history`), and interests are drawn from the last `bundle.days`.
    """
    started = time.perf_counter()
    leaf, cluster = tree.assign(LEVELS).astype(np.int32), tree.assign(level).astype(np.int32)
    content = axes(np.asarray(vectors), CONTENT)
    if len(content) > ITEMS:
        content = of_leaves(content, leaf)
    heldout = item_policy.heldout
    learned = np.ones(len(events), np.bool_)
    start = events.starts()
    for user, at in zip(heldout.user.tolist(), heldout.at.tolist(), strict=True):
        learned[at : start[user + 1]] = False
    unit = most_watched(events.item, events.n_items)
    with bar("planner: linear models", 4) as advance:
        usual = neutral(events.satisfaction[learned])
        leaves, items = linear(events, learned, leaf, unit, usual, advance=advance)
        traffic, quality = item_stats(events.item[learned], events.satisfaction[learned], events.n_items)
        planner = Planner(
            fitted=usual,
            unit=unit,
            items=items,
            leaf=leaf,
            leaves=leaves,
            cluster=cluster,
            vectors=np.asarray(item_policy.items),
            content=content,
            popularity=np.log1p(traffic),
            quality=quality,
        )
        people = _people(
            events, heldout, start, work.rng, neutral=usual.neutral, explored=sections.planner.explored
        )
        encode = export.reader(item_policy.model, sections.item_policy.history)
        found = _compare(planner, table, people, events, encode, days=sections.bundle.days, rng=work.rng)
        weighed, figures = regression.fitted(found, tuple(sections.planner.signals))
        late = linear(events, np.ones(len(events), np.bool_), leaf, unit, usual, advance=advance)
    fitted = msgspec.structs.replace(
        usual, weights=weighed, positive=events.positive, next_first=regression.orders(figures)
    )
    (work.out / "fitted.json").write_bytes(msgspec.json.format(msgspec.json.encode(fitted), indent=2))
    np.save(work.out / "content.npy", content)
    np.save(work.out / "unit.npy", unit)
    for name, solved in zip(("leaves", "items"), late, strict=True):
        solved.save(work.out, name)
    return Outcome(
        counts={"people": len(people), "taken_up": sum(len(one.rows) for one in people)},
        metrics={f"planner.{name}": value for name, value in figures.items()},
        timings={"build": time.perf_counter() - started},
    )


def neutral(satisfaction: Floats) -> PlannerWeights:
    """A little over half of the mean satisfaction speaks neither for nor against: whoever watches has chosen to.

    In the demo's world 0.2 to 0.3 please best, at a mean of 0.5; of what people rated later in MovieLens 0.5 to
    0.6, at a mean of 0.67, by a little. In a log of positives alone every event counts the same, whatever this is.
    """
    point = NEUTRAL * float(satisfaction.mean()) if len(satisfaction) else 0.5
    square = float(np.mean((satisfaction.astype(np.float64) - point) ** 2)) if len(satisfaction) else 1.0
    return PlannerWeights({}, point, 1 / max(square, 1e-6) ** 0.5, float(satisfaction.min(initial=1.0)))


class Log(Protocol):
    """Events, in any order."""

    @property
    def user(self) -> NDArray[np.integer]: ...
    @property
    def item(self) -> NDArray[np.integer]: ...
    @property
    def satisfaction(self) -> Floats: ...
    @property
    def n_users(self) -> int: ...


def linear(
    log: Log,
    learned: NDArray[np.bool_],
    leaf: NDArray[np.int32],
    unit: NDArray[np.int32],
    fitted: PlannerWeights,
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[SparseMatrix, SparseMatrix]:
    """EASE over leaves, and over the items that have a `unit`, of the events in `learned`."""
    values = fitted.values(log.satisfaction[learned])
    user, item = log.user[learned], log.item[learned]
    found: list[SparseMatrix] = []
    for of in (leaf, unit):
        column = of[item]
        shape, there = (log.n_users, int(of.max(initial=0)) + 1), column >= 0
        x_UN = ease.interaction_matrix(user[there], column[there], values[there], shape)
        found.append(ease.largest(ease.solve(x_UN, RIDGE)))
        advance(1)
    return found[0], found[1]


def most_watched(item: NDArray[np.integer], n: int) -> NDArray[np.int32]:
    """[n] numbers of the items that EASE is over, in the catalog's order; -1 for the others."""
    traffic = np.bincount(item, minlength=n)
    some = np.sort(np.argsort(-traffic, kind="stable")[:ITEMS])
    unit = np.full(n, -1, np.int32)
    unit[some] = np.arange(len(some), dtype=np.int32)
    return unit


def axes(vectors: Floats, width: int) -> Floats:
    """[n, width] the vectors on their first axes, of unit length."""
    placed = on_first_axes(vectors, width)
    return (placed / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def of_leaves(content: Floats, leaf: NDArray[np.int32]) -> Floats:
    """[leaves, w] unit vectors of the means. At a million items those of items are 256 MB, and reading the
    candidates' is a third of the time of their scores; contents weigh little beside what people did."""
    size = np.bincount(leaf)
    mean = np.stack([np.bincount(leaf, axis) for axis in content.T], 1) / np.maximum(size, 1)[:, None]
    return (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-6)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Person:
    """Somebody of whom the end was held out."""

    start: int
    at: int
    """Events before `at` are known, from `start` on."""
    rows: Ints
    """Different items of the held-out events."""
    target: Floats
    """Satisfaction above neutral with each, in the mean of its events; by inverse propensity where there is one."""
    pleased: Floats
    """Satisfaction with each, in the mean of its events."""


def _people(
    events: Events,
    heldout: HeldOut,
    start: Ints,
    rng: np.random.Generator,
    *,
    neutral: float,
    explored: bool,
) -> list[_Person]:
    """Some of the people whose end was held out.

    An item that was not taken up is worth 0, so one that is shown with chance p is worth p times what it would give
    in the mean. Divided by p it is worth that again, however seldom it was shown (Horvitz and Thompson, 1952).
    """
    n = len(heldout.user)
    some = np.sort(rng.choice(n, min(PEOPLE, n), replace=False))
    found: list[_Person] = []
    for user, at in zip(heldout.user[some].tolist(), heldout.at[some].tolist(), strict=True):
        held = slice(at, start[user + 1])
        target = events.satisfaction[held] - np.float32(neutral)
        if explored and events.propensity is not None:
            target = target / np.maximum(events.propensity[held], RAREST)
        rows, place = np.unique(events.item[held], return_inverse=True)
        target, pleased = (
            (np.bincount(place, value) / np.bincount(place)).astype(np.float32)
            for value in (target, events.satisfaction[held])
        )
        found.append(_Person(int(start[user]), at, rows.astype(np.int64), target, pleased))
    return found


def _compare(
    planner: Planner,
    table: Table,
    people: Sequence[_Person],
    events: Events,
    encode: Callable[[Ints], Floats],
    *,
    days: int,
    rng: np.random.Generator,
) -> list[Compared]:
    M = int(planner.cluster.max(initial=0)) + 1
    found: list[Compared] = []
    with bar("planner: people", len(people)) as advance:
        for one in people:
            rows = events.item[one.start : one.at].astype(np.int64)
            liked = events.satisfaction[one.start : one.at]
            met = np.zeros(M, np.bool_)
            met[planner.cluster[rows]] = True
            values = planner.fitted.values(liked)
            time, now = events.time[one.start : one.at], events.time[one.at]
            recent = time > now - days * DAY if events.clock else np.ones(len(rows), np.bool_)
            shares = shares_of(table, planner.cluster[rows], liked, recent, M)
            asker = Asker(rows, values, encode(rows), shares)
            closed = met[planner.cluster]
            closed[rows] = True
            taken = ~closed[one.rows]
            taken_up = one.rows[taken]
            rest = ~closed
            rest[taken_up] = False
            others = np.flatnonzero(rest)
            stands_for = max(1.0, len(others) / CANDIDATES)
            if len(others) > CANDIDATES:
                others = np.sort(rng.choice(others, CANDIDATES, replace=False))
            candidates, n = np.concatenate([taken_up, others]), len(taken_up)
            advance(1)
            if not n or not len(others):
                continue
            said = planner.signals(asker, candidates)
            columns = [said[name]() if name in said else np.zeros(len(candidates)) for name in SIGNALS]
            target = np.zeros(len(candidates), np.float32)
            target[:n] = one.target[taken]
            pleased = np.full(len(candidates), np.nan, np.float32)
            pleased[:n] = one.pleased[taken]
            weight = np.ones(len(candidates), np.float32)
            weight[n:] = stands_for
            # In the catalog's order: where scores are equal, what was taken up must not stand first.
            order = np.argsort(candidates)
            said_cS = np.stack(columns, 1).astype(np.float32)
            found.append(Compared(said_cS[order], target[order], weight[order], pleased[order]))
    return found


def shares_of(
    table: Table, cluster_h: NDArray[np.integer], satisfaction_h: Floats, recent_h: NDArray[np.bool_], M: int
) -> dict[str, Floats]:
    """[M] what the table and the model's own ranking say, over all pairs (or triples) of the recent interests of
    somebody's history."""
    if not len(cluster_h):
        return {}
    K = 2 if table.triples is None else 3
    drawn_from = draws.drawn_from(cluster_h, recent_h, K)
    contexts, chance = draws.drawable(draws.shares(cluster_h[drawn_from], satisfaction_h[drawn_from]), K)
    rankings = {
        "table": look_up(table.clusters, table.triples, contexts),
        "language_model": look_up(table.model, table.model_triples, contexts),
    }
    return {name: draws.reciprocal_rank(ranking, chance, M) for name, ranking in rankings.items()}
