"""Segments, the log as arms see it, pooling, and the control of chance; the whole stage is in `test_demo`."""

from pathlib import Path

import numpy as np
import pytest

from byway.data.events import DAY, Events
from byway.simulation import arms, experiment, pooling
from byway.simulation.planned import Ranking
from byway.simulation.runs import run_arm
from byway.simulation.source import NONE
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.triples import Triples, key
from tests.simulation import planted


def test_segments_are_equal_and_nobody_is_in_two_while_there_are_enough() -> None:
    dealt = experiment.deal(np.arange(100), 4, 25, np.random.default_rng(0))
    assert [len(part) for part in dealt] == [25] * 4
    assert len(np.unique(np.concatenate(dealt))) == 100


def test_twins_stand_in_other_segments_only() -> None:
    dealt = experiment.deal(np.arange(100), 7, 40, np.random.default_rng(0))
    assert [len(np.unique(part)) for part in dealt] == [40] * 7
    assert np.bincount(np.concatenate(dealt)).max() <= 4
    everybody = experiment.deal(np.arange(100), 3, 500, np.random.default_rng(0))
    assert [len(part) for part in everybody] == [100] * 3


def test_the_log_ends_on_the_day_before() -> None:
    time = np.array([0, 3 * DAY + 5, 4 * DAY - 1, DAY])
    events = Events(np.array([0, 0, 0, 1], "i4"), np.arange(4, dtype="i4"), time, np.ones(4, "f4"), True, 2, 4)
    log = experiment.logged(events)
    assert log.item.tolist() == [0, 3, 1, 2]
    assert log.day.tolist() == [-4, -3, -1, -1]


def test_without_a_clock_ten_events_are_a_day() -> None:
    user = np.repeat([0, 1], [25, 3]).astype("i4")
    events = Events(user, np.arange(28, dtype="i4"), np.arange(28), np.ones(28, "f4"), False, 2, 28)
    log = experiment.logged(events)
    assert [int((log.day[log.user == 0] == day).sum()) for day in (-3, -2, -1)] == [5, 10, 10]
    assert (log.day[log.user == 1] == -1).all()
    assert (np.diff(log.day) >= 0).all()
    for one in (0, 1):
        assert (np.diff(log.item[log.user == one]) > 0).all()


def test_the_table_of_counts_ranks_by_them_and_leaves_the_pair_out() -> None:
    context = np.array([[0, 1], [0, 1], [0, 1], [2, 3]], np.int32)
    samples = Samples(context, np.array([2, 3, 4, 0], np.int32), np.array([1, 9, 5, 3], np.int32))
    table = every_pair(arms.counted(Successors.count(samples, 5), 5, 4, None))
    assert table[0, 1, :3].tolist() == [3, 4, 2]
    for a in range(5):
        for b in range(5):
            named = table[a, b][table[a, b] != NONE]
            assert len(set(named)) == len(named) == 5 - len({a, b})
            assert not {a, b} & set(named.tolist())


def test_counts_of_three_interests_are_asked_by_the_last_of_a_pair() -> None:
    """What came last decides: 1 leads to 3, 2 leads to 4, whatever stood before."""
    context = np.array([[a, b, last] for a in range(5) for b in range(5) for last in (1, 2)], np.int32)
    label = np.where(context[:, 2] == 1, 3, 4).astype(np.int32)
    counts = Successors.count(Samples(context, label, np.full(len(label), 9, np.int32)), 5)
    table = every_pair(arms.counted(counts, 5, 4, None))
    assert [table[a, 1, 0] for a in (0, 2, 4)] == [3, 3, 3]
    assert [table[a, 2, 0] for a in (0, 1, 3)] == [4, 4, 4]


def test_counts_rank_the_triples_that_the_table_has() -> None:
    """(0, 1, 2) leads to 3, every pair with 2 last to 4; a triple that the table lacks is asked as a pair."""
    context = np.array([[0, 1, 2], [0, 0, 2], [1, 1, 2], [3, 3, 2]], np.int32)
    samples = Samples(context, np.array([3, 4, 4, 4], np.int32), np.array([900, 9, 9, 9], np.int32))
    ours = Triples(key(np.array([[0, 1, 2]]), 5), np.array([[4, 3]], np.int32))
    counts = arms.counted(Successors.count(samples, 5), 5, 4, ours)
    found = counts(np.array([[0, 1, 2], [3, 1, 2]]))
    assert found[0].tolist() == [3, 4, -1, -1]
    assert (
        found[1].tolist() == arms.counted(Successors.count(samples, 5), 5, 4, None)(np.array([[1, 2]]))[0].tolist()
    )


def every_pair(ranking: Ranking) -> np.ndarray:
    """[5, 5, n] of five clusters."""
    pairs = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    return ranking(pairs).reshape(5, 5, -1)


def test_a_run_is_taken_from_the_scratch(tmp_path: Path) -> None:
    setup = planted.setup(planted.tiny(), tmp_path)
    first = run_arm(setup, {}, "control", setup.users[:20], 5, "")
    (path,) = tmp_path.glob("run*.npz")
    before = path.stat().st_mtime_ns
    again = run_arm(setup, {}, "control", setup.users[:20], 5, "")
    assert path.stat().st_mtime_ns == before
    for name, (top, below) in first.tally.items():
        np.testing.assert_array_equal(top, again.tally[name][0])
        np.testing.assert_array_equal(below, again.tally[name][1])


def test_nobody_likes_what_the_world_does_not_hold_open(tmp_path: Path) -> None:
    """The people that a run changed are copies: a second arm meets them as they were."""
    setup = planted.setup(planted.tiny(), tmp_path)
    before = [array.copy() for array in setup.environment.hidden()]
    run_arm(setup, {}, "control", setup.users, 1, "chance")
    for was, now in zip(before, setup.environment.hidden(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_seeds_are_pooled_by_person() -> None:
    one = {"rate": (np.array([1.0, 0, 0]), np.array([2.0, 0, 0]))}
    two = {"rate": (np.array([1.0, 3, 0]), np.array([2.0, 4, 0]))}
    pooled = pooling._pooled([one, two])
    assert pooled["rate"][0].tolist() == [2, 3, 0]
    assert pooled["rate"][1].tolist() == [4, 4, 0]


@pytest.mark.parametrize(("shown", "low"), [([100, 100, 0, 0], 0.5), ([1, 1, 0, 0], 0.0)])
def test_coverage_is_as_sure_as_its_rarest_items(shown: list[int], low: float) -> None:
    class Run:
        items = np.array(shown)

    found = pooling._coverage([Run()], np.ones(4, np.bool_))
    assert found["mean"] == 0.5
    assert found["low"] == pytest.approx(low, abs=0.2)
    assert found["low"] <= 0.5 <= found["high"]
