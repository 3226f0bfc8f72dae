"""Sources that choose a cluster first and items second (paper 1, figure 1), and their placebos.

A plan is a choice of one cluster a user; grounding is a score of every item a user. `Planned` joins the two: the
items of the chosen cluster, best first. Who plans by a table, by chance or by a bandit, and who grounds by the
restricted item policy or by keywords, differs in one argument only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from byway.simulation.source import NONE, Asked, Flags, Floats, Ints, Known, Logged, best, open_clusters

DAYS = 30
"""Of history from which interests are drawn."""
REFRESH = 7
"""Days after which a table that can be refreshed is."""
NOBODY = np.empty(0, np.int32)
"""A ranking of no cluster."""
Ranking = Callable[[Ints], NDArray[np.int32]]
"""From contexts [B, K], the most recent interest last, to the next novel clusters [B, n], best first, then NONE."""


class Plan(Protocol):
    """Chooses a cluster for each user."""

    def learn(self, log: Logged, today: int) -> None:
        """Nothing, where a plan does not say otherwise."""

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        """[B] one of the open clusters, NONE where there is none."""
        ...


class Grounding(Protocol):
    """Scores items for each user."""

    def learn(self, log: Logged, today: int) -> None: ...

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        """[B, N]; -inf for what is not to be shown at all."""
        ...


@dataclass(slots=True)
class Planned:
    """A plan, then the items of the chosen cluster."""

    known: Known
    plan: Plan
    ground: Grounding
    novel: bool = True
    """Whether the plan may only choose clusters that the user never met."""
    inside: bool = True
    """Whether items outside the chosen cluster are out: the restriction of paper 1, section 2.2."""

    def learn(self, log: Logged, today: int) -> None:
        # A plan may stand on the states of the encoder that grounds, as it is after today's training.
        self.ground.learn(log, today)
        self.plan.learn(log, today)

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        chosen = self.plan.choose(asked, open_clusters(self.known, asked, self.novel), rng)
        scores = self.ground.scores(asked, chosen)
        out = asked.seen | (chosen == NONE)[:, None]
        if self.inside:
            out |= self.known.cluster != chosen[:, None]
        return best(np.where(out, np.float32(-np.inf), scores), k)


@dataclass(slots=True)
class RandomCluster(Plan):
    """Placebo: any open cluster, all with the same chance."""

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        draw = np.where(open_BM, rng.random(open_BM.shape), -1.0)
        return np.where(open_BM.any(1), draw.argmax(1), NONE)


@dataclass(slots=True)
class Tabled:
    """Byway's plan: recent interests, and the first open cluster in their ranking (paper 1, section 2.2).

    The same rule as `serving.recommend`, for many users at once: interests are drawn from the items of the last
    `DAYS` days by satisfaction; where no open cluster is in the ranking, the one most people turned to.
    """

    known: Known
    ranking: Ranking
    popularity: NDArray[np.int32]
    """[M] clusters by how often people turned to them, most often first."""
    interests: int = 2
    """How many are drawn."""
    depth: int | None = None
    """Answers of a ranking that are read; None: all. Tables that are compared are read equally deep."""
    refresh: Callable[[Logged], Ranking] | None = None
    """Makes the ranking of the log as it stands; None: the table stands as it was made."""

    def learn(self, log: Logged, today: int) -> None:
        if self.refresh is not None and today > 0 and today % REFRESH == 0:
            self.ranking = self.refresh(log)

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        context = draw_interests(self.known, asked, rng, self.interests)
        somebody = context[:, 0] != NONE
        listed = np.where(somebody[:, None], self.ranking(np.maximum(context, 0))[:, : self.depth], NONE)
        return first_open(listed, self.popularity, open_BM)


@dataclass(slots=True)
class Stored(Plan):
    """Paper 1's plan as printed (section 2.2): the pair's one stored answer, the language model's first.

    Two interests are drawn as `Tabled` draws them (footnote 2). Nothing is asked of the answer but that it is
    neither of the two; the user may know it. Where it has no item left there is no other.
    """

    known: Known
    ranking: Ranking

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        context = draw_interests(self.known, asked, rng)
        answer = self.ranking(np.maximum(context, 0))[:, 0].astype(np.int64)
        left = (context[:, 0] != NONE) & (answer != NONE) & (answer[:, None] != context).all(1)
        return np.where(left & open_BM[np.arange(len(answer)), answer], answer, NONE)


@dataclass(slots=True)
class Watching(Plan):
    """The multimodal plan: the item watched last, and the first open cluster in its ranking (paper 2, section 2).

    The same rule as `serving.context`: where no open cluster is in the ranking, nothing is chosen.
    """

    ranking: NDArray[np.int32]
    """[N, n] serendipitous clusters of each item, best first, NONE where none is left."""

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        watched = asked.history[:, -1] - 1
        ranking = np.where((watched == NONE)[:, None], NONE, self.ranking[watched])
        return first_open(ranking, NOBODY, open_BM)


def first_open(ranking_Bn: NDArray[np.int32], popularity_M: NDArray[np.int32], open_BM: Flags) -> Ints:
    """[B] the first open cluster of each ranking, else of all by popularity; NONE where no cluster is open."""
    ranking = np.concatenate([ranking_Bn, np.tile(popularity_M, (len(ranking_Bn), 1))], axis=1)
    usable = (ranking != NONE) & np.take_along_axis(open_BM, np.maximum(ranking, 0), 1)
    first = np.take_along_axis(ranking, usable.argmax(1)[:, None], 1)[:, 0]
    return np.where(usable.any(1), first, NONE).astype(np.int64)


def draw_interests(known: Known, asked: Asked, rng: np.random.Generator, n: int = 2) -> Ints:
    """[B, n] different clusters of each history, drawn by the satisfaction of their items, the most recent last.

    Where there are fewer the oldest stands in for those that miss; a user without history has NONE. Without
    anything in the last `DAYS` days the whole history counts. Drawing items without replacement in proportion to
    weight is ranking by log weight + Gumbel noise.
    """
    there = asked.history > 0
    recent = there & (asked.day > asked.today - DAYS)
    counts = np.where(recent.any(1, keepdims=True), recent, there)
    cluster = np.where(there, known.cluster[np.maximum(asked.history - 1, 0)], NONE)
    key = np.log(np.maximum(asked.satisfaction, 1e-6)) + rng.gumbel(size=cluster.shape)
    key = np.where(counts, key, -np.inf)
    place = np.arange(cluster.shape[1])
    drawn: list[Ints] = []
    last: list[Ints] = []
    for _ in range(n):
        left = (key > -np.inf).any(1)
        drawn.append(np.where(left, cluster[np.arange(len(asked)), key.argmax(1)], NONE))
        of_it = cluster == drawn[-1][:, None]
        last.append(np.where(counts & of_it, place, -1).max(1))
        key = np.where(of_it, -np.inf, key)
    in_turn = np.take_along_axis(np.stack(drawn, 1), np.stack(last, 1).argsort(1, kind="stable"), 1)
    oldest = np.minimum((in_turn == NONE).sum(1, keepdims=True), n - 1)
    return np.where(in_turn == NONE, np.take_along_axis(in_turn, oldest, 1), in_turn)


class Keywords:
    """Grounding by search: the description of the chosen cluster as a query over the titles, by TF-IDF cosine.

    The straightforward way that paper 1 sets aside (section 2.2): what the words match need not be of the
    interest, and knows nothing of the user. Items that share no word with the query are out.
    """

    def __init__(self, titles: Sequence[str], descriptions: Sequence[str]):
        words = TfidfVectorizer(lowercase=True, token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        indexed = words.fit_transform([*titles, *descriptions])
        found = indexed[len(titles) :] @ indexed[: len(titles)].T
        self.match_MN: Floats = np.asarray(found.todense(), np.float32)

    def learn(self, log: Logged, today: int) -> None:
        """Nothing is learned."""

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        found = self.match_MN[np.maximum(chosen, 0)]
        return np.where(found > 0, found, np.float32(-np.inf))


@dataclass(slots=True)
class Scored:
    """A source without a plan: the best of all items by a grounding's own score, or of all in new clusters."""

    ground: Grounding
    hides: Known | None = None
    """Where it is given, clusters that the user has met are hidden."""

    def learn(self, log: Logged, today: int) -> None:
        self.ground.learn(log, today)

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        scores = self.ground.scores(asked, np.full(len(asked), NONE))
        out = asked.seen
        if self.hides is not None:
            out = out | ~open_clusters(self.hides, asked, True)[:, self.hides.cluster]
        return best(np.where(out, np.float32(-np.inf), scores), k)
