"""The bandits against what they are said to be, over days and trainings."""

import numpy as np

from byway.base import config
from byway.simulation import neural
from byway.simulation.neural_linear import NeuralLinear
from byway.simulation.planned import Planned
from byway.simulation.source import Known, Logged

RNG = np.random.default_rng(0)
N, M = 24, 6
KNOWN = Known(
    (RNG.normal(size=(N, 5)) / np.sqrt(5)).astype(np.float32), np.arange(N) % M, np.array([0, 0, 0, 1, 1, 1])
)
SETTINGS = config.ItemPolicy(dim=8, batch=256, history=6, negatives=0)


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
    encoder = neural.encoded("restricted", KNOWN, parts, SETTINGS, 1, 0, every=3)
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
