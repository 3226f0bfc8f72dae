"""The embedded world: a catalog, people, and the truth about both.

Everything here is simulated and follows `docs/world.md`. Owns the items, `World`, and the questions a simulator
asks of it: what somebody likes, how an event feels, what the placebo worlds are. It does not know any
recommender; the log that one would have left is made in `loop.py`. No model may read a `World`.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.simulation import people
from byway.simulation.people import State, Users, WorldSettings, stream
from byway.simulation.topics import TITLE_KINDS, Text, Topics, creator_name, read, write_text

START = 1_767_225_600_000_000
"""2026-01-01T00:00Z in microseconds since the epoch: the first morning of the log."""

DAY = 86_400_000_000
"""Microseconds of a day."""

FULL = WorldSettings()
"""The world of `byway demo --full`."""

SMALL = WorldSettings(n_items=900, n_users=600, events_per_user=52.0)
"""The world of `byway demo`."""


@dataclass(frozen=True, slots=True)
class Items:
    """N items, in the order of their ids, which says nothing of their topics."""

    topic: NDArray[np.int32]
    """[N] topic: the truth."""
    quality: NDArray[np.float32]
    """[N] in [0, 1]: the truth."""
    reach: NDArray[np.float32]
    """[N] r to the power of -zipf for the item of rank r: how far it spreads by itself."""
    kind: NDArray[np.int8]
    """[N] index into TITLE_KINDS."""
    look: NDArray[np.int8]
    """[N] index of the appeal that the pictures of an item with a look of its own show; -1 for all others, which
    show their topic's. No word tells it: the truth."""
    seconds: NDArray[np.float32]
    """[N] length."""
    created: NDArray[np.int64]
    """[N] microseconds since the epoch."""
    creators: tuple[str, ...]
    texts: tuple[Text, ...]

    def __len__(self) -> int:
        return len(self.topic)

    @property
    def ids(self) -> list[str]:
        return [f"v{i:06d}" for i in range(len(self))]


class Made(msgspec.Struct, frozen=True):
    """What a world follows from."""

    seed: int
    settings: WorldSettings


@dataclass(frozen=True, slots=True)
class World:
    """Who and what there is. Equal settings and seed make an equal world."""

    settings: WorldSettings
    seed: int
    topics: Topics
    items: Items
    users: Users

    @property
    def user_ids(self) -> list[str]:
        return [f"u{i:06d}" for i in range(len(self.users))]


def build(seed: int = 0, settings: WorldSettings = FULL) -> World:
    """Make the world of this seed. Raises UserError where it would be too small to hold every topic."""
    topics = read()
    if settings.n_items < len(topics) or settings.n_users < 2:
        raise UserError(
            f"The embedded world needs at least {len(topics)} items, one a topic, and 2 users; "
            f"n_items is {settings.n_items} and n_users is {settings.n_users}."
        )
    return World(
        settings=settings,
        seed=seed,
        topics=topics,
        items=make_items(settings, topics, seed),
        users=people.make_users(settings, topics, seed),
    )


def load(folder: Path) -> World:
    """The world whose files `loop.write` put in `folder`, made again from its seed and settings.

    Raises UserError where `folder` holds no embedded world.
    """
    path = folder / "truth" / "world.json"
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=Made)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise UserError(f"{path} does not describe an embedded world ({error}).") from error
    return build(settings.seed, settings.settings)


def satisfaction(
    world: World,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    tired: NDArray[np.float32],
    novelty: NDArray[np.float32],
    after: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """[n] mean satisfaction of `user` with `item`; see people.expected_satisfaction for the formula.

    `after` [n] is the item that each watched right before, -1 for none.
    """
    topic = world.items.topic[item]
    liking = world.users.affinity[user, topic]
    if after is not None and world.settings.look:
        liking = people.carried_over(world.settings, liking, carried(world, after, topic))
    return people.expected_satisfaction(world.settings, liking, world.items.quality[item], tired, novelty)


def carried(world: World, after: NDArray[np.int64], topic: NDArray[np.int32]) -> NDArray[np.float32]:
    """[...] in [0, 1]: how strongly `topic` has the appeal that the item `after` showed; shapes go together.

    0 where that item had no look of its own, where there was none (-1), and where it was of the same topic.
    """
    look, appeals = world.items.look[after], world.topics.appeals
    strength = appeals[topic, look] / appeals.max(1)[topic]
    leads = (after >= 0) & (look >= 0) & (world.items.topic[after] != topic)
    return np.where(leads, strength, 0).astype(np.float32)


def alike(world: World) -> NDArray[np.float32]:
    """[T + 1, T] similarity of topics by appeals and area, for the mood; the last row is that of no topic."""
    topics = world.topics
    near = topics.topic_area[:, None] == topics.topic_area
    similarity = topics.appeals @ topics.appeals.T + np.float32(world.settings.mood_area) * near
    return np.vstack([similarity, np.zeros((1, len(topics)), np.float32)])


def wishes(
    world: World,
    state: State,
    user: NDArray[np.int64],
    hunch: NDArray[np.float32],
    mood: NDArray[np.floating],
) -> NDArray[np.floating]:
    """[n, T] what each user looks for among what is not known: by `hunch`, the blurred affinity^hunch_power, and
    the `mood`, both [n, T].

    After an item with a look of its own it is something near, by the liking that its look leaves.
    """
    settings, after = world.settings, state.last[user]
    wished = hunch * np.exp(settings.mood * mood)
    led = (after >= 0) & (world.items.look[after] >= 0)
    if settings.look and led.any():
        liking = np.maximum(world.users.affinity[user[led]], 1e-6)
        shown = carried(world, after[led, None], np.arange(len(world.topics), dtype=np.int32))
        area = world.topics.topic_area
        near = area[world.items.topic[after[led]]][:, None] == area
        gain = (people.carried_over(settings, liking, shown) / liking) ** settings.hunch_power
        wished[led] = hunch[led] * gain * np.exp(settings.mood * near)
    return wished * ~state.known[user]


def watch(
    world: World,
    state: State,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each user watches one item: satisfaction [n] in [0, 1] and watch time [n] in seconds.

    The users must be unique. `state` is brought up to date in place.
    """
    topic = world.items.topic[item]
    tired = people.tiredness(world.settings, state.load[user, topic])
    novelty = (~state.known[user, topic]).astype(np.float32)
    mean = satisfaction(world, user, item, tired, novelty, state.last[user])
    drawn = people.draw_satisfaction(world.settings, mean, rng)
    people.feel(world.settings, world.topics, state, user, topic, drawn)
    state.last[user] = item
    share = np.clip(0.1 + 0.9 * drawn + rng.normal(0, 0.1, len(user)), 0.03, 1)
    return drawn, (world.items.seconds[item] * share).astype(np.float32)


def make_items(settings: WorldSettings, topics: Topics, seed: int) -> Items:
    """Draw the catalog: topics, quality, reach, age, who made it, and what stands under it."""
    n, t = settings.n_items, len(topics)
    rng = stream(seed, "items")
    share = rng.lognormal(0, settings.topic_spread, t)
    topic = np.concatenate([np.arange(t), rng.choice(t, n - t, p=share / share.sum())])
    first = np.arange(n) < t
    order = rng.permutation(n)
    topic, first = topic[order].astype(np.int32), first[order]

    kind = rng.choice(len(TITLE_KINDS), n, p=np.asarray(settings.title_shares) / sum(settings.title_shares))
    clickbait = kind == TITLE_KINDS.index("clickbait")
    quality = np.clip(rng.beta(*settings.quality_shape, n) + settings.clickbait_quality * clickbait, 0, 1)
    attraction = 1.5 * quality + settings.clickbait_reach * clickbait + rng.normal(0, 1, n)
    reach = (1.0 + (-attraction).argsort().argsort()) ** -settings.zipf

    # One item of each topic is old, so that no topic is empty on the first morning.
    old = first | (rng.random(n) < settings.old_items)
    age = np.where(old, -180 * rng.random(n) ** 1.5, settings.days * rng.random(n))
    return Items(
        topic=topic,
        quality=quality.astype(np.float32),
        reach=reach.astype(np.float32),
        kind=kind.astype(np.int8),
        look=_looks(settings, topics, topic, stream(seed, "look")),
        seconds=np.clip(rng.lognormal(np.log(settings.median_seconds), 0.7, n), 6, 600).round().astype(np.float32),
        created=START + (age * DAY).astype(np.int64),
        creators=_creators(settings, topics, topics.sub_area[topic], rng),
        texts=_texts(settings, topics, topic, kind, seed),
    )


def _looks(
    settings: WorldSettings, topics: Topics, topic: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int8]:
    """For each item with a look of its own an appeal that its area has in other sub-areas; -1 for the others."""
    n, area = len(topic), topics.topic_area
    own = rng.random(n) < (settings.rich if settings.look else 0)
    place = rng.random(n)
    out = np.full(n, -1, np.int8)
    for i in np.flatnonzero(own):
        others = (area == area[topic[i]]) & (topics.sub_area != topics.sub_area[topic[i]])
        there = np.flatnonzero(topics.appeals[others].any(0))
        out[i] = there[int(place[i] * len(there))]
    return out


def _creators(
    settings: WorldSettings, topics: Topics, home: NDArray[np.int32], rng: np.random.Generator
) -> tuple[str, ...]:
    """Accounts with a sub-area of their own, from which some items stray."""
    n, s = len(home), len(topics.sub_areas)
    accounts = max(s, n // 8)
    territory = np.concatenate([np.arange(s), rng.integers(0, s, accounts - s)])
    size = (1.0 + rng.permutation(accounts)) ** -0.8
    of_home = np.where(territory == np.arange(s)[:, None], size, 0.0)
    strays = np.where(rng.random(n) < settings.strays, rng.integers(0, s, n), home)
    drawn = [int(rng.choice(accounts, p=of_home[h] / of_home[h].sum())) for h in strays]
    return tuple(creator_name(topics, account) for account in drawn)


def _texts(
    settings: WorldSettings, topics: Topics, topic: NDArray[np.int32], kind: NDArray[np.int64], seed: int
) -> tuple[Text, ...]:
    """One text an item, from a stream of its own: other words change nothing but the words."""
    speaks = words_of(settings, topics, seed)
    return tuple(
        write_text(
            topics,
            int(speaks[topic[i]]),
            int(kind[i]),
            np.random.default_rng([seed, 7, i]),
            hashtag_share=settings.hashtag_share,
            appeal_share=settings.appeal_share,
            typo_share=settings.typo_share,
            description_share=settings.description_share,
        )
        for i in range(len(topic))
    )


def words_of(settings: WorldSettings, topics: Topics, seed: int) -> NDArray[np.int64]:
    """[T] the topic whose words each topic speaks: itself, or in a placebo world a permutation."""
    t = len(topics)
    if settings.words == "true":
        return np.arange(t)
    rng = stream(seed, "words")
    if settings.words == "shuffled_topics":
        return rng.permutation(t)
    # Sub-areas change places with others of the same number of topics, so that each gets whole words.
    members = [np.flatnonzero(topics.sub_area == s) for s in range(len(topics.sub_areas))]
    out = np.arange(t)
    for size in sorted({len(m) for m in members}):
        alike = [m for m in members if len(m) == size]
        for own, other in zip(alike, rng.permutation(len(alike)), strict=True):
            out[own] = alike[other]
    return out
