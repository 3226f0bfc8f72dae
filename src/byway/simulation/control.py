"""The control: what every segment has, whatever its arm. Three sources, and the ranker that mixes all sources.

The sources are those of a platform that knows only its log: the clusters that pleased a user (as the recommender of
the embedded world's past), items that others watched around the same items, and what is popular now. The ranker is
ridge regression of satisfaction on what the log says of the user, the item and the cluster; it learns every night.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.simulation.source import NONE, Asked, Flags, Floats, Ints, Known, Logged, Source, best, by_user

HISTORY = 50
"""Most recent items that sources are told of."""
FADE = 0.97
"""What is left of a profile after a day; as in the past of the embedded world."""
REST = 0.8
"""What is left after a night of the count of recent events by cluster."""
NEIGHBOURS = 3
"""Events apart, at most, of two items that count as watched together."""
HELD = 10
"""Days at the end of the log on which the ranker first learns, from features as they were before."""
FEATURES = 9


def control_sources(known: Known, users: int) -> list[Source]:
    """The three sources for so many users, with the bits 1, 2 and 4."""
    return [Profile(known, users), Together(known), Popular(known)]


class Profile:
    """Items of the clusters that pleased the user, popular ones first; with some chance, so that lists differ."""

    def __init__(self, known: Known, users: int):
        self.known = known
        self.liked = np.zeros((users, known.n_clusters), np.float32)
        """Satisfaction beyond 0.25 by cluster, fading; squared where it is used."""
        self.heat = np.zeros(known.n_items, np.float32)
        self.learned, self.day = 0, 0

    def learn(self, log: Logged, today: int) -> None:
        new = slice(self.learned, len(log))
        fade = np.float32(FADE) ** (today - self.day)
        self.liked *= fade
        age = np.float32(FADE) ** (today - log.day[new]).astype(np.float32)
        joy = np.maximum(log.satisfaction[new] - np.float32(0.25), 0)
        np.add.at(self.liked, (log.user[new], self.known.cluster[log.item[new]]), joy * age)
        self.heat += np.bincount(log.item[new], log.satisfaction[new], len(self.heat)).astype(np.float32)
        self.learned, self.day = len(log), today

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        item = _left(asked)
        liked = np.log(self.liked[asked.user] + np.float32(1e-3))[:, self.known.cluster[item]]
        return _drawn(asked, item, 2 * liked + np.float32(0.5) * np.log1p(self.heat[item]), k, rng)


@dataclass(slots=True)
class Together:
    """Items watched around the same items: co-occurrence within a few events, over the root of popularity."""

    known: Known
    near: sparse.csr_array | None = None
    made: int = 0

    def learn(self, log: Logged, today: int) -> None:
        # Counted anew once a week: an evening's events change little of it.
        if self.near is not None and today - self.made < 7:
            return
        order, _ = by_user(log)
        user, item, joy = log.user[order], log.item[order], log.satisfaction[order]
        n = self.known.n_items
        total = sparse.csr_array((n, n), dtype=np.float32)
        for apart in range(1, NEIGHBOURS + 1):
            a, b = slice(None, -apart), slice(apart, None)
            both = (user[a] == user[b]) & (joy[a] >= self.known.positive) & (joy[b] >= self.known.positive)
            one, other = item[a][both], item[b][both]
            total += sparse.csr_array((np.ones(len(one), np.float32), (one, other)), shape=(n, n))
        root = 1 / np.sqrt(1 + np.bincount(log.item, minlength=n))
        self.near = sparse.csr_array((total + total.T).multiply(root[None, :]).astype(np.float32))
        self.made = today

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        assert self.near is not None
        last = asked.history[:, -10:]
        good = (last > 0) & (asked.satisfaction[:, -10:] >= self.known.positive)
        row = np.repeat(np.arange(len(asked)), good.sum(1))
        picked = sparse.csr_array(
            (np.ones(len(row), np.float32), (row, last[good] - 1)), shape=(len(asked), self.known.n_items)
        )
        item = _left(asked)
        scores = np.asarray(sparse.csr_array(picked @ self.near).todense())[:, item]
        return _best(asked, item, np.where(scores <= 0, np.float32(-np.inf), scores), k)


class Popular:
    """What pleased most people lately, drawn in proportion."""

    def __init__(self, known: Known):
        self.heat = np.zeros(known.n_items, np.float32)
        self.learned, self.day = 0, 0

    def learn(self, log: Logged, today: int) -> None:
        new = slice(self.learned, len(log))
        self.heat *= np.float32(FADE) ** (today - self.day)
        weight = log.satisfaction[new] * np.float32(FADE) ** (today - log.day[new]).astype(np.float32)
        self.heat += np.bincount(log.item[new], weight, len(self.heat)).astype(np.float32)
        self.learned, self.day = len(log), today

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        item = _left(asked)
        return _drawn(asked, item, np.log(self.heat[item] + np.float32(0.1))[None, :], k, rng)


def _left(asked: Asked) -> Ints:
    """Items that somebody who asks can still be shown."""
    return np.flatnonzero(~asked.seen.all(axis=0))


def _drawn(asked: Asked, item: Ints, logit: Floats, k: int, rng: np.random.Generator) -> Ints:
    """k of the items for each user, without replacement, in proportion to exp `logit` [B or 1, items] (Gumbel)."""
    # -log of an exponential number is a Gumbel number; these come in float32.
    chance = rng.standard_exponential((len(asked), len(item)), dtype=np.float32)
    return _best(asked, item, logit - np.log(np.maximum(chance, np.finfo(np.float32).tiny)), k)


def _best(asked: Asked, item: Ints, scores: Floats, k: int) -> Ints:
    """The k best of the items for each user, by `scores` [B, items]."""
    found = best(np.where(asked.seen[:, item], np.float32(-np.inf), scores), k)
    return np.where(found == NONE, NONE, item[found]) if len(item) else found


@dataclass(slots=True)
class PlatformState:
    """What the log says of every user and item by now; written in place, event by event."""

    history: Ints
    """[U, H] item indexes + 1, the most recent last."""
    felt: Floats
    """[U, H]"""
    when: Ints
    """[U, H] days."""
    seen: Flags
    """[U, N]"""
    count: Floats
    """[U, M] events by cluster."""
    joy: Floats
    """[U, M] satisfaction by cluster, summed."""
    load: Floats
    """[U, M] events by cluster lately."""
    plays: Floats
    """[N]"""
    satisfaction_sum: Floats
    """[N]"""
    taste: Floats
    """[U, w] content watched, weighted by how much better or worse than 0.3 it pleased."""

    @classmethod
    def of(cls, known: Known, log: Logged, missing: Flags) -> "PlatformState":
        """The state of a whole log; `missing` [N] or [U, N] counts as seen."""
        shape = (log.n_users, known.n_clusters)
        cluster = known.cluster[log.item]
        order, edge = by_user(log)
        row = edge[1:, None] - np.arange(HISTORY, 0, -1)
        inside = row >= edge[:-1, None]
        # One row more, of zeros, for the places before somebody's first event.
        at = np.append(order, len(log))[np.where(inside, row, len(log))]
        seen = np.broadcast_to(missing, (log.n_users, known.n_items)).copy()
        seen[log.user, log.item] = True
        pair = log.user * known.n_clusters + cluster
        size = shape[0] * shape[1]

        def summed(weight: NDArray[np.floating] | None) -> Floats:
            return np.bincount(pair, weight, size).reshape(shape).astype(np.float32)

        today = int(log.day.max(initial=-1)) + 1
        push = sparse.csr_array(
            (log.satisfaction - np.float32(0.3), (log.user, log.item)), shape=(log.n_users, known.n_items)
        )
        return cls(
            history=np.append(log.item + 1, 0)[at],
            felt=np.append(log.satisfaction, np.float32(0))[at],
            when=np.append(log.day, 0)[at],
            seen=seen,
            count=summed(None),
            joy=summed(log.satisfaction),
            load=summed(REST ** (today - log.day)),
            plays=np.bincount(log.item, minlength=known.n_items).astype(np.float32),
            satisfaction_sum=np.bincount(log.item, log.satisfaction, known.n_items).astype(np.float32),
            taste=np.asarray(push @ known.vectors, np.float32),
        )

    def add(self, known: Known, user: Ints, item: Ints, satisfaction: Floats, day: int) -> None:
        """One event each of unique users."""
        cluster = known.cluster[item]
        for table, value in ((self.history, item + 1), (self.felt, satisfaction), (self.when, day)):
            table[user, :-1] = table[user, 1:]
            table[user, -1] = value
        self.seen[user, item] = True
        self.count[user, cluster] += 1
        self.joy[user, cluster] += satisfaction
        self.load[user, cluster] += 1
        np.add.at(self.plays, item, 1)
        np.add.at(self.satisfaction_sum, item, satisfaction)
        self.taste[user] += (satisfaction - np.float32(0.3))[:, None] * known.vectors[item]

    def night(self) -> None:
        """Events of the day count less tomorrow."""
        self.load *= np.float32(REST)

    def features(self, known: Known, user: Ints, item_BC: Ints) -> Floats:
        """[B, C, F]: what the ranker sees of users [B] and items."""
        cluster = known.cluster[item_BC]
        rows = user[:, None]
        n, joy = self.count[user].sum(1), self.joy[user].sum(1)
        mean = ((joy + 2) / (n + 4))[:, None]
        count = self.count[rows, cluster]
        own = (self.joy[rows, cluster] + 2 * mean) / (count + 2)
        item = (self.satisfaction_sum[item_BC] + 2) / (self.plays[item_BC] + 4)
        length = np.maximum(np.linalg.norm(self.taste[user], axis=1, keepdims=True), 1e-6)
        near = np.einsum("bw,bcw->bc", self.taste[user] / length, known.vectors[item_BC])
        found = [
            np.ones_like(own),
            np.broadcast_to(mean, own.shape),
            own,
            item,
            np.log1p(count),
            (count == 0).astype(np.float32),
            1 - np.exp(-self.load[rows, cluster] / 6),
            np.log1p(self.plays[item_BC]),
            near,
        ]
        return np.stack(found, axis=-1).astype(np.float32)


@dataclass(slots=True)
class Ranker:
    """Ridge regression from the sums that it needs; a night adds to them."""

    gram: NDArray[np.float64]
    moment: NDArray[np.float64]

    @classmethod
    def of(cls, known: Known, log: Logged, missing: Flags) -> "Ranker":
        """Learned on the last days of the log, from features as they were before these days."""
        ranker = cls(np.eye(FEATURES), np.zeros(FEATURES))
        late = log.day >= -HELD
        liked = log.satisfaction[late]
        # A log of positives alone says nothing of what displeases; the first nights will.
        if not len(liked) or liked.min() >= known.positive:
            return ranker
        past = Logged(log.user[~late], log.item[~late], log.satisfaction[~late], log.day[~late], log.n_users)
        state = PlatformState.of(known, past, missing)
        ranker.add(state.features(known, log.user[late], log.item[late][:, None])[:, 0], liked)
        return ranker

    def add(self, features_NF: Floats, satisfaction: Floats) -> None:
        x = features_NF.astype(np.float64)
        self.gram += x.T @ x
        self.moment += x.T @ satisfaction

    def weights(self) -> Floats:
        """[F]"""
        return np.linalg.solve(self.gram, self.moment).astype(np.float32)
