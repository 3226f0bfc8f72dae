"""Arms that plan by a table: equally deep, refreshed where they can be, and paper 1's as printed."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.items.ease import SparseMatrix
from byway.planner import fit
from byway.planner.planner import PlannerWeights
from byway.simulation import arms, experiment
from byway.simulation.arms import ArmContext
from byway.simulation.planned import Planned, Scored, Stored, Tabled, draw_interests
from byway.simulation.source import NONE, Asked, Known, Logged
from byway.transitions import curate
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.table import Table
from byway.transitions.triples import Triples, key, look_up
from tests.simulation import planted

M = 6
KNOWN = Known(np.eye(12, dtype=np.float32), np.arange(12) % M, (np.zeros(M, np.int64),))
"""Items i and i + 6 are of cluster i."""
NOTHING = SparseMatrix(np.zeros((M, 1), np.int32), np.zeros((M, 1), np.float32))
TRAINING = config.ItemPolicy(dim=4, epochs=0, history=5)


def asked(history: list[list[int]], seen: list[list[int]] | None = None) -> Asked:
    """Users with these items, all liked, all yesterday; they have seen others beside them."""
    padded = np.array([[0] * (max(map(len, history)) - len(h)) + [i + 1 for i in h] for h in history])
    hidden, met = np.zeros((len(history), 12), np.bool_), np.zeros((len(history), M), np.bool_)
    for row, items in enumerate(history):
        hidden[row, items + (seen[row] if seen else [])] = True
        met[row, KNOWN.cluster[items]] = True
    there = padded > 0
    return Asked(np.arange(len(history)), padded, there.astype(np.float32), -there.astype(int), 0, hidden, met)


def a_log(events: int = 300, users: int = 30, seed: int = 1) -> Logged:
    rng = np.random.default_rng(seed)
    return Logged(
        rng.integers(users, size=events),
        rng.integers(12, size=events),
        rng.random(events).astype(np.float32),
        np.sort(rng.integers(-20, 8, size=events)),
        users,
    )


def context(folder: Path, **tables: np.ndarray) -> ArmContext:
    first = next(iter(tables.values())).astype(np.int32)
    return ArmContext(
        known=KNOWN,
        log=a_log(),
        titles=["a"] * 12,
        names=["b"] * M,
        tables={name: partial(look_up, table.astype(np.int32), None) for name, table in tables.items()},
        planned=fit.FittedPlanner(
            PlannerWeights({}, 0.25, 1.0), np.full(len(KNOWN.vectors), -1, np.int32), None, NOTHING, KNOWN.vectors
        ),
        table=Table(first, first.astype(np.float32), first),
        leaf=KNOWN.cluster,
        watching=None,
        popularity=np.arange(M, dtype=np.int32)[::-1].copy(),
        sections=config.Config(item_policy=TRAINING, experiment=config.Experiment(retrain_every=0)),
        seed=0,
        folder=folder,
    )


def plan_of(name: str, of: ArmContext) -> tuple[Planned | Scored, Tabled | Stored]:
    found = arms.source(name, of, arms.encoders(of, (name,)), 0)
    assert isinstance(found, Planned)
    assert isinstance(found.plan, Tabled | Stored)
    return found, found.plan


def test_tables_are_read_equally_deep(tmp_path: Path) -> None:
    """`model` holds two answers a pair, `table` four: two count of both, and popularity answers where they end."""
    four = np.tile([1, 2, 3, 4], (M, M, 1))
    of = context(tmp_path, table=four, counts=four[:, :, ::-1], model=four[:, :, :2])
    question = asked([[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], []])
    free = ~question.met
    chosen: dict[str, list[int]] = {}
    for name in ("table", "counts", "model"):
        _, plan = plan_of(name, of)
        assert isinstance(plan, Tabled)
        chosen[name] = plan.choose(question, free, np.random.default_rng(0)).tolist()
    assert chosen["table"] == chosen["model"] == [1, 2, 5, 5, 5]
    assert chosen["counts"] == [4, 4, 4, 4, 5]


def rankings_of(found: arms.Counted, history: int) -> np.ndarray:
    contexts = np.stack(np.meshgrid(*[np.arange(M)] * history, indexing="ij"), -1).reshape(-1, history)
    return found(contexts)


@pytest.mark.parametrize("history", [2, 3])
def test_counts_are_counted_anew_every_week_by_the_rule_of_the_stage(history: int) -> None:
    """The rankings of day 7 are those of all transitions so far, found one by one; between they stand still."""
    log, triples = a_log(900, 90), None
    expected: dict[tuple[int, ...], int] = {}
    for user in range(90):
        touched: set[int] = set()
        liked: list[int] = []
        for event in np.flatnonzero(log.user == user):
            cluster = int(KNOWN.cluster[log.item[event]])
            if log.satisfaction[event] >= 0.5:
                if cluster not in touched and liked:
                    last = liked[-history:]
                    turn = (*[last[0]] * (history - len(last)), *last, cluster)
                    expected[turn] = expected.get(turn, 0) + 1
                liked = [c for c in liked if c != cluster] + [cluster]
            touched.add(cluster)
    found = arms.transitions_of(KNOWN, log, history)
    turns = np.column_stack([found.context, found.label]).tolist()
    rows = {tuple(turn): n for turn, n in zip(turns, found.count.tolist(), strict=True)}
    assert rows == expected
    assert len(rows) > 30
    if history == 3:
        triples = Triples(np.sort(key(np.unique(found.context, axis=0), M)), np.empty((0, 4), np.int32))
        triples = replace(triples, clusters=np.zeros((len(triples.keys), 4), np.int32))
    context = np.tile(np.arange(history, dtype=np.int32), (1, 1))
    old = Samples(context, np.array([5], np.int32), np.array([9], np.int32))
    weighed = replace(Successors.count(old, M), alone_weight=20.0, together_weight=5.0)
    before = arms.counted(weighed, M, 4, triples)
    plan = Tabled(KNOWN, before, np.arange(M, dtype=np.int32), refresh=partial(before.recounted, KNOWN))
    whole = replace(Successors.count(found, M), alone_weight=20.0, together_weight=5.0)
    wanted = rankings_of(arms.counted(whole, M, 4, triples), history)
    for day in (0, 1, 6):
        plan.learn(log, day)
        assert plan.ranking is before
    plan.learn(log, 7)
    assert isinstance(plan.ranking, arms.Counted)
    np.testing.assert_array_equal(rankings_of(plan.ranking, history), wanted)
    assert not np.array_equal(rankings_of(before, history), wanted)


def test_a_platforms_own_log_is_counted_as_the_stage_counts_it() -> None:
    """Events in order of user and time, or the log of the experiment in order of days: the same transitions."""
    tiny = planted.tiny()
    of = planted.known_of(tiny.world)
    stage = curate.find(tiny.events, of.cluster.astype(np.int32), of.n_clusters, 2)
    wanted = curate.count(stage.context, stage.label, of.n_clusters)
    found = arms.transitions_of(of, experiment.logged(tiny.events), 2)
    for name in ("context", "label", "count"):
        np.testing.assert_array_equal(getattr(wanted, name), getattr(found, name))


def test_only_counts_are_refreshed(tmp_path: Path) -> None:
    """What a language model said stands: it would have to be asked again."""
    four = np.tile([1, 2, 3, 4], (M, M, 1))
    of = context(tmp_path, table=four, model=four)
    counts = arms.counted(Successors.count(arms.transitions_of(KNOWN, a_log(), 2), M), M, 4, None)
    of = replace(of, tables={**of.tables, "counts": counts})
    for name in ("table", "model", "counts"):
        _, plan = plan_of(name, of)
        assert isinstance(plan, Tabled)
        before = plan.ranking
        plan.learn(a_log(200, 30, seed=5), 7)
        assert (plan.ranking is before) == (name != "counts")


def test_the_papers_arm_gives_the_pairs_one_answer_known_or_not(tmp_path: Path) -> None:
    """After (0, 1): cluster 2, of which the second user has met item 2 and the third has nothing left."""
    model = np.full((M, M, 3), 4)
    model[0, 1] = [2, 3, 4]
    model[3, 5] = [5, 1, 2]  # no answer: it is one of the pair
    of = context(tmp_path, model=model, table=np.full((M, M, 3), 4), counts=np.full((M, M, 3), 4))
    arm, _ = plan_of("paper", of)
    question = asked([[0, 1], [0, 1], [0, 1], [3, 5], []], [[], [2], [2, 8], [], []])
    question.met[1, 2] = True
    found = arm.nominate(question, 3, np.random.default_rng(0))
    assert sorted(found[0, :2].tolist()) == [2, 8]
    assert found[1].tolist() == [8, NONE, NONE]
    assert (found[[0], 2] == NONE).all()
    assert (found[2:] == NONE).all()


def test_the_papers_arm_draws_two_of_the_last_thirty_days_by_quality() -> None:
    """The same draws as every table's: what is older or displeased does not lead."""
    first = np.arange(M, dtype=np.int32)[:, None].repeat(M, 1)[:, :, None]
    plan = Stored(KNOWN, lambda context: (look_up(first, None, context) + 3) % M)  # three on from the first
    question = asked([[5, 0, 1, 2]] * 2000)
    felt = np.tile([1.0, 0.9, 0.0, 0.8], (2000, 1)).astype(np.float32)
    day = np.tile([-40, -3, -2, -1], (2000, 1))
    question = replace(question, satisfaction=felt, day=day)
    free = np.ones((2000, M), np.bool_)
    chosen = plan.choose(question, free, np.random.default_rng(0))
    drawn = draw_interests(KNOWN, question, np.random.default_rng(0))
    assert set(map(tuple, drawn.tolist())) == {(0, 2)}
    assert set(chosen.tolist()) == {3}
