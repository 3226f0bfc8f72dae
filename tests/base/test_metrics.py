"""Intervals against what statistics says of them; the formulas have doctests worked by hand."""

import numpy as np
import pytest

from byway.base import metrics


def test_the_interval_of_a_share_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(2000) < 0.3).astype(float)
    found = metrics.ratio(hits, np.ones(2000), metrics.draws(2000, 800, rng))
    error = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert found.mean == hits.mean()
    assert found.low == pytest.approx(hits.mean() - error, abs=0.2 * error)
    assert found.high == pytest.approx(hits.mean() + error, abs=0.2 * error)


def test_intervals_hold_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        shown = rng.poisson(4, 150).astype(float)
        liked = rng.binomial(shown.astype(int), 0.4).astype(float)
        found = metrics.ratio(liked, shown, metrics.draws(150, 200, rng))
        held += not found.away_from(0.4)
    assert 0.88 <= held / 200 <= 0.99


def test_an_arm_has_no_lift_over_itself_and_twins_do_not_make_it_surer() -> None:
    rng = np.random.default_rng(2)
    liked, shown = rng.random(300), np.ones(300)
    drawn = metrics.draws(300, 100, rng)
    same = metrics.lift((liked, shown), (liked, shown), drawn)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    # Counting every person twice, as twins, leaves the interval as it was: people are drawn, not accounts.
    once, twice = metrics.ratio(liked, shown, drawn), metrics.ratio(2 * liked, 2 * shown, drawn)
    assert (once.low, once.high) == (twice.low, twice.high)


def test_what_never_happened_is_not_a_number() -> None:
    nothing = metrics.ratio(np.zeros(3), np.zeros(3), np.ones((5, 3)))
    assert np.isnan(nothing.mean)
    assert np.isnan(metrics.lift(([1.0], [1.0]), ([0.0], [1.0]), np.ones((5, 1))).mean)
