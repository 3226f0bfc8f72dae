"""Sources that know the whole person: the planner as it is served, and EASE as anybody would write it in an hour.

Both read all that the log says of somebody, learn their linear models anew every so many days, and show only
interests that the person never met. Beside them what takes two minutes: what most people liked.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import sparse

from byway.base import config
from byway.base.artifact import write_atomic
from byway.items import ease
from byway.planner import fit, page
from byway.planner.planner import Asker, Planner, item_stats
from byway.simulation.neural import Encoded
from byway.simulation.source import Asked, Floats, Ints, Known, Logged, best, by_user, open_clusters
from byway.transitions.table import Table


@dataclass(slots=True)
class PublishedEase:
    """A grounding by EASE as published: what was liked, the whole matrix, λ = 200."""

    known: Known
    folder: Path
    """Where the weights of the log before the first day are kept: they are the same for every deal."""
    every: int = 10
    weights: Floats | None = None
    liked: sparse.csr_array = field(init=False)

    def learn(self, log: Logged, today: int) -> None:
        good = log.satisfaction >= self.known.positive
        shape = log.n_users, self.known.n_items
        self.liked = ease.interaction_matrix(log.user[good], log.item[good], np.ones(int(good.sum())), shape)
        path = self.folder / "ease.npy"
        if today == 0 and path.exists():
            self.weights = np.load(path)
        elif self.weights is None or (self.every and today % self.every == 0):
            self.weights = ease.solve(self.liked, fit.RIDGE)
            if today == 0:
                buffer = io.BytesIO()
                np.save(buffer, self.weights)
                write_atomic(path, buffer.getvalue())

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        return np.asarray(self.liked[asked.user] @ self.weights, np.float32)


@dataclass(slots=True)
class MostLiked:
    """A grounding by how many liked an item, counted anew every night."""

    known: Known
    likes: Floats = field(init=False)

    def learn(self, log: Logged, today: int) -> None:
        good = log.item[log.satisfaction >= self.known.positive]
        self.likes = np.bincount(good, minlength=self.known.n_items).astype(np.float32)

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        return np.broadcast_to(self.likes, asked.seen.shape)


@dataclass(slots=True)
class Personal:
    """The planner: the same scores and the same pages as `serving.recommend` makes."""

    known: Known
    planned: fit.FittedPlanner
    leaf: Ints
    """[N] finest cluster of each item."""
    table: Table
    encoder: Encoded
    bundle: config.Bundle
    """How a page is made."""
    every: int = 10
    planner: Planner | None = None
    log: Logged = field(init=False)
    order: Ints = field(init=False)
    """Rows of the log, user by user."""
    edge: Ints = field(init=False)
    """[U + 1] where each user's rows start in `order`."""

    def learn(self, log: Logged, today: int) -> None:
        self.encoder.learn(log, today)
        self.log = log
        self.order, self.edge = by_user(log)
        if self.planner is None or (self.every and today % self.every == 0):
            self.planner = self._planner(log)

    def _planner(self, log: Logged) -> Planner:
        traffic, quality = item_stats(log.item, log.satisfaction, self.known.n_items)
        leaf = self.leaf.astype(np.int32)
        every = np.ones(len(log), np.bool_)
        solved = self.planned.leaves, self.planned.items
        if self.planner is not None:  # before the first day the log is the one that it was fitted on
            solved = fit.linear(log, every, leaf, self.planned.unit, self.planned.fitted)
        return Planner(
            fitted=self.planned.fitted,
            unit=self.planned.unit,
            items=solved[1],
            leaf=leaf,
            leaves=solved[0],
            cluster=self.known.cluster.astype(np.int32),
            vectors=self.encoder.vectors().copy(),
            content=np.asarray(self.planned.content),
            popularity=np.log1p(traffic),
            quality=quality,
        )

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        assert self.planner is not None
        planner, M = self.planner, self.known.n_clusters
        young, again = self.bundle.young_days, self.bundle.again_days
        opened = open_clusters(self.known, asked, not (young or again))
        states = self.encoder.states(asked.history)
        scores = np.full(asked.seen.shape, -np.inf, np.float32)
        for i, user in enumerate(asked.user.tolist()):
            rows = self.order[self.edge[user] : self.edge[user + 1]]
            item, liked, day = self.log.item[rows], self.log.satisfaction[rows], self.log.day[rows]
            own = self.known.cluster[item]
            kept = opened[i]
            if young or again:
                pleased = liked >= self.known.positive
                kept = kept & page.offered(own, day, pleased, M, asked.today, young=young, again=again)
            recent = day > asked.today - self.bundle.days
            shares = fit.shares_of(self.table, own, liked, recent, M) if self._plans() else {}
            asker = Asker(item, planner.fitted.values(liked), states[i], shares)
            barred = asked.seen[i] | ~kept[self.known.cluster]
            score = planner.in_order(np.where(barred, np.float32(-np.inf), planner.scores(asker)), asker)
            if self.bundle.skip:
                kept = page.kept(kept, self.bundle.skip, rng)
                score = np.where(kept[self.known.cluster], score, np.float32(-np.inf))
            if self.bundle.new_interests:
                score = page.within(score, self.known.cluster, M, self.bundle.new_interests)
            scores[i] = score
        return best(scores, k)

    def _plans(self) -> bool:
        weights = self.planned.fitted.weights
        return bool(weights.get("table") or weights.get("language_model"))
