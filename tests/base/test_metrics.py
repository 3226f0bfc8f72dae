"""Intervals against what statistics says of them; the formulas have doctests worked by hand."""

import numpy as np
import pytest

from byway.base import metrics


def test_the_interval_of_a_share_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(2000) < 0.3).astype(float)
    found = metrics.ratio(hits, np.ones(2000), metrics.bootstrap_weights(2000, 800, rng))
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
        found = metrics.ratio(liked, shown, metrics.bootstrap_weights(150, 200, rng))
        held += not found.away_from(0.4)
    assert 0.88 <= held / 200 <= 0.99


def test_an_arm_has_no_lift_over_itself_and_twins_do_not_make_it_surer() -> None:
    rng = np.random.default_rng(2)
    liked, shown = rng.random(300), np.ones(300)
    drawn = metrics.bootstrap_weights(300, 100, rng)
    same = metrics.lift((liked, shown), (liked, shown), drawn)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    # Counting every person twice, as twins, leaves the interval as it was: people are drawn, not accounts.
    once, twice = metrics.ratio(liked, shown, drawn), metrics.ratio(2 * liked, 2 * shown, drawn)
    assert (once.low, once.high) == (twice.low, twice.high)


def test_what_never_happened_is_not_a_number() -> None:
    nothing = metrics.ratio(np.zeros(3), np.zeros(3), np.ones((5, 3)))
    assert np.isnan(nothing.mean)
    assert np.isnan(metrics.lift(([1.0], [1.0]), ([0.0], [1.0]), np.ones((5, 1))).mean)


@pytest.mark.parametrize(("of_person", "of_deal"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.15)])
def test_intervals_over_deals_hold(of_person: float, of_deal: float) -> None:
    """Five deals of the same people: near 95% with an effect of the deal or none; people alone miss it."""
    rng = np.random.default_rng(0)
    people, deals, noise, times, trials = 80, 5, 1.0, 400, 250
    ones, held, alone = np.ones((deals, people)), 0, 0
    for _ in range(trials):
        top = 2 + rng.normal(0, noise, (deals, people)) + of_deal * rng.normal(size=(deals, 1))
        top += of_person * rng.normal(size=people)
        draws = metrics.bootstrap_weights(people, times, rng), metrics.replication_weights(deals, times, rng)
        own, fixed = (metrics.bootstrap_ratios(each[None], ones, *draws)[0] for each in (top, ones))
        held += not own.over(fixed).away_from(1)
        alone += not metrics.lift((top.sum(0), ones.sum(0)), (ones.sum(0), ones.sum(0)), draws[0]).away_from(1)
    assert 0.92 <= held / trials <= 0.985
    assert (alone / trials < 0.8) == bool(of_deal)


def test_a_single_deal_is_people_alone() -> None:
    rng = np.random.default_rng(0)
    top, below = rng.random(50), np.ones(50)
    draws = metrics.bootstrap_weights(50, 300, rng), metrics.replication_weights(1, 300, rng)
    (of_deals,) = metrics.bootstrap_ratios(top[None], below[None], *draws)
    assert of_deals.interval() == metrics.ratio(top, below, draws[0])


def test_deals_are_drawn_without_bias() -> None:
    """Rao and Wu: the mean's variance over draws is the unbiased one, s² / S, and no (S - 1) / S of it."""
    values = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
    weights = metrics.replication_weights(5, 200_000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(1), 5)
    assert (weights @ values / 5).var() == pytest.approx(values.var(ddof=1) / 5, rel=0.02)


def test_shared_people_make_lifts_sure() -> None:
    """People differ tenfold in what they watch, and an arm adds 10% to each: a known lift, held at near 95%.

    The arms' draws of the same person move together; the same sums with the second arm's people in another order
    (other people, as segments have) are far less sure.
    """
    rng = np.random.default_rng(0)
    people, times, trials, held = 100, 400, 300, 0
    widths = np.zeros((trials, 2))
    for trial in range(trials):
        love = rng.uniform(5, 50, people)
        one, other = rng.poisson(1.1 * love), rng.poisson(love)
        below, draws = np.ones(people), metrics.bootstrap_weights(people, times, rng)
        paired = metrics.lift((one, below), (other, below), draws)
        strangers = metrics.lift((one, below), (rng.permutation(other), below), draws)
        held += not paired.away_from(0.1)
        widths[trial] = [each.high - each.low for each in (paired, strangers)]
    assert 0.92 <= held / trials <= 0.98
    assert widths[:, 1].mean() > 2.5 * widths[:, 0].mean()


def test_the_paired_interval_is_the_bootstraps_by_hand() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.poisson(6, 40).astype(float), rng.poisson(5, 40).astype(float)
    draws = metrics.bootstrap_weights(40, 500, np.random.default_rng(2))
    found = metrics.lift((one, np.ones(40)), (other, np.ones(40)), draws)
    by_hand: list[float] = []
    for counts in draws.astype(int):
        who = np.repeat(np.arange(40), counts)
        by_hand.append(one[who].mean() / other[who].mean() - 1)
    assert [found.low, found.high] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]).tolist())
