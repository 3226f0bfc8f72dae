"""The people after the log against the log's own end, and the placebo of chance."""

import numpy as np
import pytest

from byway.base.errors import UserError
from byway.simulation import simulated
from tests.simulation import planted


def test_people_wake_up_as_the_log_left_them() -> None:
    tiny = planted.tiny()
    people = tiny.people()
    at = [tiny.world.user_ids.index(name) for name in tiny.user_ids]
    np.testing.assert_array_equal(people.state.known, tiny.log.end.known[at])
    # A visit that runs past midnight is slept on once more or less; hardly anybody's is.
    np.testing.assert_allclose(people.state.load, tiny.log.end.load[at], atol=0.5)
    assert np.abs(people.state.load - tiny.log.end.load[at]).mean() < 1e-3
    assert np.abs(people.state.weariness - tiny.log.end.weariness[at]).mean() < 0.01


def test_users_are_themselves_in_whatever_order() -> None:
    tiny = planted.tiny()
    people = tiny.people()
    for i, name in enumerate(tiny.user_ids[:10]):
        at = tiny.world.user_ids.index(name)
        np.testing.assert_array_equal(people.world.users.affinity[i], tiny.world.users.affinity[at])


def test_by_chance_as_much_is_liked_but_only_what_was_never_met_moves() -> None:
    people = planted.tiny().people()
    before = people.world.users.affinity.copy()
    met = people.met | people.start
    simulated.liked_by_chance(people, np.random.default_rng(0))
    after = people.world.users.affinity
    np.testing.assert_array_equal(before[met], after[met])
    np.testing.assert_array_equal(np.sort(before, 1), np.sort(after, 1))
    assert (before != after)[~met].mean() > 0.9


def test_an_interest_is_found_when_known_and_kept_when_enjoyed_again() -> None:
    people = planted.tiny().people()
    rng = np.random.default_rng(0)
    user = int(np.flatnonzero(people.wanted.any(1))[0])
    topic = int(np.flatnonzero(people.wanted[user])[0])
    people.world.users.affinity[user, topic] = 1.0
    people.state.weariness[user] = 0
    items = np.flatnonzero(people.world.items.topic == topic)
    who = np.array([user])
    for item in np.resize(items, 60):
        if people.enjoyed[user, topic] < 1:
            people.watch(who, np.array([item]), rng)
    wanted, found, kept = people.found(who, 30)
    assert wanted[0] == people.wanted[user].sum()
    assert (found[0], kept[0]) == (1, 0)
    people.enjoyed[user, topic] = 2
    assert people.found(who, 30)[2][0] == 1
    people.day = 50
    assert people.found(who, 30)[2][0] == 0


def test_another_worlds_tables_are_named() -> None:
    tiny = planted.tiny()
    with pytest.raises(UserError, match="of another world"):
        simulated.of(tiny.world, ["strange", *tiny.world.items.ids[1:]], tiny.user_ids, tiny.events)


def test_who_searches_finds_what_is_not_known_yet_and_unseen() -> None:
    people = planted.tiny().people()
    user = np.arange(40).repeat(1)
    rng = np.random.default_rng(0)
    seen = rng.random((40, len(people.world.items))) < 0.5
    found = np.stack([people.discover(user, seen, rng) for _ in range(30)])
    share = (found >= 0).mean()
    settings = people.world.settings
    assert share == pytest.approx(settings.from_search + settings.from_friends, abs=0.05)
    turn, row = np.nonzero(found >= 0)
    assert not seen[row, found[turn, row]].any()
