"""The embedded world's people as a platform's `Environment`: who comes, what they find by themselves, how they
feel.

Reuses the world's own formulas (`people`, `world.watch`). The people are those of the log, with the tiredness and
weariness that the log left them in. This module holds the truth, and no source is ever given it.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data.events import Events
from byway.simulation import people
from byway.simulation.people import State, Users, stream
from byway.simulation.platform import Felt
from byway.simulation.source import NONE, Flags, Ints
from byway.simulation.world import DAY, START, Items, World, alike, watch, wishes


class Simulated:
    """People of the log on the morning after its last day. Users and items have the catalog's indexes."""

    def __init__(self, world: World, state: State, recent: Ints, met: Flags, blur: NDArray[np.float32]):
        settings = world.settings
        self.world, self.state, self.recent, self.met = world, state, recent, met
        self.start = self.state.known.copy()
        """[U, T] interests known when the experiment begins."""
        self.wanted = (world.users.affinity >= settings.liked) & ~self.start
        """[U, T] interests undiscovered when the experiment begins."""
        self.enjoyed = np.zeros(self.start.shape, np.int16)
        self.last = np.full(self.start.shape, -1, np.int16)
        """[U, T] how often a topic pleased since the experiment began, and on which day last."""
        self.day = 0
        self.hunch = ((world.users.affinity * blur) ** settings.hunch_power).astype(np.float32)
        self.alike = alike(world)

    def visits(self, day: int, rng: np.random.Generator) -> Ints:
        """The weary come less, and briefly (`people.visits`)."""
        self.day = day
        return people.visits(self.world.settings, self.world.users, self.state, rng)

    def discover(self, user: Ints, seen: Flags, rng: np.random.Generator) -> Ints:
        """Search and friends, as in the log's own days (docs/world.md), by the same shares and the same rule."""
        settings, topic = self.world.settings, self.world.items.topic
        found = np.full(len(user), NONE)
        # One number a user for each, whether it is needed or not: whoever is drawn for then meets the same luck
        # whatever the others do.
        way, whom, what, which = (rng.random(len(user)) for _ in range(4))
        search = way < settings.from_search
        friend = (way >= settings.from_search) & (way < settings.from_search + settings.from_friends)
        wish = np.zeros((len(user), len(self.world.topics)), np.float32)
        searching, told = user[search], user[friend]
        mood = self.alike[self.recent[searching]].mean(1)
        wish[search] = wishes(self.world, self.state, searching, self.hunch[searching], mood)
        friends = self.world.users.friends
        sender = friends[told, (whom[friend] * friends.shape[1]).astype(np.int64)]
        wish[friend] = self.hunch[told] * self.state.known[sender]
        for row in np.flatnonzero(search | friend):
            unseen = ~seen[row]
            left = np.bincount(topic[unseen], minlength=wish.shape[1]) > 0
            weight = wish[row] * left
            if weight.sum() <= 0:
                continue
            items = np.flatnonzero(unseen & (topic == _place(weight, what[row])))
            found[row] = items[_place(self.world.items.reach[items], which[row])]
        return found

    def watch(self, user: Ints, item: Ints, rng: np.random.Generator) -> Felt:
        """`world.watch`, and what became known by it."""
        topic = self.world.items.topic[item]
        unmet = ~self.met[user, topic]
        liked, seconds = watch(self.world, self.state, user, item, rng)
        pleased = liked >= self.world.settings.positive
        self.enjoyed[user[pleased], topic[pleased]] += 1
        self.last[user[pleased], topic[pleased]] = self.day
        self.met[user, topic] = True
        self.recent[user] = np.stack([self.recent[user, 1], topic], 1)
        return Felt(liked, seconds, unmet)

    def night(self) -> None:
        people.sleep(self.world.settings, self.state)

    def hidden(self) -> Sequence[NDArray[np.generic]]:
        users, items, state = self.world.users, self.world.items, self.state
        return (
            users.affinity,
            users.taste,
            users.known,
            items.quality,
            items.topic,
            state.known,
            state.load,
            state.weariness,
            self.hunch,
            self.wanted,
            self.met,
            items.look,
        )

    def found(self, user: Ints, days: int) -> tuple[Ints, Ints, Ints]:
        """[n] undiscovered interests of each user when the experiment began, those found by now, those kept.

        Found: known now. Kept: found, enjoyed more than once, and once at least in the last `days` days.
        """
        found = self.wanted[user] & self.state.known[user]
        kept = found & (self.enjoyed[user] > 1) & (self.last[user] > self.day - days)
        return self.wanted[user].sum(1), found.sum(1), kept.sum(1)


def _place(weight: NDArray[np.floating], share: float) -> int:
    """The place at which so much of the weight, from 0 to 1, lies before: a draw in proportion to it."""
    edge = np.cumsum(weight, dtype=np.float64)
    return int(np.searchsorted(edge, min(share * edge[-1], np.nextafter(edge[-1], 0)), side="right"))


def of(world: World, item_ids: list[str], user_ids: list[str], events: Events) -> Simulated:
    """The people of `world` who are in the log, as the log left them; users and items in the catalog's order.

    Raises UserError where the catalog holds others than the world does.
    """
    item_at = {name: i for i, name in enumerate(world.items.ids)}
    user_at = {name: i for i, name in enumerate(world.user_ids)}
    try:
        items = np.array([item_at[name] for name in item_ids])
        users = np.array([user_at[name] for name in user_ids])
    except KeyError as error:
        raise UserError(
            f"The embedded world beside this workspace's tables does not know {error.args[0]!r}; the tables are of "
            "another world. Point experiment.truth to the folder that was written with them."
        ) from error
    settings, t = world.settings, len(world.topics)
    blur = stream(world.seed, "hunch").lognormal(0, settings.hunch_blur, (len(world.users), t))[users]
    place = np.zeros(len(world.users), np.int64)
    place[users] = np.arange(len(users))
    # A friend who left no event is not in the log; the friendship then leads nowhere but to oneself.
    logged = np.zeros(len(world.users), np.bool_)
    logged[users] = True
    friends = world.users.friends[users]
    friends = np.where(logged[friends], place[friends], np.arange(len(users))[:, None])
    own = replace(world.users, **_rows(world.users, users))
    own = replace(own, friends=friends.astype(np.int32))
    subset = replace(world, users=own, items=replace(world.items, **_rows(world.items, items)))
    return Simulated(subset, *_awaken(subset, events), blur.astype(np.float32))


def _rows(whole: Users | Items, rows: Ints) -> dict[str, Any]:
    """The columns of some users or items, in this order."""
    columns = {field.name: getattr(whole, field.name) for field in fields(whole)}
    return {
        name: column[rows] if isinstance(column, np.ndarray) else tuple(column[row] for row in rows)
        for name, column in columns.items()
    }


def _awaken(world: World, events: Events) -> tuple[State, Ints, Flags]:
    """Live the log again: how people are after it, the two topics that they watched last, the topics met."""
    settings, n = world.settings, len(world.users)
    state = people.start(world.users)
    recent = np.full((n, 2), -1, np.int64)
    met = np.zeros(state.known.shape, np.bool_)
    topic = world.items.topic[events.item]
    met[events.user, topic] = True
    day = (events.time - START) // DAY
    user = events.user.astype(np.int64)
    order = np.lexsort((events.time, day))
    days = np.searchsorted(day[order], np.arange(settings.days + 1))
    for today in range(settings.days):
        rows = order[days[today] : days[today + 1]]
        rows = rows[np.argsort(user[rows], kind="stable")]
        turn = np.arange(len(rows)) - np.searchsorted(user[rows], user[rows])
        for k in range(int(turn.max(initial=-1)) + 1):
            at = rows[turn == k]
            people.feel(settings, world.topics, state, user[at], topic[at], events.satisfaction[at])
            recent[user[at]] = np.stack([recent[user[at], 1], topic[at]], 1)
        people.sleep(settings, state)
    return state, recent, met


def liked_by_chance(people_now: Simulated, rng: np.random.Generator) -> None:
    """Placebo, in place: each user's affinities are permuted among the topics never met and not known.

    As many undiscovered interests as before, but nothing in the log, and nothing of the world, tells which.
    """
    affinity = people_now.world.users.affinity
    for user in range(len(affinity)):
        topics = np.flatnonzero(~people_now.met[user] & ~people_now.start[user])
        affinity[user, topics] = affinity[user, rng.permutation(topics)]
    settings = people_now.world.settings
    people_now.wanted = (affinity >= settings.liked) & ~people_now.start
    # Who searches knows the own liking, and is no longer led by appeals (as in `benchmarks/placebo.py`).
    people_now.hunch = (affinity**settings.hunch_power).astype(np.float32)
    people_now.alike = np.zeros_like(people_now.alike)
