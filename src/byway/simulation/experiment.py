"""15-experiment: live experiments of all arms on one platform (paper 1, section 3; paper 2, section 4).

Owns the design, controls and the artifact: `figures.json` and, a row an arm, metric and user, `tallies.parquet`.
A run that is done stands in the scratch, so that an interrupted experiment goes on after it.

In the paired design all arms of a deal live with the same accounts and the same chance. In the papers' each
has a segment: they are equal and no account is in two. Where there are fewer people in the log than the segments
need, they are dealt again to further segments: an account then has twins of the same history and taste elsewhere,
never in its own segment. The bootstrap draws people, with all their twins, so that intervals know.
"""

import json
import time
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import config, metrics
from byway.base.artifact import Outcome, Work
from byway.base.progress import bar
from byway.data.catalog import Catalog
from byway.data.events import DAY, Events
from byway.data.media import Media
from byway.interests.describe import Descriptions
from byway.interests.tree import LEVELS, Tree
from byway.multimodal.plan import ContextTable
from byway.planner.fit import FittedPlanner
from byway.simulation import arms, controls, pooling, truth, visual
from byway.simulation.arms import CONTROL, MULTIMODAL, PLACEBO, ArmContext
from byway.simulation.control import PlatformState
from byway.simulation.platform import Environment, asked_of
from byway.simulation.pooling import measure, row
from byway.simulation.runs import AGAIN, CANDIDATES, Run, Setup, run_arm
from byway.simulation.simulated import Simulated
from byway.simulation.source import NONE, Ints, Known, Logged
from byway.simulation.tallies import Tally
from byway.transitions.counts import Successors
from byway.transitions.curate import Transitions
from byway.transitions.table import Table
from byway.transitions.triples import look_up

LIST_LENGTH = 10
"""In a replay: items that each user is shown a day."""
AA_PAIRS = 20
"""Pairs of identical arms that are compared: metrics of a pair hang together, and so many say it roughly."""
A_DAY = 10
"""Events that count as a day where the log has no clock."""


def load(path: Path) -> dict[str, Any]:
    """The figures of the finished artifact at `path`."""
    return json.loads((path / "figures.json").read_text("utf-8"))


def build(
    work: Work,
    context: ArmContext,
    *,
    folder: Path,
    item_ids: list[str],
    user_ids: list[str],
    events: Events,
    seen: Media | None,
) -> Outcome:
    """Run every arm, the controls, and measure; `folder` holds what people feel."""
    started = time.perf_counter()
    settings, seed = context.sections.experiment, context.seed
    names = arms.check(settings.arms, context.watching is not None)
    environment, users, missing = truth.open_truth(folder, item_ids, user_ids, events, LIST_LENGTH)
    score = None if seen is None else visual.interest(seen, context.known.vectors)
    bucket = None if score is None else metrics.buckets(score)
    setup = Setup(context, environment, users, missing, bucket, work.scratch)
    trained = arms.encoders(context, names)
    prepared = time.perf_counter()
    leaking = _leaks(setup, trained, names, seed)
    runs = [(s, name) for s in range(settings.seeds) for name in names]
    found: dict[str, list[Run]] = {name: [] for name in names}
    dealt = [dealt_to(settings, setup.users, len(names), _rng(seed, s, "segments")) for s in range(settings.seeds)]
    with bar("experiment: arms", len(runs)) as advance:
        for s, name in runs:
            found[name].append(run_arm(setup, trained, name, dealt[s][names.index(name)], _seed(seed, s), ""))
            advance(1)
    lived = time.perf_counter()
    figures = measure(setup, found, np.random.default_rng([seed, 1]))
    aa = identical(setup, AA_PAIRS, seed)
    chance = _by_chance(setup, trained, names, seed)
    figures["controls"] = {"aa": aa, "chance": chance, "leaking": leaking, "world": _world(setup.environment)}
    figures["arms_in_words"] = {name: arms.ARMS[name] for name in names}
    figures["setting"] = {
        "design": settings.design,
        "days": settings.days,
        "seeds": settings.seeds,
        "users": len(dealt[0][0]),
        "people": len(setup.users),
        "clusters": setup.context.known.n_clusters,
        "share": settings.share,
        "kind": truth.kind(folder),
        "retrain_every": settings.retrain_every,
    }
    (work.out / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False), "utf-8")
    _write_tallies(work.out / "tallies.parquet", found, setup.users)
    shown = (run.tally["platform.positive_rate"][1].sum() for name in names for run in found[name])
    return Outcome(
        counts={"arms": len(names), "runs": len(runs), "impressions": int(sum(shown))},
        metrics=_keys(figures),
        timings={
            "prepare": prepared - started,
            "arms": lived - prepared,
            "controls": time.perf_counter() - lived,
        },
    )


def arm_context(
    folder: Path,
    seed: int,
    *,
    catalog: Catalog,
    events: Events,
    vectors: NDArray[np.float32],
    tree: Tree,
    descriptions: Descriptions,
    transitions: Transitions,
    table: Table,
    planned: FittedPlanner,
    contexts: ContextTable | None,
    sections: config.Config,
) -> ArmContext:
    """What arms are made from, of what the stages before made of a log: nothing of the truth is among it.

    `contexts` is None where no item has been looked at.
    """
    level = transitions.level
    clusters = tree.size(level)
    heads = tree.order[tree.starts[level - 1][:-1]]
    above = tuple(tree.assign(each)[heads].astype(np.int64) for each in range(1, level))
    known = Known(
        np.ascontiguousarray(vectors, np.float32),
        tree.assign(level).astype(np.int64),
        above or (np.zeros(clusters, np.int64),),
        events.positive,
    )
    return ArmContext(
        known=known,
        log=logged(events),
        titles=catalog.titles(),
        names=descriptions.names[level - 1],
        tables={
            "table": partial(look_up, np.asarray(table.clusters), table.triples),
            "model": partial(look_up, np.asarray(table.model), table.model_triples),
            "counts": arms.counted(Successors.of(transitions), clusters, table.clusters.shape[2], table.triples),
        },
        watching=_watching(contexts, level),
        popularity=np.argsort(-transitions.popularity(), kind="stable").astype(np.int32),
        planned=planned,
        table=table,
        leaf=tree.assign(LEVELS).astype(np.int64),
        sections=sections,
        seed=seed,
        folder=folder,
    )


def _watching(contexts: ContextTable | None, level: int) -> NDArray[np.int32] | None:
    """[N, n] clusters that each item leads to; None where no item was looked at on this level."""
    if contexts is None or not len(contexts.item) or contexts.level != level:
        return None
    return np.where((contexts.via < 0)[:, None], NONE, contexts.clusters[contexts.via]).astype(np.int32)


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


def dealt_to(settings: config.Experiment, users: Ints, count: int, rng: np.random.Generator) -> list[Ints]:
    """The accounts of each arm of a deal: the same for all, or a segment each."""
    if settings.design == "segments":
        return deal(users, count, settings.users, rng)
    return deal(users, 1, settings.users, rng) * count


def _leaks(setup: Setup, trained: dict[str, Any], names: tuple[str, ...], seed: int) -> list[str]:
    """Arms whose answers change when the truth is overwritten: there must be none."""
    state = PlatformState.of(setup.context.known, setup.context.log, setup.missing)
    asked = asked_of(state, setup.users[:20], 0)
    caught: list[str] = []
    for name in names:
        source = arms.source(name, setup.context, trained, seed)
        if source is None:
            continue
        source.learn(setup.context.log, 0)
        if controls.leaks(source, setup.environment, asked, CANDIDATES, seed):
            caught.append(name)
    return caught


def identical(setup: Setup, pairs: int, seed: int) -> dict[str, Any]:
    """A/A: so many pairs of controls that differ by chance alone; the share of metrics that differ significantly.

    In the paired design both have the same accounts and other chance, in segments other accounts too. A pair is
    lived as often as the arms are (`experiment.seeds`), since what a platform learns in a run moves all who live in
    it together, which people alone do not show.
    """
    settings = setup.settings
    size = min(settings.users, len(setup.users) // 2) if settings.design == "segments" else settings.users
    found: list[dict[str, bool]] = []
    with bar("experiment: A/A", pairs * settings.seeds) as advance:
        for s in range(pairs):
            own = _seed(seed, 1000 + s)
            lived: dict[str, list[Tally]] = {CONTROL: [], CONTROL + AGAIN: []}
            for d in range(settings.seeds):
                key = s + d * pairs
                segments = dealt_to(replace(settings, users=size), setup.users, 2, _rng(seed, key, "aa"))
                for (name, tallies), users in zip(lived.items(), segments, strict=True):
                    tallies.append(run_arm(setup, {}, name, users, _seed(seed, 1000 + key), "").tally)
                advance(1)
            one, other = (pooling.stacked(tallies) for tallies in lived.values())
            found.append(controls.different(one, other, pooling.BOOTSTRAP, np.random.default_rng(own)))
    tests, apart = sum(map(len, found)), sum(sum(each.values()) for each in found)
    names = sorted({name for each in found for name in each})
    return {
        "seeds": pairs,
        "tests": tests,
        "significant": apart,
        "share": round(apart / max(tests, 1), 4),
        "by_metric": {
            name: round(float(np.mean([each[name] for each in found if name in each])), 4) for name in names
        },
        "by_pair": [round(sum(each.values()) / max(len(each), 1), 4) for each in found],
    }


def _by_chance(setup: Setup, trained: dict[str, Any], names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Where undiscovered liking is chance: every planned arm beside the random novel cluster.

    Compared is positive feedback on what the user had never met; what was met before is still liked as before.
    """
    planned = [name for name in ("byway", "table", MULTIMODAL, "model", "counts", PLACEBO) if name in names]
    if not (isinstance(setup.environment, Simulated) and PLACEBO in planned):
        return {}
    segments = dealt_to(setup.settings, setup.users, len(planned), _rng(seed, 0, "chance"))
    sums: dict[str, Tally] = {
        name: run_arm(setup, trained, name, users, _seed(seed, 5000), "chance").tally
        for name, users in zip(planned, segments, strict=True)
    }
    drawn = metrics.bootstrap_weights(len(setup.users), pooling.BOOTSTRAP, _rng(seed, 1, "chance"))
    metric = "unmet_positive_rate"
    return {
        name: {
            "rate": row(metrics.ratio(*sums[name][metric], drawn)),
            "lift": row(lift := metrics.lift(sums[name][metric], sums[PLACEBO][metric], drawn)),
            "beats_placebo": bool(lift.low > 0),
        }
        for name in planned
        if metric in sums[name]
    }


def _world(environment: Environment) -> dict[str, str]:
    """Which world this is, for a placebo world's report to be set beside."""
    if not isinstance(environment, Simulated):
        return {"words": "real", "liking": "real"}
    return {"words": environment.world.settings.words, "liking": environment.world.settings.liking}


def _keys(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures under their stable keys."""
    found: dict[str, Any] = {}
    for name, rows in figures["arms"].items():
        found |= {f"experiment.arms.{name}.{metric}": row for metric, row in rows.items()}
    for reference, by_arm in figures["lift"].items():
        for name, rows in by_arm.items():
            found |= {f"experiment.lift.{reference}.{name}.{metric}": row for metric, row in rows.items()}
    own = figures["controls"]
    counted = ("seeds", "tests", "significant", "share")
    found |= {f"experiment.controls.aa.{name}": own["aa"][name] for name in counted}
    found |= {f"experiment.controls.chance.{name}": value for name, value in own["chance"].items()}
    return found | {f"experiment.controls.{name}": own[name] for name in ("leaking", "world")}


def _write_tallies(path: Path, found: dict[str, list[Run]], people: Ints) -> None:
    parts: list[pa.Table] = []
    for name, runs in found.items():
        for s, run in enumerate(runs):
            for metric, (top, below) in run.tally.items():
                user = np.flatnonzero(below)
                n = len(user)
                columns = {
                    "arm": pa.array([name] * n, pa.string()),
                    "seed": pa.array([s] * n, pa.int64()),
                    "metric": pa.array([metric] * n, pa.string()),
                    "user": people[user],
                    "numerator": top[user],
                    "denominator": below[user],
                }
                parts.append(pa.table(columns))
    pq.write_table(pa.concat_tables(parts).combine_chunks(), path)


def _seed(seed: int, run: int) -> int:
    return (seed * 1_000_003 + run) % 2**31


def _rng(seed: int, run: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, run, zlib.crc32(purpose.encode())])
