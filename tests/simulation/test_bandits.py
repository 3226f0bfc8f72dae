"""The bandits against what they are said to be, over days and trainings."""

from dataclasses import replace

import numpy as np
import pytest

from byway.base import config
from byway.simulation import neural
from byway.simulation.hierarchical import HierarchicalBandit
from byway.simulation.neural_linear import NeuralLinear
from byway.simulation.planned import Planned
from byway.simulation.source import NONE, Asked, Known, Logged

RNG = np.random.default_rng(0)
N, M = 24, 6
KNOWN = Known(
    (RNG.normal(size=(N, 5)) / np.sqrt(5)).astype(np.float32), np.arange(N) % M, (np.array([0, 0, 0, 1, 1, 1]),)
)
SETTINGS = config.ItemPolicy(dim=8, history=6)


def until(log: Logged, day: int) -> Logged:
    """What was logged before the morning of `day`."""
    rows = log.day < day
    return Logged(log.user[rows], log.item[rows], log.satisfaction[rows], log.day[rows], log.n_users)


def a_log(events: int, users: int) -> Logged:
    rng = np.random.default_rng(1)
    return Logged(
        rng.integers(users, size=events),
        rng.integers(N, size=events),
        rng.random(events).astype(np.float32),
        np.sort(rng.integers(-20, 8, size=events)),
        users,
    )


def test_the_neural_linear_bandit_stands_on_the_encoder_as_it_is_on_every_day() -> None:
    """Every morning its sums are those of a bandit made that morning from the whole log, after trainings too."""
    log = a_log(900, 150)
    parts = neural.begin("restricted", KNOWN, neural.settings_of("restricted", SETTINGS, 1), 0).eval()
    encoder = neural.encoded("restricted", KNOWN, parts, SETTINGS, 0, every=3)
    bandit = NeuralLinear(KNOWN, encoder, ridge=1e-3)
    arm = Planned(KNOWN, bandit, encoder)
    first = bandit.centre
    for day in range(8):
        arm.learn(until(log, day), day)
        fresh = NeuralLinear(KNOWN, encoder, ridge=1e-3)
        fresh.learn(until(log, day), day)
        assert bandit.n == fresh.n > 0
        np.testing.assert_array_equal(bandit.centre, fresh.centre)
        np.testing.assert_allclose(bandit.precision, fresh.precision, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(bandit.moment, fresh.moment, rtol=1e-5, atol=1e-4)
    assert encoder.trainings == 2
    assert not np.allclose(bandit.centre, first)


def nobody_special(users: int, known: Known = KNOWN) -> Asked:
    """Users of whom the question itself tells nothing."""
    nothing = np.zeros((users, 1), np.int64)
    unseen, unmet = np.zeros((users, known.n_items), bool), np.zeros((users, known.n_clusters), bool)
    return Asked(np.arange(users), nothing, nothing.astype(np.float32), nothing, 0, unseen, unmet)


DEEP = replace(KNOWN, ancestors=(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2])))
"""Two levels above the clusters, of two and three nodes."""


@pytest.mark.parametrize("known", [KNOWN, DEEP])
def test_the_hierarchical_bandit_is_one_linucb_a_user_and_level_from_the_root(known: Known) -> None:
    """Written out: the tree's own levels, features with an intercept, a descent among what has something open."""
    log, bandit = a_log(120, 5), HierarchicalBandit(known, alpha=0.7)
    bandit.learn(until(log, -5), -5)
    bandit.learn(log, 0)
    free = np.random.default_rng(3).random((5, M)) < 0.6
    free[4] = False
    chosen = bandit.choose(nobody_special(5, known), free, np.random.default_rng(0))
    levels = [*known.ancestors, np.arange(M)]
    for user in range(5):
        own, left = log.user == user, [c for c in range(M) if free[user, c]]
        for path in levels:
            held = path[known.cluster]
            nodes = np.array([[*known.vectors[held == n].mean(0), 1] for n in range(path.max() + 1)]).astype(float)
            x = nodes[held[log.item[own]]]
            inverse = np.linalg.inv(np.eye(nodes.shape[1]) + x.T @ x)
            theta = inverse @ (x.T @ log.satisfaction[own])
            bound = nodes @ theta + 0.7 * np.sqrt(np.einsum("ni,ij,nj->n", nodes, inverse, nodes))
            best = max({path[c] for c in left}, key=lambda n: bound[n], default=None)
            left = [c for c in left if path[c] == best]
        assert chosen[user] == (left[0] if left else NONE)
        assert len(left) <= 1


def test_the_hierarchical_bandit_learns_what_pleases() -> None:
    """Of all clusters one pleases: after a while the descent goes there, through every level."""
    for known in (KNOWN, DEEP):
        bandit = HierarchicalBandit(known, alpha=0.1)
        item = np.tile(np.arange(N), 40)
        good = (known.cluster[item] == 4).astype(np.float32)
        bandit.learn(Logged(np.zeros(len(item), np.int64), item, good, item * 0, 1), 0)
        found = bandit.choose(nobody_special(1, known), np.ones((1, M), bool), np.random.default_rng(0))
        assert found.tolist() == [4]
