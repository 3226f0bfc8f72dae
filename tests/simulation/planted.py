"""A tiny simulated platform without a pipeline: the world's own sub-areas as clusters, tables that are known."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from byway.base import config, metrics
from byway.data.events import Events
from byway.planner import fit
from byway.planner.planner import PlannerWeights
from byway.simulation import experiment, loop, simulated, world
from byway.simulation.arms import ArmContext
from byway.simulation.people import WorldSettings
from byway.simulation.runs import Setup
from byway.simulation.simulated import Simulated
from byway.simulation.source import Known
from byway.simulation.world import World
from byway.transitions.table import Table
from byway.transitions.triples import look_up

TRAINING = config.ItemPolicy(dim=8, epochs=2, history=10)


@dataclass(frozen=True)
class Tiny:
    """World, log and people."""

    world: World
    log: loop.WorldLog
    events: Events
    user_ids: list[str]

    def people(self) -> Simulated:
        """The people on the morning after the log, afresh."""
        return simulated.of(self.world, self.world.items.ids, self.user_ids, self.events)


@cache
def tiny(seed: int = 0, users: int = 60) -> Tiny:
    """A world of a few people, its log, and the same log as the catalog's stage would keep it."""
    made = world.build(seed, WorldSettings(n_items=420, n_users=users, events_per_user=30.0, days=25))
    log = loop.simulate(made)
    logged, first = np.unique(log.user, return_index=True)
    ids = [made.user_ids[i] for i in logged[np.argsort(first)]]
    place = {name: i for i, name in enumerate(ids)}
    user = np.array([place[made.user_ids[i]] for i in log.user], np.int32)
    order = np.lexsort((log.time, user))
    events = Events(
        user[order], log.item[order], log.time[order], log.satisfaction[order], True, len(ids), len(made.items)
    )
    return Tiny(made, log, events, ids)


def known_of(made: World) -> Known:
    """Sub-areas as clusters, areas above them, and content that tells topics apart."""
    topics = made.topics
    rng = np.random.default_rng(3)
    place = rng.normal(size=(len(topics.areas), 16))[topics.topic_area] + rng.normal(size=(len(topics), 16))
    vectors = place[made.items.topic] + 0.3 * rng.normal(size=(len(made.items), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Known(
        vectors.astype(np.float32),
        topics.sub_area[made.items.topic].astype(np.int64),
        (np.asarray(topics.area, np.int64),),
    )


def planned(events: Events, known: Known) -> fit.FittedPlanner:
    """Linear models of the log, sub-areas for leaves; all signals weigh the same in size."""
    usual, leaf = fit.neutral(events.satisfaction), known.cluster.astype(np.int32)
    unit = fit.most_watched(events.item, known.n_items)
    leaves, items = fit.linear(events, np.ones(len(events), np.bool_), leaf, unit, usual)
    weights = {"ease": 3.0, "ease_leaves": 1.0, "item_policy": 0.1, "table": 0.3, "similarity": 0.3, "quality": 0.3}
    return fit.FittedPlanner(
        PlannerWeights(weights, usual.neutral, usual.scale), unit, items, leaves, fit.axes(known.vectors, 8)
    )


def context(of: Tiny, folder: Path, **settings: int | float | bool | str) -> ArmContext:
    """Everything that arms are made from; all three tables rank the next clusters in a circle."""
    known = known_of(of.world)
    own = config.Experiment(**{"users": 20, "days": 4, "retrain_every": 2, **settings})
    m = known.n_clusters
    circle = ((np.arange(m)[:, None, None] + np.arange(1, 9)).repeat(m, 1) % m).astype(np.int32)
    return ArmContext(
        known=known,
        log=experiment.logged(of.events),
        titles=[text.title for text in of.world.items.texts],
        names=list(of.world.topics.sub_areas),
        tables={name: partial(look_up, circle, None) for name in ("table", "model", "counts")},
        planned=planned(of.events, known),
        table=Table(circle, circle.astype(np.float32), circle),
        leaf=known.cluster,
        watching=((known.cluster[:, None] + np.arange(1, 9)) % m).astype(np.int32),
        popularity=np.arange(m, dtype=np.int32),
        sections=config.Config(item_policy=TRAINING, experiment=own),
        seed=0,
        folder=folder,
    )


def setup(of: Tiny, folder: Path, **settings: int | float | bool | str) -> Setup:
    """A whole platform."""
    people = of.people()
    buckets = metrics.buckets(np.random.default_rng(5).random(len(of.world.items)))
    nobody = np.zeros(len(of.world.items), np.bool_)
    return Setup(context(of, folder, **settings), people, np.arange(len(of.user_ids)), nobody, buckets, folder)
