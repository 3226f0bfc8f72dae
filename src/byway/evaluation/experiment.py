"""15-experiment: simulated live experiments of all arms on one platform (paper 1, section 3; paper 2, section 4).

Owns segments, runs, controls and the artifact: `figures.json` and, a row an arm, metric and user, `tallies.parquet`.
A run that is done stands in the scratch, so that an interrupted experiment goes on after it.

Segments are equal and no account is in two. Where there are fewer people in the log than the segments need, they
are dealt again to further segments: an account then has twins of the same history and taste elsewhere, never in its
own segment. The bootstrap draws people, with all their twins, so that intervals know.
"""

import copy
import io
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from byway import config
from byway.artifact import Outcome, Work, write_atomic
from byway.data.catalog import Catalog
from byway.data.events import DAY, Events
from byway.evaluation import arms, controls, metrics, platform, simulated, truth
from byway.evaluation.arms import CONTROL, PLACEBO, REFERENCE, Kit
from byway.evaluation.metrics import Interval
from byway.evaluation.platform import Impressions, Nature, asked_of, live
from byway.evaluation.simulated import Simulated
from byway.evaluation.tallies import Tally, added, tally
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language.counts import Successors
from byway.language.curate import Transitions
from byway.language.plan import Table
from byway.policy.baselines.source import Flags, Ints, Known, Logged
from byway.policy.sequence import ItemPolicy
from byway.progress import bar

A_DAY = 10
"""Events that count as a day where the log has no clock."""
WINDOW = 10
"""Days of a window in which the concentration of traffic is measured."""
KEPT = 30
"""An interest was kept if it pleased within so many days of the end."""


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a run needs."""

    kit: Kit
    nature: Nature
    users: Ints
    missing: Flags
    knobs: config.Experiment
    scratch: Path


def load(path: Path) -> dict[str, Any]:
    """The figures of the finished artifact at `path`."""
    return json.loads((path / "figures.json").read_text("utf-8"))


def build(
    work: Work,
    knobs: config.Experiment,
    catalog: Catalog,
    events: Events,
    vectors: np.ndarray,
    tree: Tree,
    descriptions: Descriptions,
    transitions: Transitions,
    table: Table,
    item_policy: ItemPolicy,
    user_ids: list[str],
    folder: Path,
    training: config.ItemPolicy,
) -> Outcome:
    """Run every arm, the controls, and measure."""
    started = time.perf_counter()
    seed = int(work.rng.integers(2**31))
    names = arms.check(knobs.arms)
    ids = catalog.ids()
    nature, users, missing = truth.open_truth(folder, ids, user_ids, events, knobs.list_length)
    kit = make_kit(
        work.scratch, knobs, catalog, events, vectors, tree, descriptions, transitions, table, training, seed
    )
    stage = Stage(kit, nature, users, missing, knobs, work.scratch)
    trained = arms.encoders(stage.kit, names)
    prepared = time.perf_counter()
    leaking = _leaks(stage, trained, names, seed)
    runs = [(s, name) for s in range(knobs.seeds) for name in names]
    found: dict[str, list[Run]] = {name: [] for name in names}
    dealt = [deal(stage.users, len(names), knobs.users, _rng(seed, s, "segments")) for s in range(knobs.seeds)]
    with bar("experiment: arms", len(runs)) as advance:
        for s, name in runs:
            found[name].append(_arm(stage, trained, name, dealt[s][names.index(name)], _seed(seed, s), ""))
            advance(1)
    lived = time.perf_counter()
    figures = measure(stage, found, np.random.default_rng([seed, 1]))
    aa = _identical(stage, seed)
    chance = _by_chance(stage, trained, names, seed)
    figures["controls"] = {"aa": aa, "chance": chance, "leaking": leaking, "world": _world(stage.nature)}
    figures["arms_in_words"] = {name: arms.ARMS[name] for name in names}
    figures["setting"] = {
        "days": knobs.days,
        "seeds": knobs.seeds,
        "users": len(dealt[0][0]),
        "people": len(stage.users),
        "clusters": stage.kit.known.n_clusters,
        "share": knobs.share,
        "kind": "simulated" if isinstance(stage.nature, Simulated) else "replay",
        "retrain_every": knobs.retrain_every,
    }
    (work.out / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False), "utf-8")
    _write_tallies(work.out / "tallies.parquet", found)
    return Outcome(
        counts={"arms": len(names), "runs": len(runs), "impressions": _impressions(found)},
        metrics=_keys(figures),
        timings={
            "prepare": prepared - started,
            "arms": lived - prepared,
            "controls": time.perf_counter() - lived,
        },
    )


def make_kit(
    scratch: Path,
    knobs: config.Experiment,
    catalog: Catalog,
    events: Events,
    vectors: np.ndarray,
    tree: Tree,
    descriptions: Descriptions,
    transitions: Transitions,
    table: Table,
    training: config.ItemPolicy,
    seed: int,
) -> Kit:
    """Everything that arms are made from: nothing of the truth is among it."""
    level = transitions.level
    clusters = tree.size(level)
    parent = tree.parent(level) if level > 1 else np.zeros(clusters, np.int64)
    known = Known(
        np.ascontiguousarray(vectors, np.float32),
        tree.assign(level).astype(np.int64),
        np.asarray(parent, np.int64),
        events.positive,
    )
    top = table.clusters.shape[2]
    return Kit(
        known=known,
        log=logged(events),
        titles=catalog.titles(),
        names=descriptions.names[level - 1],
        tables={
            "byway": np.asarray(table.clusters),
            "model": np.asarray(table.model),
            "counts": arms.count_table(Successors.of(transitions), clusters, top),
        },
        popularity=np.argsort(-transitions.popularity(), kind="stable").astype(np.int32),
        training=training,
        epochs=knobs.epochs,
        every=knobs.retrain_every,
        days=30,
        seed=seed,
        folder=scratch,
    )


def logged(events: Events) -> Logged:
    """The log before the experiment, in order of time; its last day is -1.

    Where the log has no clock, `A_DAY` events of a user count as a day.
    """
    user = events.user.astype(np.int64)
    if events.clock:
        day = events.time // DAY - (int(events.time.max(initial=0)) // DAY + 1)
        order = np.argsort(events.time, kind="stable")
    else:
        after = np.searchsorted(user, user, side="right") - 1 - np.arange(len(user))
        day = -1 - after // A_DAY
        order = np.argsort(day, kind="stable")
    return Logged(
        user[order],
        events.item[order].astype(np.int64),
        events.satisfaction[order],
        day[order].astype(np.int64),
        events.n_users,
    )


def deal(users: Ints, segments: int, size: int, rng: np.random.Generator) -> list[Ints]:
    """Segments of equal size; nobody is twice in one, and nobody in two while there are enough people."""
    size = min(size, len(users))
    dealt: list[Ints] = []
    while len(dealt) < segments:
        order = rng.permutation(users)
        dealt += [np.sort(order[i * size : (i + 1) * size]) for i in range(len(order) // size)]
    return dealt[:segments]


@dataclass(frozen=True, slots=True)
class Run:
    """One arm over one segment."""

    tally: Tally
    daily: dict[str, np.ndarray]
    """[days, U] by metric, numerators a user in the segment."""
    traffic: np.ndarray
    """[windows] Gini coefficient of the items' traffic."""
    items: np.ndarray
    """[N] impressions of the feed."""
    users: Ints


def _arm(stage: Stage, trained: dict[str, Any], name: str, users: Ints, seed: int, kind: str) -> Run:
    """Live one arm, or take what an interrupted experiment has lived already.

    `kind` is "" or "chance", where the liking of what is undiscovered is permuted first.
    """
    path = stage.scratch / f"run{kind}-{name}-{seed}.npz"
    n = stage.kit.log.n_users
    nature = copy.deepcopy(stage.nature)
    if not path.exists():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if kind and isinstance(nature, Simulated):
            simulated.liked_by_chance(nature, np.random.default_rng([seed, 7]))
        source = arms.source(name.removesuffix("_again"), stage.kit, trained, seed)
        shown = _live(stage, nature, source, users, rng)
        arrays = {f.name: getattr(shown, f.name) for f in fields(Impressions)}
        if isinstance(nature, Simulated):
            arrays["interests"] = np.stack(nature.found(users, KEPT))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())
    with np.load(path) as saved:
        shown = Impressions(*(saved[f.name] for f in fields(Impressions)))
        interests = saved["interests"] if "interests" in saved else None
    figures = tally(shown, users, n, stage.knobs.days, stage.kit.known)
    if interests is not None:
        wanted, discovered, kept = (np.bincount(users, row, n) for row in interests)
        figures["interests_found"] = discovered, wanted
        figures["interests_kept"] = kept, wanted
    return Run(figures, _daily(shown, n, stage.knobs.days), *_traffic(stage, shown), users)


def _live(stage: Stage, nature: Nature, source: Any, users: Ints, rng: np.random.Generator) -> Impressions:
    knobs, kit = stage.knobs, stage.kit
    return live(
        nature,
        kit.known,
        kit.log,
        stage.missing,
        source,
        users,
        rng,
        days=knobs.days,
        share=knobs.share,
        candidates=knobs.candidates,
        blur=knobs.blur,
    )


def _daily(shown: Impressions, n: int, days: int) -> dict[str, np.ndarray]:
    """Seconds watched and positive events, day by day and user by user."""
    seconds, positive = np.zeros((days, n), np.float32), np.zeros((days, n), np.float32)
    np.add.at(seconds, (shown.day, shown.user), shown.seconds)
    np.add.at(positive, (shown.day, shown.user), shown.satisfaction >= 0.5)
    return {"watch": seconds, "over_ten": (seconds >= 600).astype(np.float32), "engaged": positive}


def _traffic(stage: Stage, shown: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """Concentration of the feed's traffic by window of days, and impressions of the feed by item."""
    fed, n = shown.nominators > 0, stage.kit.known.n_items
    starts = range(0, stage.knobs.days, WINDOW)
    there = ~stage.missing
    found = [
        metrics.gini(np.bincount(shown.item[fed & (shown.day >= s) & (shown.day < s + WINDOW)], minlength=n)[there])
        for s in starts
    ]
    return np.array(found), np.bincount(shown.item[fed], minlength=n)


def measure(stage: Stage, found: dict[str, list[Run]], rng: np.random.Generator) -> dict[str, Any]:
    """Every metric of every arm, pooled over the seeds, and its lift over the reference and over the control."""
    knobs = stage.knobs
    drawn = metrics.draws(stage.kit.log.n_users, knobs.bootstrap, rng)[:, :]
    pooled = {name: _pooled([run.tally for run in runs]) for name, runs in found.items()}
    by_arm = {
        name: {metric: _row(metrics.ratio(*sums, drawn)) for metric, sums in sums_of.items()}
        for name, sums_of in pooled.items()
    }
    for name, runs in found.items():
        by_arm[name]["coverage"] = _coverage(runs, drawn, ~stage.missing)
    lifts = {
        reference: {
            name: {
                metric: _row(metrics.lift(sums, pooled[reference][metric], drawn))
                for metric, sums in sums_of.items()
                if metric in pooled[reference]
            }
            for name, sums_of in pooled.items()
            if name != reference
        }
        for reference in (REFERENCE, CONTROL, PLACEBO)
        if reference in pooled
    }
    return {
        "arms": by_arm,
        "lift": lifts,
        "growth": {name: _growth(runs, found[CONTROL], drawn) for name, runs in found.items() if name != CONTROL},
        "traffic": {
            name: np.mean([run.traffic for run in runs], 0).round(4).tolist() for name, runs in found.items()
        },
        "seeds": {name: [_means(run.tally) for run in runs] for name, runs in found.items()},
    }


def _means(tallied: Tally) -> dict[str, float]:
    return {name: round(float(a.sum() / b.sum()), 5) for name, (a, b) in tallied.items() if b.sum()}


def _pooled(tallies: Sequence[Tally]) -> Tally:
    total: Tally = {}
    for one in tallies:
        total = added(total, one) if total else one
    return total


def _growth(runs: list[Run], control: list[Run], drawn: np.ndarray) -> dict[str, list[dict[str, float]]]:
    """Lift over the control up to and with each day (paper 1, figure 5; paper 2, figure 7), by metric."""
    found: dict[str, list[dict[str, float]]] = {}
    n = drawn.shape[1]
    sizes = [
        np.bincount(np.concatenate([r.users for r in some]), minlength=n).astype(float) for some in (runs, control)
    ]
    for metric in ("watch", "over_ten", "engaged"):
        ours, theirs = (np.cumsum(sum(r.daily[metric] for r in some), 0) for some in (runs, control))
        days = range(0, len(ours))
        found[metric] = [_row(metrics.lift((ours[d], sizes[0]), (theirs[d], sizes[1]), drawn)) for d in days]
    return found


def _coverage(runs: list[Run], drawn: np.ndarray, there: Flags) -> dict[str, float]:
    """Share of the catalog that the feed showed; its interval is over seeds' items drawn as traffic.

    Drawing users anew would only ever lose items, so that the usual interval lies below the figure; here each
    item's impressions are drawn from a Poisson distribution around what was seen, and the interval is centred.
    """
    shown = sum(run.items for run in runs)[there]
    value = float((shown > 0).mean())
    missed = np.exp(-shown.astype(float))
    spread = 1.96 * float(np.sqrt((missed * (1 - missed) * (shown > 0)).sum())) / len(shown)
    return _row(Interval(value, max(value - spread, 0.0), min(value + spread, 1.0)))


def _row(interval: Interval) -> dict[str, float]:
    """As JSON; what could not be measured is null."""
    return {
        name: round(value, 6) if np.isfinite(value) else None  # type: ignore[misc]
        for name, value in (("mean", interval.mean), ("low", interval.low), ("high", interval.high))
    }


def _leaks(stage: Stage, trained: dict[str, Any], names: tuple[str, ...], seed: int) -> list[str]:
    """Arms whose answers change when the truth is overwritten: there must be none."""
    book = platform.Book.of(stage.kit.known, stage.kit.log, stage.missing)
    asked = asked_of(book, stage.users[:20], 0)
    caught: list[str] = []
    for name in names:
        source = arms.source(name, stage.kit, trained, seed)
        if source is None:
            continue
        source.learn(stage.kit.log, 0)
        if controls.peeks(source, stage.nature, asked, stage.knobs.candidates, seed):
            caught.append(name)
    return caught


def _identical(stage: Stage, seed: int) -> dict[str, Any]:
    """A/A: two controls with other users, seed by seed; the share of metrics that differ significantly."""
    tests = apart = 0
    with bar("experiment: A/A", stage.knobs.aa_seeds) as advance:
        for s in range(stage.knobs.aa_seeds):
            own = _seed(seed, 1000 + s)
            segments = deal(stage.users, 2, min(stage.knobs.users, len(stage.users) // 2), _rng(seed, s, "aa"))
            pair = [
                _arm(stage, {}, name, users, own, "").tally
                for name, users in zip((CONTROL, f"{CONTROL}_again"), segments, strict=True)
            ]
            found = controls.different(*pair, stage.knobs.bootstrap, np.random.default_rng(own))
            tests += len(found)
            apart += sum(found.values())
            advance(1)
    return {
        "seeds": stage.knobs.aa_seeds,
        "tests": tests,
        "significant": apart,
        "share": round(apart / max(tests, 1), 4),
    }


def _by_chance(stage: Stage, trained: dict[str, Any], names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Where undiscovered liking is chance: every planned arm beside the random novel cluster.

    Compared is positive feedback on what the user had never met; what was met before is still liked as before.
    """
    planned = [name for name in ("byway", "model", "counts", PLACEBO) if name in names]
    if not (stage.knobs.chance and isinstance(stage.nature, Simulated) and PLACEBO in planned):
        return {}
    segments = deal(stage.users, len(planned), stage.knobs.users, _rng(seed, 0, "chance"))
    sums: dict[str, Tally] = {
        name: _arm(stage, trained, name, users, _seed(seed, 5000), "chance").tally
        for name, users in zip(planned, segments, strict=True)
    }
    drawn = metrics.draws(stage.kit.log.n_users, stage.knobs.bootstrap, _rng(seed, 1, "chance"))
    metric = "unmet_positive_rate"
    return {
        name: {
            "rate": _row(metrics.ratio(*sums[name][metric], drawn)),
            "lift": _row(lift := metrics.lift(sums[name][metric], sums[PLACEBO][metric], drawn)),
            "beats_placebo": bool(lift.low > 0),
        }
        for name in planned
        if metric in sums[name]
    }


def _world(nature: Nature) -> dict[str, str]:
    """Which world this is, for a placebo world's report to be set beside."""
    if not isinstance(nature, Simulated):
        return {"words": "real", "liking": "real"}
    return {"words": nature.world.knobs.words, "liking": nature.world.knobs.liking}


def _keys(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures under their stable keys."""
    found: dict[str, Any] = {
        f"experiment.arms.{name}.{metric}": row
        for name, rows in figures["arms"].items()
        for metric, row in rows.items()
    }
    for reference, by_arm in figures["lift"].items():
        found |= {
            f"experiment.lift.{reference}.{name}.{metric}": row
            for name, rows in by_arm.items()
            for metric, row in rows.items()
        }
    own = figures["controls"]
    found |= {f"experiment.controls.aa.{name}": value for name, value in own["aa"].items()}
    found |= {f"experiment.controls.chance.{name}": value for name, value in own["chance"].items()}
    found["experiment.controls.leaking"] = own["leaking"]
    found["experiment.controls.world"] = own["world"]
    return found


def _impressions(found: dict[str, list[Run]]) -> int:
    return int(sum(run.tally["platform.positive_rate"][1].sum() for runs in found.values() for run in runs))


def _write_tallies(path: Path, found: dict[str, list[Run]]) -> None:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("arm", "seed", "metric", "user", "numerator", "denominator")
    }
    for name, runs in found.items():
        for s, run in enumerate(runs):
            for metric, (top, below) in run.tally.items():
                user = np.flatnonzero(below)
                for column, value in (
                    ("arm", [name] * len(user)),
                    ("seed", [s] * len(user)),
                    ("metric", [metric] * len(user)),
                    ("user", user.tolist()),
                    ("numerator", top[user].tolist()),
                    ("denominator", below[user].tolist()),
                ):
                    columns[column] += value
    pq.write_table(pa.table(columns), path)


def _seed(seed: int, run: int) -> int:
    return (seed * 1_000_003 + run) % 2**31


def _rng(seed: int, run: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, run, zlib.crc32(purpose.encode())])
