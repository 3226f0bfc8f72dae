"""The platform on which arms live their days: who comes, what is shown, what is logged.

A request collects candidates from the control's sources and the arm's, a ranker learned on the log orders them, and
the list is watched from the top. `share` of the places are kept for the arm's source, as a nominator under test has
them in production, and for the others it competes. Every night sources and ranker learn from the log that they
caused. What people feel comes from a `Environment`: simulated people, or a matrix of real feedback. Nothing but
`Logged` and `Asked` goes to a source.

A source that follows (paper 2's: what comes after the video being watched) is asked inside the visit, after each
item, and has its share of the places from the second on; all others are asked when the visit begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from byway.base import metrics
from byway.simulation.chance import Chance
from byway.simulation.control import PlatformState, Ranker, control_sources
from byway.simulation.source import NONE, Asked, Flags, Floats, Ints, Known, Logged, Source

ARM = 8
"""Bit of the arm's source in `Impressions.nominators`; the control's three have 1, 2 and 4."""


@dataclass(frozen=True, slots=True)
class Felt:
    """How watching was."""

    satisfaction: Floats
    """[n] in [0, 1]."""
    seconds: Floats
    """[n] watched."""
    unmet: Flags
    """[n] whether what the item is about was never met before: the truth, for controls only."""


class Environment(Protocol):
    """What is true of the people; no source sees it."""

    def visits(self, day: int, rng: np.random.Generator) -> Ints:
        """[U] items that each user has time for today, 0 for who does not come."""
        ...

    def discover(self, user: Ints, seen: Flags, rng: np.random.Generator) -> Ints:
        """[n] items that users find by themselves this time, by search or friends; NONE for who takes the feed."""
        ...

    def watch(self, user: Ints, item: Ints, rng: np.random.Generator) -> Felt:
        """Unique users watch one item each."""
        ...

    def night(self) -> None:
        """A day is over."""
        ...

    def hidden(self) -> Sequence[NDArray[np.generic]]:
        """The arrays that hold the truth, for the leakage control to overwrite for a moment."""
        ...


@dataclass(frozen=True, slots=True)
class Impressions:
    """All that was watched, in order of time; arrays of one length."""

    user: Ints
    item: Ints
    day: Ints
    nominators: NDArray[np.int8]
    """Bits of the sources that had named the item; 0 where the user found it without the feed."""
    novel: Flags
    """Whether, when the visit began, the user had never met the item's cluster."""
    satisfaction: Floats
    seconds: Floats
    unmet: Flags
    """See `Felt`."""
    context: Ints
    """What the user had watched right before; NONE where nothing."""

    def __len__(self) -> int:
        return len(self.user)

    @property
    def by_arm(self) -> Flags:
        """Impressions that the arm's source had named."""
        return (self.nominators & ARM) > 0


def live(
    environment: Environment,
    known: Known,
    log: Logged,
    missing: Flags,
    arm: Source | None,
    users: Ints,
    *,
    rng: np.random.Generator,
    days: int,
    share: float,
    candidates: int,
    blur: float,
    follows: bool = False,
    chance: Chance | None = None,
) -> Impressions:
    """Live `days` days with these users, the control's sources, and the arm's where there is one.

    `follows` says that the arm's source is asked after each item and not when a visit begins.

    `missing` are items that nobody [N], or not everybody [U, N], may be shown. `blur` is the deviation of the noise
    on the ranker's score, which keeps lists from being the same every day. `rng` is the luck of the arm's source,
    and with no `chance` of people and platform too; with one, theirs is what every arm meets that is given an equal
    `chance`.
    """

    def luck(user: Ints, purpose: str, day: int, turn: int = 0) -> np.random.Generator:
        return rng if chance is None else chance.of(user, purpose, day, turn)

    everybody = np.arange(log.n_users)
    state = PlatformState.of(known, log, missing)
    sources: list[Source] = [*control_sources(known), *([] if arm is None or follows else [arm])]
    after = arm if follows else None
    ranker = Ranker.of(known, log, missing)
    parts: list[Impressions] = []
    own = np.zeros(log.n_users, np.bool_)
    own[users] = True
    for day in range(days):
        for source in (*sources, *([] if after is None else [after])):
            source.learn(log, day)
        lengths = np.where(own, environment.visits(day, luck(everybody, "visits", day)), 0)
        came = np.flatnonzero(lengths)
        if len(came):
            lists = _rank(known, state, ranker, sources, came, day, k=candidates, blur=blur, luck=luck, rng=rng)
            today = _watch(
                environment,
                known,
                state,
                lists,
                lengths[came],
                share if arm else 0.0,
                after=None if after is None else partial(after.nominate, k=1, rng=rng),
                day=day,
                luck=luck,
            )
            _teach(ranker, lists, today)
            parts.append(today)
            log = extended(log, today)
        environment.night()
        state.night()
    return joined(parts)


class Luck(Protocol):
    """The random numbers of these users for a purpose, in the turn of a day."""

    def __call__(self, user: Ints, purpose: str, day: int, turn: int = 0) -> np.random.Generator: ...


@dataclass(frozen=True, slots=True)
class Lists:
    """What was named for the B users of a day, and how it was ranked."""

    user: Ints
    item: Ints
    """[B, C] candidates of all sources; NONE where there is none."""
    score: Floats
    """[B, C]; -inf where there is none."""
    features: Floats
    """[B, C, F] what the ranker saw."""
    nominators: NDArray[np.int8]
    """[B, N] bits of the sources that named the item."""
    own: int
    """The first column of the arm's candidates, which stand in its own order."""
    met: Flags
    """[B, M] clusters met before the visit."""


def asked_of(state: PlatformState, user: Ints, day: int) -> Asked:
    """What a source is told of those who come."""
    return Asked(
        user, state.history[user], state.felt[user], state.when[user], day, state.seen[user], state.count[user] > 0
    )


def _rank(
    known: Known,
    state: PlatformState,
    ranker: Ranker,
    sources: list[Source],
    user: Ints,
    day: int,
    *,
    k: int,
    blur: float,
    luck: Luck,
    rng: np.random.Generator,
) -> Lists:
    asked = asked_of(state, user, day)
    nominators = np.zeros((len(user), known.n_items + 1), np.int8)
    rows = np.arange(len(user))[:, None]
    named: list[Ints] = []
    for bit, source in enumerate(sources):
        own = 1 << bit == ARM
        found = source.nominate(asked, k, rng if own else luck(user, f"source {bit}", day))
        # NONE marks the last column, which is no item.
        nominators[rows, found] |= np.int8(1 << bit)
        named.append(found)
    item = np.concatenate(named, axis=1)
    features = state.features(known, user, np.maximum(item, 0))
    noise = luck(user, "ranker", day).gumbel(size=item.shape)
    score = features @ ranker.weights() + np.float32(blur) * noise.astype(np.float32)
    score = np.where(item == NONE, np.float32(-np.inf), score)
    return Lists(user, item, score, features, nominators[:, :-1], 3 * k, asked.met)


def _watch(
    environment: Environment,
    known: Known,
    state: PlatformState,
    lists: Lists,
    length: Ints,
    share: float,
    *,
    after: Callable[[Asked], Ints] | None,
    day: int,
    luck: Luck,
) -> Impressions:
    """Who came watches, an item each a turn. `after` names the arm's item [B, 1] to those who just watched one."""
    turns: list[Impressions] = []
    for turn in range(int(length.max())):
        row = np.flatnonzero(length > turn)
        user = lists.user[row]
        item = environment.discover(user, state.seen[user], luck(user, "discover", day, turn))
        discovered = item != NONE
        named = lists.item[row]
        left = (named != NONE) & ~np.take_along_axis(state.seen[user], np.maximum(named, 0), 1)
        column = np.where(left, lists.score[row], -np.inf).argmax(1)
        place = luck(user, "place", day, turn).random(len(row)) < share if share else np.zeros(len(row), np.bool_)
        if share and after is None:
            kept = left[:, lists.own :]
            column = np.where(place & kept.any(1), lists.own + kept.argmax(1), column)
        fed = left.any(1) & ~discovered
        at = np.arange(len(row))
        item = np.where(fed, named[at, column], item)
        nominators = np.where(fed, lists.nominators[row, item], 0).astype(np.int8)
        before = state.history[user, -1] - 1
        if after is not None and turn:
            own = np.flatnonzero(place & ~discovered)
            found = after(asked_of(state, user[own], day))[:, 0]
            own, found = own[found != NONE], found[found != NONE]
            item[own], nominators[own] = found, lists.nominators[row[own], found] | np.int8(ARM)
        shown = item != NONE
        row, user, item, before = row[shown], user[shown], item[shown], before[shown]
        nominators = nominators[shown]
        felt = environment.watch(user, item, luck(user, "watch", day, turn))
        state.add(known, user, item, felt.satisfaction, day)
        turns.append(
            Impressions(
                user=user,
                item=item,
                day=np.full(len(user), day),
                nominators=nominators,
                novel=metrics.novel_impressions(known.cluster[item], lists.met[row]),
                satisfaction=felt.satisfaction,
                seconds=felt.seconds,
                unmet=felt.unmet,
                context=before,
            )
        )
    return joined(turns)


def _teach(ranker: Ranker, lists: Lists, shown: Impressions) -> None:
    """What the feed showed today, as the ranker saw it this morning."""
    fed = shown.nominators > 0
    row = np.searchsorted(lists.user, shown.user[fed])
    same = lists.item[row] == shown.item[fed][:, None]
    ranked = same.any(1)  # what followed an item was in no list
    ranker.add(lists.features[row, same.argmax(1)][ranked], shown.satisfaction[fed][ranked])


def extended(log: Logged, shown: Impressions) -> Logged:
    """The log with what was watched."""
    return Logged(
        np.concatenate([log.user, shown.user]),
        np.concatenate([log.item, shown.item]),
        np.concatenate([log.satisfaction, shown.satisfaction]),
        np.concatenate([log.day, shown.day]),
        log.n_users,
    )


def joined(parts: list[Impressions]) -> Impressions:
    """One table of all, in their order."""
    if not parts:
        empty = np.empty(0)
        return Impressions(
            *(
                empty.astype(t)
                for t in (np.int64, np.int64, np.int64, np.int8, np.bool_, "f4", "f4", np.bool_, np.int64)
            )
        )
    return Impressions(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Impressions)))
