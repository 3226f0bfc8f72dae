"""The steps as functions of arrays: what the stages find, and a sentence for arrays that do not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import byway
from byway.base.errors import UserError
from byway.data.events import Events
from byway.interests import tree
from byway.interests.graph import NEIGHBOURS, nearest
from byway.language.fast import bulk
from byway.transitions import curate
from byway.transitions.signals import Counts, Scorer

N, USERS, ITEMS, M = 3000, 40, 200, 12


def made(seed: int = 0) -> tuple[np.ndarray, ...]:
    """A log in no order, in which users and times come several times."""
    rng = np.random.default_rng(seed)
    return rng.integers(USERS, size=N), rng.integers(ITEMS, size=N), rng.integers(900, size=N), rng.random(N)


def vectors(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.eye(M)[np.arange(ITEMS) % M] + 0.2 * rng.normal(size=(ITEMS, M))


def test_the_tree_is_that_of_the_stage() -> None:
    rows = vectors().astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    traffic = np.random.default_rng(1).zipf(1.7, ITEMS).astype(float)
    rng = np.random.default_rng(4)
    graph = nearest(rows, NEIGHBOURS, seed=int(rng.integers(1 << 31)))
    wanted = tree.grow(rows, graph, traffic, (3, 12, 24, 60), rng)
    found = byway.cut_tree(rows, traffic, levels=(3, 12, 24, 60), rng=4)
    once, twice = (byway.cut_tree(factor * vectors(), traffic, rng=np.random.default_rng(4)) for factor in (2, 8))
    for level in (1, 2, 3, 4):
        np.testing.assert_array_equal(found.assign(level), wanted.assign(level))
        np.testing.assert_array_equal(once.assign(level), twice.assign(level))
    assert byway.cut_tree(rows, traffic, items_per_cluster=np.int64(20)).size(2) == ITEMS // 20
    levels = np.array([3, 12, 24, 60])
    again = byway.cut_tree(rows, traffic, levels=levels, rng=4)
    np.testing.assert_array_equal(again.order, found.order)


@pytest.mark.parametrize("history", [1, 2, 3])
def test_transitions_of_a_log_in_any_order_are_those_of_the_stage(history: int) -> None:
    user, item, time, satisfaction = made()
    cluster_of = np.arange(ITEMS) % M
    order = np.lexsort((time, user))
    log = Events(
        *(
            user[order].astype(np.int32),
            item[order].astype(np.int32),
            time[order],
            satisfaction[order].astype("f4"),
        ),
        clock=True,
        n_users=USERS,
        n_items=ITEMS,
        positive=0.4,
    )
    wanted = curate.find(log, cluster_of.astype(np.int32), M, history)
    found = byway.find_transitions(user, item, time, satisfaction, cluster_of, history=history, positive=0.4)
    for name in ("context", "label", "time", "user"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert len(found.label) > 100


def test_counts_rank_as_the_log_s_evidence_does() -> None:
    found = byway.find_transitions(*made(), cluster_of=np.arange(ITEMS) % M)
    counted = byway.count_successors(found.context, found.label, M)
    pairs = np.array([(a, b) for a in range(M) for b in range(M)])
    clusters, chance = byway.rank_successors(counted, pairs, k=M)
    evidence, _ = bulk.by_evidence(pairs.astype(np.int32), Scorer((Counts(counted),), {}), M, M)
    own = counted.probability(pairs.astype(np.int32))
    assert counted.probability(pairs.tolist()).tolist() == own.tolist()
    at = np.arange(len(pairs))
    for place in range(M - 2):
        left = clusters[:, place] >= 0
        assert left.all()
        # Nearly equal ones may stand either way: probabilities are compared, and logarithms are in float32.
        assert own[at, clusters[:, place]] == pytest.approx(own[at, evidence[:, place]], rel=1e-5)
        assert own[at, clusters[:, place]].tolist() == chance[:, place].tolist()
    distinct = pairs[:, 0] != pairs[:, 1]
    assert (clusters[distinct, M - 2 :] == -1).all()
    assert (chance[distinct, M - 2 :] == 0).all()
    assert not (clusters == pairs[:, :1]).any()


def test_the_item_policy_keeps_to_what_it_is_asked_among_and_knows_what_was_met() -> None:
    policy = byway.train_item_policy(*made(), vectors(), epochs=1, dim=8, history=5)
    items, scores = policy.recommend([3, 5, 3], k=4)
    every = policy.items @ policy.encode([3, 5, 3])
    every[[3, 5]] = -np.inf
    assert items.tolist() == np.argsort(-every, kind="stable")[:4].tolist()
    assert scores.tolist() == pytest.approx(every[items].tolist(), abs=1e-6)
    assert set(policy.recommend([3], k=9, among=[9, 3, 7, 7])[0].tolist()) == {7, 9}
    assert policy.encode([1] * 9).tolist() == policy.encode([1] * 5).tolist(), "the five most recent are read"
    assert len(policy.recommend([], k=3)[0]) == 3
    with pytest.raises(UserError, match="k is 0"):
        policy.recommend([3], k=0)
    again = byway.train_item_policy(*made(), vectors(), epochs=1, dim=8, history=5)
    np.testing.assert_array_equal(policy.items, again.items)
    with pytest.raises(UserError, match=f"numbers are from 0 to {ITEMS - 1}"):
        policy.recommend([ITEMS])


LOG, ONES = made(), np.ones(ITEMS)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: byway.cut_tree(vectors()[0], ONES), "one row of numbers an item"),
        (lambda: byway.cut_tree(vectors(), ONES[1:]), r"traffic has the shape \(199,\)"),
        (lambda: byway.cut_tree(vectors(), -ONES), "negative or not finite"),
        (lambda: byway.cut_tree(vectors() * 0, ONES), "200 rows of zeros"),
        (lambda: byway.cut_tree(vectors() * np.nan, ONES), "vectors holds a number that is not finite"),
        (lambda: byway.cut_tree(vectors(), ONES, levels=(2, 3)), "four numbers that grow"),
        (lambda: byway.cut_tree(vectors(), ONES, leaves=3), "no setting 'leaves'; there are items_per_cluster"),
        (lambda: byway.cut_tree(vectors(), ONES, items_per_cluster="many"), "not of its kind"),
        (lambda: byway.find_transitions(*LOG, ONES), "cluster_of is float64"),
        (lambda: byway.find_transitions(*LOG, np.arange(5)), "item goes from 0 to 199; numbers are from 0 to 4"),
        (lambda: byway.find_transitions(*LOG[:3], LOG[3] * 5, np.arange(ITEMS)), r"outside \[0, 1\]"),
        (lambda: byway.find_transitions(*LOG[:3], LOG[3][1:], np.arange(ITEMS)), "satisfaction has the shape"),
        (lambda: byway.find_transitions(*LOG[:2], LOG[2] / 2, LOG[3], np.arange(ITEMS)), "time is float64"),
        (lambda: byway.find_transitions(LOG[0] - 1, *LOG[1:], np.arange(ITEMS)), "user goes from -1"),
        (lambda: byway.find_transitions(*LOG, np.arange(ITEMS), history=0), "history is 0"),
        (lambda: byway.find_transitions(*LOG, np.arange(ITEMS), history=1.5), r"history is 1\.5; give a whole"),
        (lambda: byway.find_transitions([1, [2]], *LOG[1:], np.arange(ITEMS)), "user is no array"),
        (lambda: byway.find_transitions(*LOG[:2], [1, [2]], LOG[3], np.arange(ITEMS)), "time is no array"),
        (lambda: byway.cut_tree(vectors(), ONES, rng=-1), "rng is -1; give a seed"),
        (lambda: byway.cut_tree(vectors(), ONES, rng=0.5), r"rng is 0\.5; give a seed"),
        (lambda: byway.cut_tree(vectors(), ONES, levels=4), r"got `int` - at `\$\.levels`"),
        (lambda: byway.cut_tree([["a", "b"]], [1]), "vectors is no array of numbers"),
        (lambda: byway.cut_tree([[1, 2], [3]], [1, 1]), "vectors is no array of numbers"),
        (lambda: byway.cut_tree(vectors(), ["much"] * ITEMS), "traffic is no array of numbers"),
        (lambda: byway.find_transitions(*LOG[:3], ["good"] * len(LOG[0]), np.arange(ITEMS)), "satisfaction is no"),
        (lambda: byway.find_transitions(*LOG, np.arange(ITEMS), positive=4), "positive is 4"),
        (lambda: byway.find_transitions(*LOG, np.arange(ITEMS), positive=float("nan")), "positive is nan"),
        (lambda: byway.rank_successors(byway.count_successors([[0, 1]], [2], 3), [[0, 1]], k=0), "k is 0"),
        (lambda: byway.count_successors([1, 2], [3], 5), "a row of clusters each"),
        (lambda: byway.count_successors([[1, 2]], [3, 3], 5), "1 rows and label 2"),
        (lambda: byway.count_successors([[1, 2]], [5], 5), "label goes from 5 to 5"),
        (lambda: byway.count_successors([[1, 2], [3]], [3, 3], 5), "context is no array"),
        (lambda: byway.count_successors([[0, 1]], [2], -1), "clusters is -1"),
        (lambda: byway.rank_successors(byway.count_successors([[0, 1]], [2], 3), [[0, 1]], k=2.5), "k is 2.5"),
        (lambda: byway.train_item_policy(*LOG, vectors(), positive=float("nan")), "positive is nan"),
        (lambda: byway.train_item_policy(*LOG, vectors(), rng=-3), "rng is -3"),
        (lambda: byway.train_item_policy(*LOG, vectors(), dim=9), "make it a multiple of 2"),
        (lambda: byway.train_item_policy(*(x[:1] for x in LOG), vectors()), "No user has two events"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence(ask: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        ask()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [0, -1, 5])
def test_a_level_or_cluster_that_the_tree_has_not(level: int) -> None:
    cut = byway.cut_tree(vectors(), ONES, levels=(2, 8, 16, 24))
    for ask in (cut.size, cut.assign, cut.parent, lambda at: cut.items(at, 0)):
        with pytest.raises(UserError, match="the tree has levels 1 to 4"):
            ask(level)
    with pytest.raises(UserError, match="the tree has levels 1 to 4"):
        cut.parent(1)
    for cluster in (-1, 8):
        with pytest.raises(UserError, match=f"cluster is {cluster}; level 2 has 8, from 0"):
            cut.items(2, cluster)


def test_a_context_of_another_length_than_was_counted() -> None:
    counted = byway.count_successors([[0, 1]], [2], 3)
    with pytest.raises(UserError, match="3 columns; what was counted has 2"):
        byway.rank_successors(counted, [[0, 1, 1]])


def test_a_ranking_has_as_many_places_as_are_asked_for() -> None:
    clusters, chance = byway.rank_successors(byway.count_successors([[0, 1]], [2], 4), [[0, 1], [3, 3]], k=6)
    assert clusters.tolist() == [[2, 3, -1, -1, -1, -1], [2, 0, 1, -1, -1, -1]]
    assert (chance[clusters < 0] == 0).all()
    assert chance.shape == (2, 6)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_how_long_vectors_are_does_not_matter(size: float) -> None:
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    one, other = (byway.cut_tree(rows, ONES, levels=(2, 8, 16, 24)) for rows in (unit, unit * size))
    assert one.order.tolist() == other.order.tolist()


def test_a_log_without_events_has_no_transitions() -> None:
    found = byway.find_transitions([], [], [], [], [0, 1])
    assert (found.context.shape, len(found.label)) == ((0, 2), 0)
