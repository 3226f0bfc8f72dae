"""The people of the embedded world: what they like, what they know, and how they feel about what they watch.

Owns the world's settings, the users and the formulas of satisfaction, tiredness and return. The formulas are pure
and take arrays; `State` is the one thing that changes as days go. It does not know items, titles or any
recommender.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from byway.simulation.topics import Topics


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """Every assumption of the embedded world that is a number. `docs/world.md` says why."""

    n_items: int = 2400
    """Items; at least one a topic."""
    n_users: int = 2000
    """Users."""
    days: int = 60
    """Days of the log. A day is the step of time."""
    events_per_user: float = 65.0
    """Events of a mean user over the log, were nobody ever weary."""

    words: Literal["true", "shuffled_topics", "shuffled_sub_areas"] = "true"
    """Placebo: whether an item speaks in the words of its own topic. Shuffled by topic, or by whole sub-area,
    which keeps a cluster of words a cluster of behaviour."""
    liking: Literal["appeals", "chance"] = "appeals"
    """Placebo: whether the liking of what a user does not know yet follows the appeals, or is pure chance."""
    recommender: Literal["relevance", "random"] = "relevance"
    """Who fills the feed while the log is made."""

    zipf: float = 1.0
    """Exponent of the items' reach: reach of the item of rank r is r to the power of minus this."""
    topic_spread: float = 0.7
    """Standard deviation of the log of a topic's share of the items."""
    title_shares: tuple[float, float, float, float, float] = (0.42, 0.16, 0.14, 0.14, 0.14)
    """Share of clear, plain, personal, clickbait and vague titles."""
    hashtag_share: float = 0.6
    """Share of items with hashtags."""
    appeal_share: float = 0.15
    """Share of titles (and of hashtag lists) that say what appeals in the topic."""
    typo_share: float = 0.06
    """Share of titles with a spelling mistake."""
    description_share: float = 0.08
    """Share of items with a description."""
    quality_shape: tuple[float, float] = (4.0, 3.0)
    """Of the beta distribution of quality: mean 0.57."""
    clickbait_quality: float = -0.12
    """What clickbait adds to quality."""
    clickbait_reach: float = 0.6
    """What clickbait adds to the score by which reach is ranked; quality counts 1.5, chance has deviation 1."""
    old_items: float = 0.75
    """Share of items made in the 180 days before the log; the others arrive as it runs."""
    median_seconds: float = 90.0
    """Median length of an item."""
    strays: float = 0.1
    """Share of items whose creator has left the own sub-area."""

    tastes: tuple[float, ...] = (1.0, 0.7, 0.4)
    """Weights of the appeals that draw a user."""
    areas: tuple[float, ...] = (1.0, 0.8, 0.6)
    """Liking of the areas that are a user's own; of all others 0."""
    area_zipf: float = 0.8
    """Exponent of the areas' popularity: the chance of the area of rank r is in proportion to r to minus this."""
    appeal_zipf: float = 0.5
    """The same for the appeals."""
    area_by_appeal: float = 1.0
    """How much the own areas follow the appeals: weight of an area's fit, in deviations, in a Gumbel draw."""
    fit_from: float = 0.35
    """Match of taste and appeals (cosine) below which a topic does not fit at all."""
    fit_to: float = 0.75
    """Match above which it fits fully."""
    area_floor: float = 0.45
    """Liking of a topic in the own area that does not fit by appeal, as a share."""
    openness_shape: tuple[float, float] = (8.0, 2.0)
    """Of the beta distribution of how far a user's liking crosses areas: mean 0.8."""
    indifference_shape: tuple[float, float] = (1.2, 8.0)
    """Of the beta distribution of the affinity to what does not fit: mean 0.13."""
    miss: float = 0.15
    """Share of topics that, against all reason, do not click with a user."""
    miss_loss: float = 0.65
    """What is lost of the affinity where a topic does not click."""
    known_topics: float = 8.0
    """Interests that a mean user has when the log begins."""
    known_affinity: tuple[float, float] = (0.6, 0.95)
    """An interest that a user has is liked at least so much: drawn between these."""
    liked: float = 0.5
    """Affinity from which a topic is an interest, known or undiscovered."""

    quality_share: float = 0.3
    """Part of the satisfaction that hangs on the item's quality."""
    tired_loss: float = 0.5
    """Part of the satisfaction that full tiredness takes."""
    surprise: float = 0.1
    """What meeting a new topic adds for a user who takes to it fully."""
    concentration: float = 10.0
    """Of the beta distribution from which satisfaction is drawn around its mean."""
    positive: float = 0.5
    """Satisfaction from which a topic, once met, is a known interest."""
    tire_scale: float = 6.0
    """Events in one topic that bring tiredness to 1 - 1/e."""
    tire_kin: float = 0.35
    """What an event adds to the load of the other topics in its sub-area."""
    rest: float = 0.8
    """Load that is left after a night: half of it is gone in three days."""
    weary_memory: float = 0.85
    """Memory of weariness, by event."""
    weary_rest: float = 0.95
    """Weariness that is left after a night."""
    weary_stay: float = 0.5
    """Part of the visits, and of a visit's length, that full weariness takes."""
    visit_events: float = 6.0
    """Events of a mean visit."""
    activity_spread: float = 0.6
    """Standard deviation of the log of a user's activity."""

    look: float = 0.0
    """How much what an item shows, and does not say, decides what pleases after it: `carried_over`."""
    rich: float = 0.5
    """Share of items with a look of their own, where `look` is above 0; the others show their topic's appeal."""

    from_search: float = 0.1
    """Share of events in which a user finds something by search or by wandering about."""
    from_friends: float = 0.04
    """Share of events in which a friend sends something."""
    trending: float = 0.12
    """Share of the feed that is popular with everybody."""
    feed_power: float = 2.0
    """Exponent of a topic's place in the user's profile; above 1, what is strong grows stronger."""
    heat_power: float = 0.5
    """Exponent of a topic's popularity in the feed."""
    profile_kin: float = 0.3
    """What the profile of a topic takes from the others in its sub-area, which look alike."""
    profile_area: float = 0.04
    """The same for its area."""
    profile_from: float = 0.25
    """Satisfaction below this adds nothing to the profile."""
    profile_memory: float = 0.97
    """Part of the profile that is left after a day."""
    mood: float = 4.0
    """How much a search starts from the two topics watched last, by similarity of appeals (cosine)."""
    mood_area: float = 0.3
    """What a common area adds to that similarity."""
    hunch_power: float = 4.0
    """Exponent of the affinity in what people look for or send to friends."""
    hunch_blur: float = 0.3
    """Standard deviation of the log of what they mistake it by."""
    onboarding: float = 4.0
    """In the feed, factor on the interests that users named when they joined, until each was shown once."""
    friends: int = 8
    """Friends of a user; people become friends by what draws them most."""


@dataclass(frozen=True, slots=True)
class Users:
    """U users, and the truth about them, which no model reads."""

    taste: NDArray[np.float32]
    """[U, K] unit rows: how much each appeal draws the user."""
    area_liking: NDArray[np.float32]
    """[U, A] liking of the areas that are the user's own, else 0."""
    affinity: NDArray[np.float32]
    """[U, T] in [0, 1]: how much the user likes the topic, or would."""
    known: NDArray[np.bool_]
    """[U, T] interests that the user has when the log begins."""
    activity: NDArray[np.float32]
    """[U] events a day, were the user never weary."""
    hour: NDArray[np.float32]
    """[U] usual hour of the visit."""
    friends: NDArray[np.int32]
    """[U, F] users."""

    def __len__(self) -> int:
        return len(self.affinity)


@dataclass(slots=True)
class State:
    """What changes in the users from day to day. The arrays are written in place."""

    known: NDArray[np.bool_]
    """[U, T] interests known by now."""
    load: NDArray[np.float32]
    """[U, T] how much of the topic the user had lately, in events."""
    weariness: NDArray[np.float32]
    """[U] in [0, 1]."""
    last: NDArray[np.int64]
    """[U] the item watched last in this visit, -1 at its start."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The world's randomness for one purpose: a placebo leaves every other purpose as it was."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def make_users(settings: WorldSettings, topics: Topics, seed: int) -> Users:
    """Draw users: tastes, areas that follow them in part, affinity to every topic, known interests.

    affinity = max(floor, click x max(area liking x (area_floor + (1 - area_floor) x fit), fit x openness)), fit
    being the match of taste and appeals between `fit_from` and `fit_to`. The first term is the liking that stays
    within the user's own areas, the second the one that crosses them.
    """
    n, t = settings.n_users, len(topics)
    rng = stream(seed, "users")
    common = _popularity(topics.appeals.shape[1], settings.appeal_zipf, rng)
    taste = _some(rng, n, len(common), settings.tastes, common)
    taste *= rng.uniform(0.8, 1.2, taste.shape).astype(np.float32)
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    fit = np.clip((taste @ topics.appeals.T - settings.fit_from) / (settings.fit_to - settings.fit_from), 0, 1)

    in_area = np.eye(len(topics.areas), dtype=np.float32)[topics.topic_area]
    area_fit = fit @ (in_area / in_area.sum(0))
    area_fit = (area_fit - area_fit.mean(1, keepdims=True)) / (area_fit.std(1, keepdims=True) + 1e-6)
    loved = _popularity(len(topics.areas), settings.area_zipf, rng)
    area_liking = _some(rng, n, len(loved), settings.areas, loved + settings.area_by_appeal * area_fit)

    within = (area_liking @ in_area.T) * (settings.area_floor + (1 - settings.area_floor) * fit)
    across = fit * rng.beta(*settings.openness_shape, (n, 1)).astype(np.float32)
    missed = rng.random((n, t), np.float32) < settings.miss
    click = np.where(missed, 1 - settings.miss_loss, 1 - 0.2 * rng.random((n, t), np.float32))
    floor = rng.beta(*settings.indifference_shape, (n, t)).astype(np.float32)
    affinity = np.maximum(floor, click * np.maximum(within, across))

    # People come to know a field as a whole: a sub-area draws once for all its topics.
    focus = rng.gumbel(size=(n, len(topics.sub_areas)))[:, topics.sub_area]
    rank = (-(3 * np.log(within + 1e-3) + focus + 0.5 * rng.gumbel(size=(n, t)))).argsort(1).argsort(1)
    known = rank < 1 + rng.poisson(settings.known_topics - 1, (n, 1))
    affinity = np.where(known, np.maximum(affinity, rng.uniform(*settings.known_affinity, (n, t))), affinity)
    if settings.liking == "chance":
        affinity = _shuffle_unknown(affinity, known, stream(seed, "chance"))

    spread = settings.activity_spread
    activity = settings.events_per_user / settings.days * rng.lognormal(-(spread**2) / 2, spread, n)
    return Users(
        taste=taste,
        area_liking=area_liking,
        affinity=affinity.astype(np.float32),
        known=known,
        activity=np.minimum(activity, 0.5 * settings.n_items / settings.days).astype(np.float32),
        hour=np.clip(rng.normal(18, 4, n), 6, 22).astype(np.float32),
        friends=_befriend(taste, settings.friends, rng),
    )


def start(users: Users) -> State:
    """The first morning: nobody is tired of anything."""
    n = len(users)
    return State(
        users.known.copy(), np.zeros(users.affinity.shape, np.float32), np.zeros(n, np.float32), np.full(n, -1)
    )


def tiredness(settings: WorldSettings, load: ArrayLike) -> NDArray[np.float32]:
    """1 - exp(-load / tire_scale): how tired somebody is of a topic after `load` events of it, in [0, 1)."""
    return (1 - np.exp(-np.asarray(load, np.float32) / settings.tire_scale)).astype(np.float32)


def expected_satisfaction(
    settings: WorldSettings, affinity: ArrayLike, quality: ArrayLike, tired: ArrayLike, novelty: ArrayLike
) -> NDArray[np.float32]:
    """Mean satisfaction in [0.02, 0.98]; all arguments in [0, 1] and of shapes that go together.

    affinity x (1 - quality_share x (1 - quality)) x (1 - tired_loss x tired)
    + surprise x novelty x max(0, 2 x affinity - 1). `novelty` is 1 where the user did not know the topic.
    """
    liking = np.asarray(affinity, np.float32)
    mean = liking * (1 - settings.quality_share * (1 - np.asarray(quality, np.float32)))
    mean = mean * (1 - settings.tired_loss * np.asarray(tired, np.float32))
    mean = mean + settings.surprise * np.asarray(novelty, np.float32) * np.maximum(0, 2 * liking - 1)
    return np.clip(mean, 0.02, 0.98).astype(np.float32)


def carried_over(settings: WorldSettings, affinity: ArrayLike, carried: ArrayLike) -> NDArray[np.float32]:
    """1 - (1 - affinity) x (1 - look x carried): liking of a topic after an item whose look it carries over.

    `carried`, in [0, 1], is how strongly the topic has the appeal that the item before showed. Nobody likes
    anything less for what they saw before.
    """
    return (1 - (1 - np.asarray(affinity)) * (1 - settings.look * np.asarray(carried))).astype(np.float32)


def draw_satisfaction(
    settings: WorldSettings, expected: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Satisfaction in [0, 1], beta distributed around `expected`."""
    k = settings.concentration
    return rng.beta(k * expected, k * (1 - expected)).astype(np.float32)


def visits(settings: WorldSettings, users: Users, state: State, rng: np.random.Generator) -> NDArray[np.int64]:
    """[U] events that each user has time for today, 0 for who does not come. The weary come less, and briefly."""
    ease = 1 - settings.weary_stay * state.weariness
    comes = rng.random(len(users)) < np.minimum(users.activity / settings.visit_events, 0.95) * ease
    # Where the activity is more than daily visits of usual length hold, the visits are longer.
    length = np.maximum(settings.visit_events, users.activity / 0.95) * ease
    return np.where(comes, 1 + rng.poisson(np.maximum(length - 1, 0)), 0)


def feel(
    settings: WorldSettings,
    topics: Topics,
    state: State,
    user: NDArray[np.int64],
    topic: NDArray[np.int32],
    satisfaction: NDArray[np.float32],
) -> None:
    """Write into `state` what one event each does to `user`, who must be unique: the topic may become known,
    its load grows and that of its sub-area, weariness follows tiredness and dissatisfaction in equal parts."""
    tired = tiredness(settings, state.load[user, topic])
    state.known[user, topic] |= satisfaction >= settings.positive
    kin = topics.sub_area[topic][:, None] == topics.sub_area
    state.load[user] += np.float32(settings.tire_kin) * kin
    state.load[user, topic] += np.float32(1 - settings.tire_kin)
    ill = (tired + 1 - satisfaction) / 2
    state.weariness[user] = settings.weary_memory * state.weariness[user] + (1 - settings.weary_memory) * ill


def sleep(settings: WorldSettings, state: State) -> None:
    """A night: load and weariness fade, and what was watched last no longer leads on."""
    state.last[:] = -1
    state.load *= np.float32(settings.rest)
    state.weariness *= np.float32(settings.weary_rest)


def _popularity(n: int, zipf: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """[n] logarithm of a Zipf popularity whose ranks are drawn."""
    return -zipf * np.log(1.0 + rng.permutation(n))


def _some(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    weights: tuple[float, ...],
    logits: NDArray[np.float64],
) -> NDArray[np.float32]:
    """[rows, columns] zeros but for the `weights`, at places drawn without replacement by Gumbel top-k."""
    places = (-(rng.gumbel(size=(rows, columns)) + logits)).argsort(1)[:, : len(weights)]
    out = np.zeros((rows, columns), np.float32)
    np.put_along_axis(out, places, np.asarray(weights, np.float32)[None], 1)
    return out


def _shuffle_unknown(
    affinity: NDArray[np.float32], known: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Permute each row over the topics that are not known: as many likings as before, of anything."""
    at = np.where(known, np.inf, np.arange(known.shape[1])).argsort(1, kind="stable")
    by = np.where(known, np.inf, rng.random(known.shape)).argsort(1, kind="stable")
    out = affinity.copy()
    np.put_along_axis(out, at, np.take_along_axis(affinity, by, 1), 1)
    return out


def _befriend(taste: NDArray[np.float32], friends: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """[U, F] neighbours on a ring on which people stand by what draws them most, then by what draws them next."""
    n = len(taste)
    drawn = np.argsort(-taste, axis=1)
    ring = np.lexsort((rng.random(n), drawn[:, 1], drawn[:, 0]))
    place = np.empty(n, np.int64)
    place[ring] = np.arange(n)
    steps = rng.integers(1, 4 * friends + 1, (n, friends)) * rng.choice([-1, 1], (n, friends))
    return ring[(place[:, None] + steps) % n].astype(np.int32)
