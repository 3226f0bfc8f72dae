"""What is held out is the last part, as large as asked for, whatever the clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.data import heldout


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.floats(0, 0.9), st.integers(1, 30))
def test_the_latest_are_as_many_as_the_share_whatever_the_ties(days: list[int], share: float, users: int) -> None:
    time = np.array(days, np.int64)
    user = (np.arange(len(time)) % users).astype(np.int32)
    late = heldout.latest(time, user, share)
    assert abs(late.sum() - share * len(time)) <= 1
    if late.any() and not late.all():
        assert time[late].min() >= time[~late].max()
    # Of one user at one instant it is the last ones.
    for who in range(users):
        for day in range(4):
            there = late[(user == who) & (time == day)]
            assert (np.diff(there.astype(int)) >= 0).all()


@pytest.mark.parametrize("days", [1, 2, 4])
def test_a_clock_of_few_days_leaves_no_part_empty(days: int) -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 5).astype(np.int32)
    time = np.sort(rng.integers(0, days, (40, 5)), axis=1).ravel().astype(np.int64)
    part = heldout.split(time, np.ones(200), user, True, 0.2, 0.1)
    assert np.bincount(part).tolist() == [144, 16, 40]
    assert (heldout.split_instants(time, part) == np.isin(time, time[part == 2].min())).any()
    for early, late in ((0, 1), (1, 2)):
        assert time[part == early].max() <= time[part == late].min()
    np.testing.assert_array_equal(part, heldout.split(time, np.ones(200), user, True, 0.2, 0.1))
