"""Drift of successors and of traffic, told from what a sample alone would give."""

import numpy as np

from byway.evaluation import drift


def test_successors_that_change_are_told_from_a_small_sample() -> None:
    rng = np.random.default_rng(0)
    before = rng.dirichlet(np.full(30, 0.2), 30) * 5000
    same = np.array([rng.multinomial(300, row / row.sum()) for row in before])
    other = same[:, rng.permutation(30)]
    stable, usual = drift.successor_overlap(before, same, rng)
    changed, _ = drift.successor_overlap(before, other, rng)
    assert abs(stable.mean() - usual.mean()) < 0.1
    assert changed.mean() < 0.5 * usual.mean()
    thin = np.zeros((30, 30))
    thin[0, 1] = drift.FEWEST - 1
    assert np.isnan(drift.successor_overlap(before, thin, rng)[0]).all()
    assert drift.mean_over(drift.successor_overlap(before, thin, rng)[0]) is None


def test_traffic_that_moves_is_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(100, 1000, 50).astype(np.float64)
    same = rng.multinomial(2000, before / before.sum()).astype(np.float64)
    chance = drift.expected_shift(before, 2000, rng)
    assert abs(drift.shift(before, same) - chance) < 0.02
    assert drift.shift(before, np.roll(same, 7)) > 3 * chance
    assert drift.shift(before, np.zeros(50)) == 0.0
