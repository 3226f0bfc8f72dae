"""Segments, the log as arms see it, pooling, and the control of chance; the whole stage is in `test_demo`."""

import copy
from pathlib import Path

import numpy as np
import pytest

from byway.data.events import DAY, Events
from byway.simulation import arms, experiment, pooling, runs
from byway.simulation.planned import Planned, RandomCluster, Ranking
from byway.simulation.platform import Impressions
from byway.simulation.runs import run_arm
from byway.simulation.source import NONE, Asked, Floats, Ints, Logged, Source
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


def test_deals_stand_beside_each_other_person_by_person() -> None:
    one = {"rate": (np.array([1.0, 0, 0]), np.array([2.0, 0, 0]))}
    two = {"rate": (np.array([1.0, 3, 0]), np.array([2.0, 4, 0])), "late": (np.ones(3), np.ones(3))}
    found = pooling.stacked([one, two])
    assert found["rate"][0].tolist() == [[1, 0, 0], [1, 3, 0]]
    assert found["rate"][1].tolist() == [[2, 0, 0], [2, 4, 0]]
    assert found["late"][0].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("design", ["paired", "segments"])
def test_who_lives_with_whom(tmp_path: Path, design: str) -> None:
    """Paired: the same accounts, and two arms that add nothing live the same days. Segments: others."""
    setup = planted.setup(planted.tiny(), tmp_path, design=design)
    one, other = experiment.dealt_to(setup.settings, setup.users, 2, np.random.default_rng(0))
    assert (set(one) == set(other)) == (design == "paired")
    assert design == "paired" or not set(one) & set(other)
    run_arm(setup, {}, "control", one, 5, "")
    run_arm(setup, {}, "control_again", one, 5, "")
    control, again = (np.load(tmp_path / f"run-{design}-{name}-5.npz") for name in ("control", "control_again"))
    assert not np.array_equal(control["item"][:40], again["item"][:40])


def test_another_design_takes_no_run_of_the_first(tmp_path: Path) -> None:
    for design in ("paired", "segments"):
        setup = planted.setup(planted.tiny(), tmp_path, design=design)
        run_arm(setup, {}, "control", setup.users[:20], 5, "")
    assert len(list(tmp_path.glob("run*.npz"))) == 2


def test_arms_share_their_luck(tmp_path: Path) -> None:
    """Before the arms' days part, visits and places are the same; an arm that names nothing is the control."""
    setup = planted.setup(planted.tiny(), tmp_path)
    control = run_arm(setup, {}, "control", setup.users, 5, "")
    with np.load(tmp_path / "run-paired-control-5.npz") as saved:
        first = {name: saved[name][saved["day"] == 0] for name in ("user", "item", "satisfaction")}
    silent = live_with(setup, Silent())
    same = silent.day == 0
    np.testing.assert_array_equal(silent.user[same], first["user"])
    np.testing.assert_array_equal(silent.item[same], first["item"])
    np.testing.assert_array_equal(silent.satisfaction[same], first["satisfaction"])
    assert silent.seconds.sum() == control.daily["watch"].sum()
    busy = live_with(setup, Planned(setup.context.known, RandomCluster(), Flat(setup.context.known.n_items)))
    assert not np.array_equal(busy.item[busy.day == 0], first["item"])
    # Who comes today does not hang on what is shown today.
    assert set(busy.user[busy.day == 0]) == set(first["user"])


class Silent:
    """A source that names nothing."""

    def learn(self, log: Logged, today: int) -> None: ...

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        return np.full((len(asked), k), NONE)


class Flat:
    """All items are worth the same."""

    def __init__(self, items: int):
        self.items = items

    def learn(self, log: Logged, today: int) -> None: ...

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        return np.zeros((len(asked), self.items), np.float32)


def live_with(setup: runs.Setup, source: Source) -> Impressions:
    """The deal 5 of `run_arm` with this source."""
    people = copy.deepcopy(setup.environment)
    known, log, days, share = setup.context.known, setup.context.log, setup.settings.days, setup.settings.share
    return runs.live(
        people, known, log, setup.missing, source, setup.users,
        settings=runs.LiveSettings(days, share, runs.CANDIDATES, runs.BLUR), rng=np.random.default_rng(9),
        chance=runs.Chance((5, 0)),
    )  # fmt: skip


def test_days_are_lifts_of_their_own(tmp_path: Path) -> None:
    """Figure 5: what was watched on a day beside what the control's accounts watched on that day."""
    setup = planted.setup(planted.tiny(), tmp_path)
    lived = [run_arm(setup, {}, name, setup.users, 5, "") for name in ("control", "control_again")]
    found = pooling.measure(setup, {"control": lived[:1], "other": lived[1:]}, np.random.default_rng(0))
    for day in range(setup.settings.days):
        ours, theirs = (run.daily["watch"][day].sum() for run in reversed(lived))
        assert found["growth"]["other"]["watch"][day]["mean"] == pytest.approx(ours / theirs - 1, abs=1e-5)
    assert found["lift"]["control"]["other"]["new_clusters"]["mean"] is not None


@pytest.mark.parametrize(("shown", "low"), [([100, 100, 0, 0], 0.5), ([1, 1, 0, 0], 0.0)])
def test_coverage_is_as_sure_as_its_rarest_items(shown: list[int], low: float) -> None:
    class Run:
        items = np.array(shown)

    found = pooling._coverage([Run()], np.ones(4, np.bool_))
    assert found["mean"] == 0.5
    assert found["low"] == pytest.approx(low, abs=0.2)
    assert found["low"] <= 0.5 <= found["high"]
