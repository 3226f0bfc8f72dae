"""Transitions against a straightforward reference, one user and one event at a time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.data.events import Events
from byway.data.heldout import split
from byway.interests.tree import Tree
from byway.transitions import curate
from byway.transitions.curate import Samples
from byway.transitions.standing import by_users, where_users_stand

CLUSTERS = 5


def log(users: list[list[tuple[int, bool]]], clock: bool = False) -> Events:
    """A log in which item i lies in cluster i and an event is of high quality or not."""
    rows = [(u, item, t, good) for u, events in enumerate(users) for t, (item, good) in enumerate(events)]
    # No two events of a log at the same moment.
    rows = [(u, item, t * 1000 + u, good) for u, item, t, good in rows]
    user, item, time, good = (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 4
    return Events(
        user.astype(np.int32),
        item.astype(np.int32),
        time.astype(np.int64),
        good.astype(np.float32),
        clock=clock,
        n_users=len(users),
        n_items=CLUSTERS,
    )


def reference(users: list[list[tuple[int, bool]]], history: int) -> Counter[tuple[int, ...]]:
    """Every transition (context..., label), counted the slow way."""
    found: Counter[tuple[int, ...]] = Counter()
    for events in users:
        touched: set[int] = set()
        liked: list[int] = []
        for cluster, good in events:
            if good and cluster not in touched:
                recent: list[int] = []
                for c in reversed(liked):
                    if c not in recent and len(recent) < history:
                        recent.append(c)
                if recent:
                    recent += [recent[-1]] * (history - len(recent))
                    found[(*reversed(recent), cluster)] += 1
            touched.add(cluster)
            if good:
                liked.append(cluster)
    return found


USERS = st.lists(
    st.lists(st.tuples(st.integers(0, CLUSTERS - 1), st.booleans()), max_size=12), min_size=1, max_size=6
)


@given(users=USERS, history=st.integers(1, 4))
def test_finds_what_the_reference_finds(users: list[list[tuple[int, bool]]], history: int) -> None:
    if not any(users):
        return
    found = curate.find(log(users), np.arange(CLUSTERS, dtype=np.int32), CLUSTERS, history)
    rows = np.column_stack([found.context, found.label]).tolist()
    assert Counter(map(tuple, rows)) == reference(users, history)


@given(users=USERS)
def test_counting_loses_nothing(users: list[list[tuple[int, bool]]]) -> None:
    if not any(users):
        return
    found = curate.find(log(users), np.arange(CLUSTERS, dtype=np.int32), CLUSTERS, 2)
    counted = curate.count(found.context, found.label, CLUSTERS)
    rows = np.column_stack([counted.context, counted.label]).tolist()
    assert dict(zip(map(tuple, rows), counted.count.tolist(), strict=True)) == reference(users, 2)


def test_the_same_cluster_twice_in_a_row_counts_once() -> None:
    found = curate.find(
        log([[(0, True), (1, True), (1, True), (0, True), (2, True)]]), np.arange(5, dtype=np.int32), 5, 2
    )
    assert found.context[-1].tolist() == [1, 0]
    assert found.label[-1] == 2


def test_a_cluster_touched_without_liking_is_not_new_any_more() -> None:
    found = curate.find(log([[(0, True), (1, True), (2, False), (2, True)]]), np.arange(5, dtype=np.int32), 5, 2)
    assert found.label.tolist() == [1]


@pytest.mark.parametrize("clock", [True, False])
def test_what_is_held_out_is_later(clock: bool) -> None:
    rng = np.random.default_rng(0)
    users = [[(int(c), True) for c in rng.permutation(CLUSTERS)] for _ in range(200)]
    events = log(users, clock)
    found = curate.find(events, np.arange(CLUSTERS, dtype=np.int32), CLUSTERS, 2)
    part = split(found.time, found.progress, found.user, clock, heldout=0.3, validation=0.2)
    when = found.time if clock else found.progress
    assert set(part.tolist()) == {0, 1, 2}
    assert when[part == 0].max() <= when[part == 1].min() <= when[part == 1].max() <= when[part == 2].min()


def test_diversified_gives_every_label_the_same_number() -> None:
    rng = np.random.default_rng(0)
    context = rng.integers(0, 4, (300, 2)).astype(np.int32)
    label = np.where(rng.random(300) < 0.9, 4, rng.integers(0, 4, 300)).astype(np.int32)
    samples = curate.count(context, label, CLUSTERS)
    chosen = curate.diversified(samples, 3, CLUSTERS, rng)
    assert np.bincount(chosen.label, minlength=CLUSTERS).tolist() == [3] * CLUSTERS
    for c in range(CLUSTERS):
        own = samples.count[samples.label == c]
        kept = chosen.context[chosen.label == c]
        counts = [
            int(samples.count[(samples.label == c) & (samples.context == pair).all(axis=1)][0]) for pair in kept
        ]
        assert sorted(counts, reverse=True) == sorted(own.tolist(), reverse=True)[:3]


def test_a_rare_label_repeats_its_own_pairs_and_an_absent_one_stays_absent() -> None:
    samples = Samples(
        np.array([[0, 1], [1, 0], [0, 2]], np.int32), np.array([2, 2, 3], np.int32), np.array([5, 1, 1], np.int32)
    )
    chosen = curate.diversified(samples, 3, CLUSTERS, np.random.default_rng(0))
    assert np.bincount(chosen.label, minlength=CLUSTERS).tolist() == [0, 0, 3, 3, 0]
    assert chosen.context[chosen.label == 2].tolist() == [[0, 1], [0, 1], [1, 0]]


def test_random_curation_draws_by_frequency() -> None:
    samples = Samples(
        np.array([[0, 1], [1, 0]], np.int32), np.array([2, 3], np.int32), np.array([900, 100], np.int32)
    )
    drawn = curate.sampled(samples, 500, np.random.default_rng(0))
    assert 0.86 < (drawn.label == 2).mean() < 0.94


def build(folder: Path, users: list[list[tuple[int, bool]]], level: int = 2, **settings: float) -> Outcome:
    whole = np.array([0, CLUSTERS], dtype=np.int64)
    starts = np.arange(CLUSTERS + 1, dtype=np.int64)
    tree = Tree(np.arange(CLUSTERS, dtype=np.int32), (whole, starts, starts, starts))
    own = config.Transitions(level=level, **settings)  # pyright: ignore[reportArgumentType]
    return curate.build(Work(folder, folder, np.random.default_rng(0)), own, log(users, True), tree)


def test_what_is_too_little_to_learn_from_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three people who turn once or twice each: none of it falls to the validation."""
    monkeypatch.setattr(curate, "HELDOUT", 0.5)
    users = [[(0, True), (1, True), (2 + u, True)] for u in range(3)]
    with pytest.raises(UserError, match=r"6 turns .* none for the validation: too few"):
        build(tmp_path, users)
    monkeypatch.undo()
    with pytest.raises(UserError, match="samples and the validation and the heldout: nobody has two events"):
        build(tmp_path, [[(0, True)], [(1, True)]])
    with pytest.raises(UserError, match="is of one user"):
        build(tmp_path, [[(0, True), (1, True)]])


def test_people_who_met_everything_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = [[(int(c), True) for c in np.random.default_rng(u).permutation(CLUSTERS)] for u in range(30)]
    for some, said in ((users, "100% of the people have met all"), ([users[0], *(u[:-1] for u in users)], "")):
        found = build(tmp_path, some).metrics["transitions.exhausted"]
        assert found == pytest.approx(1 if said else 1 / 31, abs=1e-4)
        told = capsys.readouterr()
        assert said in " ".join((told.out + told.err).split())
        assert ("lower tree.items_per_cluster" in told.out + told.err) == bool(said)


def test_a_level_with_as_many_clusters_as_interests_is_refused(tmp_path: Path) -> None:
    users = [[(int(c), True) for c in np.random.default_rng(u).permutation(CLUSTERS)] for u in range(30)]
    with pytest.raises(UserError, match="Level 1 of the tree has 1 clusters, and a prompt holds 2"):
        build(tmp_path, users, level=1)
    build(tmp_path, users)


@pytest.mark.parametrize("curation", ["log", "diversified", "random"])
def test_the_artifact_reads_back_and_repeats(tmp_path: Path, curation: str) -> None:
    rng = np.random.default_rng(1)
    users = [[(int(c), rng.random() < 0.8) for c in rng.integers(0, CLUSTERS, 8)] for _ in range(50)]
    starts = np.arange(CLUSTERS + 1, dtype=np.int64)
    tree = Tree(np.arange(CLUSTERS, dtype=np.int32), (starts, starts, starts, starts))
    settings = config.Transitions(curation=curation)  # pyright: ignore[reportArgumentType]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        work = Work(tmp_path / name, tmp_path, np.random.default_rng(7))
        outcome = curate.build(work, settings, log(users), tree)
    read = curate.load(tmp_path / "a")
    assert read.clusters == CLUSTERS
    assert read.level == 2
    assert int(read.train.count.sum()) == outcome.counts["train"]
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@given(users=USERS, chunk=st.integers(1, 20), history=st.integers(1, 3))
def test_a_log_in_parts_is_the_whole_log(users: list[list[tuple[int, bool]]], chunk: int, history: int) -> None:
    if not any(users):
        return
    itself = np.arange(CLUSTERS, dtype=np.int32)
    whole, parts = (curate.find(log(users), itself, CLUSTERS, history, size) for size in (10**9, chunk))
    for name in ("context", "label", "time", "progress", "short", "not_new"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert [len(set(part.user.tolist())) for part in by_users(log(users), 1)] == [1] * sum(map(bool, users))


@given(users=USERS, cuts=st.lists(st.integers(0, 12), min_size=6, max_size=6), history=st.integers(1, 3))
def test_new_events_extend_the_counts_as_the_whole_log_would_have_them(
    users: list[list[tuple[int, bool]]], cuts: list[int], history: int
) -> None:
    """The first user of the second log may be new: users without old events are numbered last."""
    users.sort(key=lambda events: not events[: cuts[0]])
    old = [events[: cuts[0]] for events in users]
    known = sum(map(bool, old))
    itself = np.arange(CLUSTERS, dtype=np.int32)
    if not known:
        return
    before = log(old[:known])
    standing = where_users_stand(before, itself, CLUSTERS, history, chunk=3)
    total = reference(old, history)
    # In two steps, so that a state that was extended is extended again.
    done = list(old)
    for cut in (cuts[0] + cuts[1], 99):
        new = [events[len(past) : cut] for events, past in zip(users, done, strict=True)]
        done = [past + more for past, more in zip(done, new, strict=True)]
        if any(new):
            counted, standing = curate.extend(standing, log(new), itself, CLUSTERS)
            rows = np.column_stack([counted.context, counted.label]).tolist()
            total.update(dict(zip(map(tuple, rows), counted.count.tolist(), strict=True)))
    assert total == reference(users, history)
    if any(users):
        whole = where_users_stand(log(users), itself, CLUSTERS, history)
        n = len(standing.starts) - 1
        np.testing.assert_array_equal(standing.starts, whole.starts[: n + 1])
        np.testing.assert_array_equal(standing.touched, whole.touched[: whole.starts[n]])
        np.testing.assert_array_equal(standing.recent, whole.recent[:n])
