"""The platform on which arms live their days: who comes, what is shown, what is logged.

A request collects candidates from the control's sources and the arm's, a ranker learned on the log orders them, and
the list is watched from the top. `share` of the places are kept for the arm's source, as a nominator under test has
them in production, and for the others it competes. Every night sources and ranker learn from the log that they
caused. What people feel comes from a `Environment`: simulated people, or a matrix of real feedback. Nothing but
`Logged` and `Asked` goes to a source.

A source that follows (paper 2's: what comes after the video being watched) is asked inside the visit, after each
item, and has its share of the places from the second on; all others are asked when the visit begins.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
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


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How a platform is lived on."""

    days: int
    share: float
    """Of the places, kept for the arm's source."""
    candidates: int
    """Items that each source names a visit."""
    blur: float
    """Deviation of the noise on the ranker's score, which keeps lists from being the same every day."""


def live(
    environment: Environment,
    known: Known,
    log: Logged,
    missing: Flags,
    arm: Source | None,
    users: Ints,
    *,
    settings: LiveSettings,
    rng: np.random.Generator,
    follows: bool = False,
    chance: Chance | None = None,
) -> Impressions:
    """Live some days with these users, the control's sources, and the arm's where there is one.

    `follows` says that the arm's source is asked after each item and not when a visit begins. `missing` are items
    that nobody [N], or not everybody [U, N], may be shown. `rng` is the luck of the arm's source, and with no
    `chance` of people and platform too; with one, theirs is what every arm meets that is given an equal `chance`.
    """
    platform = _Platform(
        environment,
        known,
        PlatformState.of(known, log, missing),
        Ranker.of(known, log, missing),
        settings,
        control=control_sources(known, log.n_users),
        arm=arm,
        follows=follows,
        rng=rng,
        chance=chance,
    )
    everybody = np.arange(log.n_users)
    invited = np.isin(everybody, users)
    parts: list[Impressions] = []
    for day in range(settings.days):
        for source in (*platform.control, *([] if arm is None else [arm])):
            source.learn(log, day)
        lengths = np.where(invited, environment.visits(day, platform.luck(everybody, "visits", day)), 0)
        came = np.flatnonzero(lengths)
        if len(came):
            lists = platform.rank(came, day)
            today = platform.watch(lists, lengths[came], day)
            platform.teach(lists, today)
            parts.append(today)
            log = extended(log, today)
        environment.night()
        platform.state.night()
    return joined(parts)


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
    met: Flags
    """[B, M] clusters met before the visit."""


def asked_of(state: PlatformState, user: Ints, day: int) -> Asked:
    """What a source is told of those who come."""
    return Asked(
        user, state.history[user], state.felt[user], state.when[user], day, state.seen[user], state.count[user] > 0
    )


@dataclass(frozen=True, slots=True)
class _Platform:
    """What a day needs; parameters as in `live`."""

    environment: Environment
    known: Known
    state: PlatformState
    ranker: Ranker
    settings: LiveSettings
    _: KW_ONLY
    control: list[Source]
    """Bit i of `Impressions.nominators` is that of source i."""
    arm: Source | None
    follows: bool
    rng: np.random.Generator
    chance: Chance | None

    def luck(self, user: Ints, purpose: str, day: int, turn: int = 0) -> np.random.Generator:
        """The random numbers of these users for a purpose, in the turn of a day."""
        return self.rng if self.chance is None else self.chance.of(user, purpose, day, turn)

    def rank(self, user: Ints, day: int) -> Lists:
        """What the sources name for those who come."""
        asked = asked_of(self.state, user, day)
        nominators = np.zeros((len(user), self.known.n_items + 1), np.int8)
        rows = np.arange(len(user))[:, None]
        named: list[Ints] = []
        sources = [(1 << i, one, self.luck(user, f"source {i}", day)) for i, one in enumerate(self.control)]
        if self.arm is not None and not self.follows:
            sources.append((ARM, self.arm, self.rng))
        for bit, source, rng in sources:
            items = source.nominate(asked, self.settings.candidates, rng)
            # NONE marks the last column, which is no item.
            nominators[rows, items] |= np.int8(bit)
            named.append(items)
        item = np.concatenate(named, axis=1)
        features = self.state.features(self.known, user, np.maximum(item, 0))
        noise = self.luck(user, "ranker", day).gumbel(size=item.shape)
        score = features @ self.ranker.weights() + np.float32(self.settings.blur) * noise.astype(np.float32)
        score = np.where(item == NONE, np.float32(-np.inf), score)
        return Lists(user, item, score, features, nominators[:, :-1], asked.met)

    def watch(self, lists: Lists, length: Ints, day: int) -> Impressions:
        """Who came watches, an item each a turn, as many as `length` [B]."""
        turns: list[Impressions] = []
        for turn in range(int(length.max())):
            row = np.flatnonzero(length > turn)
            item, nominators = self._choose(lists, row, day, turn)
            shown = item != NONE
            turns.append(self._record(lists, row[shown], item[shown], nominators[shown], day, turn=turn))
        return joined(turns)

    def _choose(self, lists: Lists, row: Ints, day: int, turn: int) -> tuple[Ints, NDArray[np.int8]]:
        """[n] what the users in these rows of the lists see next, NONE where nothing is left, and by whom."""
        user, seen, share = lists.user[row], self.state.seen, self.settings.share
        item = self.environment.discover(user, seen[user], self.luck(user, "discover", day, turn))
        discovered = item != NONE
        named = lists.item[row]
        left = (named != NONE) & ~np.take_along_axis(seen[user], np.maximum(named, 0), 1)
        column = np.where(left, lists.score[row], -np.inf).argmax(1)
        kept = np.zeros(len(row), np.bool_)  # whether the place is the arm's
        if self.arm is not None and share:
            kept = self.luck(user, "place", day, turn).random(len(row)) < share
            if not self.follows:
                # The arm's candidates come last, in its own order.
                first = len(self.control) * self.settings.candidates
                of_arm = left[:, first:]
                column = np.where(kept & of_arm.any(1), first + of_arm.argmax(1), column)
        fed = left.any(1) & ~discovered
        item = np.where(fed, named[np.arange(len(row)), column], item)
        nominators = np.where(fed, lists.nominators[row, item], 0).astype(np.int8)
        if self.arm is not None and self.follows and turn:
            asking = np.flatnonzero(kept & ~discovered)
            next_item = self.arm.nominate(asked_of(self.state, user[asking], day), 1, self.rng)[:, 0]
            asking, next_item = asking[next_item != NONE], next_item[next_item != NONE]
            item[asking], nominators[asking] = next_item, lists.nominators[row[asking], next_item] | np.int8(ARM)
        return item, nominators

    def _record(
        self, lists: Lists, row: Ints, item: Ints, nominators: NDArray[np.int8], day: int, *, turn: int
    ) -> Impressions:
        """The users in these rows watch an item each, and the platform remembers it."""
        user = lists.user[row]
        context = self.state.history[user, -1] - 1
        felt = self.environment.watch(user, item, self.luck(user, "watch", day, turn))
        self.state.add(self.known, user, item, felt.satisfaction, day)
        return Impressions(
            user=user,
            item=item,
            day=np.full(len(user), day),
            nominators=nominators,
            novel=metrics.novel_impressions(self.known.cluster[item], lists.met[row]),
            satisfaction=felt.satisfaction,
            seconds=felt.seconds,
            unmet=felt.unmet,
            context=context,
        )

    def teach(self, lists: Lists, shown: Impressions) -> None:
        """The ranker learns what the feed showed today, as it saw it this morning."""
        fed = shown.nominators > 0
        row = np.searchsorted(lists.user, shown.user[fed])
        same = lists.item[row] == shown.item[fed][:, None]
        ranked = same.any(1)  # what followed an item was in no list
        self.ranker.add(lists.features[row, same.argmax(1)][ranked], shown.satisfaction[fed][ranked])


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
        types = ("i8", "i8", "i8", "i1", "?", "f4", "f4", "?", "i8")
        return Impressions(*(np.empty(0).astype(each) for each in types))
    return Impressions(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Impressions)))
