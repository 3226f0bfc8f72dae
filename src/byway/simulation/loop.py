"""The log that a relevance-only recommender would have left in the embedded world, feedback loop included.

Owns the recommender of the past, the days, and the files: what the pipeline reads, and the truth in a folder
apart. The recommender sees its own log and what people told it when they joined; it knows no appeals.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.simulation import media, people
from byway.simulation.people import State, WorldSettings, stream
from byway.simulation.topics import TITLE_KINDS
from byway.simulation.world import DAY, FULL, SMALL, START, Made, World, alike, build, watch, wishes

SOME_FILMED = 0.1
"""Share of the small world's items that have a video."""

SOURCES = ("feed", "search", "friend")
"""Where an event comes from; `WorldLog.source` is an index into this."""


@dataclass(frozen=True, slots=True)
class WorldLog:
    """Events in order of time, and how people are when it ends."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    """Microseconds since the epoch; strictly increasing for each user."""
    satisfaction: NDArray[np.float32]
    """In [0, 1]."""
    watch_seconds: NDArray[np.float32]
    source: NDArray[np.int8]
    propensity: NDArray[np.float32]
    """Probability with which the feed showed this item in this place; NaN where it was not the feed."""
    end: State
    """The users on the morning after the last day."""

    def __len__(self) -> int:
        return len(self.user)


@dataclass(slots=True)
class _Platform:
    """What the recommender of the past has, knows and remembers; written in place."""

    shelf: NDArray[np.int64]
    """[T, longest] items of each topic, padded with item 0."""
    filled: NDArray[np.bool_]
    """[T, longest] places of the shelf that hold an item."""
    seen: NDArray[np.bool_]
    """[U, N] who saw what: nobody is shown an item twice."""
    unseen: NDArray[np.int32]
    """[U, T] items of the topic that are out and that the user has not seen."""
    profile: NDArray[np.float32]
    """[U, T] satisfaction by topic, fading."""
    named: NDArray[np.bool_]
    """[U, T] interests named when joining that were not shown yet."""
    recent: NDArray[np.int64]
    """[U, 2] the two topics watched last, -1 before that."""
    plays: NDArray[np.float64]
    """[N] satisfaction that the item gave in all."""
    weight: NDArray[np.float32]
    """[N] reach x sqrt(1 + plays) this morning, 0 before an item is out."""
    heat: NDArray[np.float32]
    """[T] the same, by topic."""
    hunch: NDArray[np.float32]
    """[U, T] what people expect to like when they look around: blurred affinity^hunch_power."""
    alike: NDArray[np.float32]
    """[T + 1, T] see `world.alike`."""


def simulate(world: World) -> WorldLog:
    """Live the days of the world's settings.

    Every morning the recommender learns from what was logged: a profile of each user (satisfaction by topic, old
    events fading), smoothed over sub-area and area as similar content is, and the plays of each item. The feed
    draws a topic by profile^feed_power x heat^heat_power, `trending` of it by heat alone, and in the topic an
    item that the user has not seen, by reach and plays. Search and friends are what breaks in from outside.
    """
    settings, users = world.settings, world.users
    rng = stream(world.seed, "log")
    state = people.start(users)
    platform = _open(world)
    clock = np.zeros(len(users), np.int64)
    rounds: list[tuple[NDArray[np.generic], ...]] = []
    for day in range(settings.days):
        morning = START + day * DAY
        _stock_up(world, platform, morning)
        lengths = people.visits(settings, users, state, rng)
        hour = np.clip(users.hour + rng.normal(0, 1.5, len(users)), 5, 22)
        clock = np.maximum(clock, morning + (3.6e9 * hour).astype(np.int64))
        feed = np.zeros(users.affinity.shape, np.float32)
        feed[lengths > 0] = _feed(world, platform, lengths > 0)
        for turn in range(int(lengths.max(initial=0))):
            user = np.flatnonzero(lengths > turn)
            source = _source(settings, len(user), rng)
            wish = _wish(world, platform, state, feed, user, source, rng=rng)
            topic, p_topic = _draw(wish * (platform.unseen[user] > 0), rng)
            place, p_item = _draw(_offer(world, platform, user, topic), rng)
            # Who is shown nothing, having seen all there is, turns away.
            found = (p_topic > 0) & (p_item > 0)
            user, topic, source = user[found], topic[found], source[found]
            item = platform.shelf[topic, place[found]]
            liked, seconds = watch(world, state, user, item, rng)
            _learn(settings, platform, user, topic, item, liked)
            shown = np.where(source == 0, (p_topic * p_item)[found], np.nan)
            rounds.append((user, item, clock[user], liked, seconds, source, shown))
            clock[user] += (1e6 * (1 + seconds + rng.exponential(15, len(user)))).astype(np.int64)
        platform.profile *= np.float32(settings.profile_memory)
        people.sleep(settings, state)

    columns = [np.concatenate(column) for column in zip(*rounds, strict=True)]
    order = np.lexsort((columns[0], columns[2]))
    user, item, time, liked, seconds, source, shown = (column[order] for column in columns)
    return WorldLog(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time=time.astype(np.int64),
        satisfaction=liked.astype(np.float32),
        watch_seconds=seconds.astype(np.float32),
        source=source.astype(np.int8),
        propensity=shown.astype(np.float32),
        end=state,
    )


def write(world: World, log: WorldLog, folder: Path) -> None:
    """Write `items.parquet` and `events.parquet`, which the pipeline reads, and the truth under `truth/`.

    Propensity is null where the feed did not choose. Equal worlds make equal files.
    """
    truth = folder / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    items, users, topics = world.items, world.users, world.topics
    moment = pa.timestamp("us", tz="UTC")
    item_ids, user_ids = np.array(items.ids), np.array(world.user_ids)
    pq.write_table(
        pa.table(
            {
                "item": item_ids,
                "title": [text.title for text in items.texts],
                "hashtags": pa.array([list(text.hashtags) for text in items.texts], pa.list_(pa.string())),
                "description": [text.description for text in items.texts],
                "creator": list(items.creators),
                "duration": items.seconds,
                "created_at": pa.array(items.created, moment),
            }
        ),
        folder / "items.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "user": user_ids[log.user],
                "item": item_ids[log.item],
                "time": pa.array(log.time, moment),
                "satisfaction": log.satisfaction,
                "watch_seconds": log.watch_seconds,
                "source": np.array(SOURCES)[log.source],
                "propensity": pa.array(log.propensity, from_pandas=True),
            }
        ),
        folder / "events.parquet",
    )
    np.savez(
        truth / "truth.npz",
        item_topic=items.topic,
        item_quality=items.quality,
        item_title_kind=items.kind,
        topic_sub_area=topics.sub_area,
        topic_appeals=topics.appeals,
        sub_area_area=topics.area,
        topic_names=np.array(topics.names),
        sub_area_names=np.array(topics.sub_areas),
        area_names=np.array(topics.areas),
        appeal_names=np.array(topics.appeal_names),
        title_kinds=np.array(TITLE_KINDS),
        affinity=users.affinity,
        taste=users.taste,
        known_at_start=users.known,
        known_at_end=log.end.known,
    )
    settings = msgspec.json.encode(Made(world.seed, world.settings))
    (truth / "world.json").write_bytes(msgspec.json.format(settings, indent=2))


def write_demo(folder: Path, full: bool = False, seed: int = 0) -> None:
    """Build the world of `byway demo`, live its days, and write its files into `folder`.

    The small world has a thumbnail for most items and few videos: to film takes longer than all the rest.
    """
    made = build(seed, FULL if full else SMALL)
    write(made, simulate(made), folder)
    media.film(made, folder, media.FILMED if full else SOME_FILMED)


def _open(world: World) -> _Platform:
    """The platform before its first day. It asks who joins for their interests, and is told."""
    items, users, topics = world.items, world.users, world.topics
    n, t = len(users), len(topics)
    counts = np.bincount(items.topic, minlength=t)
    filled = np.arange(counts.max()) < counts[:, None]
    shelf = np.zeros(filled.shape, np.int64)
    shelf[filled] = np.argsort(items.topic, kind="stable")
    blur = stream(world.seed, "hunch").lognormal(0, world.settings.hunch_blur, (n, t))
    return _Platform(
        shelf=shelf,
        filled=filled,
        seen=np.zeros((n, len(items)), np.bool_),
        unseen=np.zeros((n, t), np.int32),
        profile=users.known.astype(np.float32),
        named=users.known.copy(),
        recent=np.full((n, 2), -1, np.int64),
        plays=np.zeros(len(items)),
        weight=np.zeros(len(items), np.float32),
        heat=np.zeros(t, np.float32),
        hunch=((users.affinity * blur) ** world.settings.hunch_power).astype(np.float32),
        alike=alike(world),
    )


def _stock_up(world: World, platform: _Platform, morning: int) -> None:
    """Put out what was made since yesterday, and learn what is popular."""
    items = world.items
    out = items.created <= morning
    fresh = out & (platform.weight == 0)
    platform.unseen += np.bincount(items.topic[fresh], minlength=len(world.topics)).astype(np.int32)
    platform.weight = np.where(out, items.reach * np.sqrt(1 + platform.plays), 0).astype(np.float32)
    platform.heat = np.bincount(items.topic, platform.weight, len(world.topics)).astype(np.float32)


def _feed(world: World, platform: _Platform, today: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[users of today, T] what the recommender believes that they want: similar topics lend to each other."""
    settings, topics = world.settings, world.topics
    kin = (topics.sub_area[:, None] == topics.sub_area).astype(np.float32)
    near = (topics.topic_area[:, None] == topics.topic_area).astype(np.float32)
    mix = np.eye(len(topics), dtype=np.float32) + settings.profile_kin * kin + settings.profile_area * near
    believed = (platform.profile[today] @ mix) ** np.float32(settings.feed_power)
    return believed * platform.heat ** np.float32(settings.heat_power)


def _source(settings: WorldSettings, n: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """[n] indexes into SOURCES."""
    search, friends = settings.from_search, settings.from_friends
    return np.searchsorted([1 - search - friends, 1 - friends], rng.random(n), "right").astype(np.int8)


def _wish(
    world: World,
    platform: _Platform,
    state: State,
    feed: NDArray[np.float32],
    user: NDArray[np.int64],
    source: NDArray[np.int8],
    *,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """[n, T] weights by which the next topic of each user is drawn, by where the event comes from."""
    settings, left = world.settings, platform.unseen[user]
    if settings.recommender == "random":
        wish = left.astype(np.float32)
    else:
        boost = np.where(platform.named[user], np.float32(settings.onboarding), np.float32(1))
        wish = np.float32(1 - settings.trending) * _normal(feed[user] * boost * (left > 0))
        wish += np.float32(settings.trending) * _normal(platform.heat * (left > 0))
    # A search is for something else than what one knows, and starts from what one has just seen.
    searching = user[source == 1]
    mood = platform.alike[platform.recent[searching]].mean(1)
    wish[source == 1] = wishes(world, state, searching, platform.hunch[searching], mood)
    # A friend sends what the friend knows and thinks will please.
    told = user[source == 2]
    friend = world.users.friends[told, rng.integers(0, world.users.friends.shape[1], len(told))]
    wish[source == 2] = platform.hunch[told] * state.known[friend]
    return wish


def _offer(
    world: World, platform: _Platform, user: NDArray[np.int64], topic: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[n, longest] weights of the items on the shelf of `topic` that `user` has not seen."""
    items = platform.shelf[topic]
    weight = platform.weight[items] * (platform.filled[topic] & ~platform.seen[user[:, None], items])
    return (weight > 0).astype(np.float32) if world.settings.recommender == "random" else weight


def _learn(
    settings: WorldSettings,
    platform: _Platform,
    user: NDArray[np.int64],
    topic: NDArray[np.int64],
    item: NDArray[np.int64],
    liked: NDArray[np.float32],
) -> None:
    """Take in one event each of unique users."""
    platform.seen[user, item] = True
    platform.unseen[user, topic] -= 1
    platform.named[user, topic] = False
    platform.profile[user, topic] += np.maximum(liked - settings.profile_from, 0)
    platform.plays += np.bincount(item, liked, len(platform.plays))
    platform.recent[user] = np.stack([platform.recent[user, 1], topic], 1)


def _normal(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that sum to one, or to zero where they did."""
    return weights / np.maximum(weights.sum(1, keepdims=True), np.float32(1e-30))


def _draw(weights: NDArray[np.float32], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One column a row in proportion to the weights, with its probability; 0 where the row is all zero."""
    upto = weights.cumsum(1, dtype=np.float64)
    total = upto[:, -1]
    place = (upto <= (rng.random(len(weights)) * total)[:, None]).sum(1)
    place = np.minimum(place, weights.shape[1] - 1)
    chosen = np.take_along_axis(weights, place[:, None], 1)[:, 0]
    return place, chosen / np.maximum(total, 1e-30)
