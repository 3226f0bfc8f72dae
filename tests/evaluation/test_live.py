"""The statistics of a live experiment, beside a bootstrap, planted effects and brute force."""

import numpy as np
import pytest

from byway.base import metrics
from byway.evaluation import lift, live


def gammas(rng: np.random.Generator, users: int, mean: float) -> np.ndarray:
    return rng.gamma(2.0, mean / 2, users)


def test_the_interval_is_that_of_a_bootstrap_over_users() -> None:
    rng = np.random.default_rng(0)
    n = 400
    shown = rng.poisson(20, 2 * n) + 1.0
    liked = rng.binomial(shown.astype(int), np.where(np.arange(2 * n) < n, 0.3, 0.36)).astype(float)
    arm = np.arange(2 * n) >= n
    ours = lift.lift(lift.ratio(liked[arm], shown[arm]), lift.ratio(liked[~arm], shown[~arm]))
    sums = [(np.where(a, liked, 0), np.where(a, shown, 0)) for a in (arm, ~arm)]
    theirs = metrics.lift(*sums, metrics.bootstrap_weights(2 * n, 4000, rng))
    assert ours.mean == pytest.approx(theirs.mean)
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.1 * width
    assert abs(ours.high - theirs.high) < 0.1 * width


def test_looking_every_day_does_not_call_what_is_not_there() -> None:
    rng = np.random.default_rng(1)
    once = always = 0
    for _ in range(200):
        base = rng.gamma(2, 1, (2, 300, 1))
        seen = rng.poisson(base, (2, 300, 20)).cumsum(2).astype(float)
        # People come one after the other: the first tenth on the first day.
        here = [300 * (d + 1) // 20 for d in range(20)]
        looks = [
            lift.lift(*(lift.ratio(seen[a, :n, d], np.full(n, d + 1.0)) for a in (0, 1)), effect=0.1)
            for d, n in enumerate(here)
        ]
        once += any(not each.low <= 0 <= each.high for each in looks)
        always += any(each.away_from(0) for each in looks)
    assert once > 0.12 * 200
    assert always <= 0.05 * 200


def test_an_effect_is_called_in_the_end_at_every_look_too() -> None:
    rng = np.random.default_rng(2)
    arms = [gammas(rng, 20_000, mean) for mean in (1.1, 1.0)]
    found = lift.lift(*(lift.ratio(each, np.ones(len(each))) for each in arms))
    assert found.away_from(0)
    assert found.always_low < found.low < 0.1 < found.high < found.always_high


def test_as_many_users_as_power_says_find_the_lift_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    pilot = [lift.ratio(gammas(rng, 2000, 1.0), np.ones(2000)) for _ in range(2)]
    users = lift.users_for(lift.lift(*pilot).error, 4000, 0.1)
    hits = 0
    for _ in range(300):
        one, other = (lift.ratio(gammas(rng, users // 2, m), np.ones(users // 2)) for m in (1.1, 1.0))
        hits += lift.lift(one, other).low > 0
    assert 0.72 < hits / 300 < 0.88


def test_what_cannot_be_measured_is_no_number() -> None:
    assert np.isnan(lift.lift(lift.ratio([0.0, 0.0], [1.0, 1.0]), lift.ratio([1.0, 1.0], [1.0, 1.0])).mean)
    assert np.isnan(lift.ratio([], []).value)


def test_what_is_unknown_to_one_user_is_no_meeting_of_another() -> None:
    # User 1 watches something of an unknown cluster on day 0; user 0 meets the last cluster for the first time.
    user, cluster, day = np.array([1, 0]), np.array([-1, 3]), np.array([0, 1])
    none = np.zeros(0, np.int64)
    assert live.novelty(user, cluster, day, np.ones(2, np.bool_), (none, none)).tolist() == [False, True]


def test_novelty_is_what_was_never_met_before_the_day() -> None:
    rng = np.random.default_rng(4)
    n = 500
    user, cluster, day = rng.integers(5, size=n), rng.integers(-1, 12, n), np.sort(rng.integers(10, size=n))
    met = rng.random(n) < 0.4
    before = rng.integers(5, size=6), rng.integers(12, size=6)
    earlier = set(zip(*(x.tolist() for x in before), strict=True))
    wanted = [
        cluster[i] >= 0
        and (user[i], cluster[i]) not in earlier
        and not any(met[j] and (user[j], cluster[j]) == (user[i], cluster[i]) and day[j] < day[i] for j in range(n))
        for i in range(n)
    ]
    assert live.novelty(user, cluster, day, met, before).tolist() == wanted
