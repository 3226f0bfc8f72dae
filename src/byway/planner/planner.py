"""Who gets which new interest: one score of every item for a person, the sum of named signals by fitted weights.

The signals are what the log says of the whole person (`ease`, over items; `ease_leaves`, over the tree's finest
clusters), the item policy's score, what the table and the language model's own ranking say of the item's interest,
averaged over every pair of interests that could be drawn, the likeness of contents, popularity and quality. Weights
are fitted by `fit`. Scores are comparable within one request, and say nothing across requests. This module knows
items by row and clusters by number, and needs numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base.ranking import top
from byway.items.ease import SparseMatrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ENOUGH = 50
"""How many items are the best, so far and of all."""
RUN = 16
"""Rows that follow each other from which a slice is faster than a copy."""

SIGNALS: dict[str, str] = {
    "ease": "people who liked the same items",
    "ease_leaves": "people who liked the same kinds of items",
    "item_policy": "the sequence of what was watched lately",
    "table": "what people with two of these interests turn to",
    "language_model": "what the language model expects after two of these interests",
    "similarity": "contents like what was liked",
    "popularity": "how often the item is watched",
    "quality": "how well it pleased those who watched it",
}
"""Every signal, in words that can follow “because of”."""


class PlannerWeights(msgspec.Struct, frozen=True):
    """`fitted.json` of a planner."""

    weights: dict[str, float]
    """Of every signal by name; one that is not named has no part."""
    neutral: float
    """Satisfaction that speaks neither for an item nor against it."""
    scale: float
    """What satisfaction above `neutral` is multiplied by, so that its mean square over the log is 1."""
    lowest: float = 0.0
    """Lowest satisfaction of the log that the linear models learned from."""
    positive: float = 0.5
    """Satisfaction from which an interest has pleased."""
    next_first: bool = False
    """Whether the best items stand in the order of the item policy (`Planner.in_order`)."""

    def values(self, satisfaction: NDArray[np.floating]) -> Floats:
        """What events are worth to the linear signals.

        One that pleased less than anything in the log counts as neutral: a log of positives alone never taught what
        it means that something displeased.
        """
        liked = np.asarray(satisfaction, np.float64)
        return np.where(liked < self.lowest, 0.0, (liked - self.neutral) * self.scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Asker:
    """One person as the signals see them."""

    rows: Ints
    """[h] items of the history."""
    values: Floats
    """[h] what each was worth (`PlannerWeights.values`)."""
    state: Floats
    """[d] the item policy's vector of the history."""
    shares: dict[str, Floats]
    """By `table` and `language_model`, [M]: `draws.reciprocal_rank` of every cluster; missing where not asked."""
    cached: dict[str, Floats] = field(default_factory=dict, compare=False, repr=False)
    """[leaves] what signals say of leaves, since it is asked for twice: to choose them, and of their items."""


@dataclass(frozen=True, slots=True)
class LeafMeans:
    """The leaves that hold items, as they stand in the tree's order, and what the items of each are like."""

    leaf: NDArray[np.int32]
    start: Ints
    stop: Ints
    cluster: NDArray[np.int32]
    largest: Floats
    """[leaves] 2 ln m of a leaf of m items: its root is about the largest of m standard deviations."""
    mean: Floats
    """[leaves, d + w + 2] of vectors, content where it is by item, popularity and quality."""
    variance: Floats
    """[leaves, 4] of each of these, an axis on average; 3 where content is not by item."""
    spoken: Ints
    """Items that have a row of EASE over items, in order."""
    unit: NDArray[np.int32]
    """These rows."""

    def items(self, places: Ints) -> Ints:
        """The items of some leaves, in order."""
        places = np.sort(places)
        start, size = self.start[places], self.stop[places] - self.start[places]
        return np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)


@dataclass(frozen=True, slots=True)
class Planner:
    """All that scores n items, by row."""

    fitted: PlannerWeights
    unit: NDArray[np.int32]
    """[n] row of `items` that speaks for an item: its own, for one that came later that of the most similar; -1 for
    one that is watched too little to have one."""
    items: SparseMatrix | None
    """EASE over the items that are watched most; None where no item has a row."""
    leaf: NDArray[np.int32]
    """[n] finest cluster of each item."""
    leaves: SparseMatrix
    """EASE over the finest clusters."""
    cluster: NDArray[np.int32]
    """[n] cluster of the planning level."""
    vectors: Floats
    """[n, d] of the item policy."""
    content: Floats
    """[n, w] unit rows, or [leaves, w] where there are too many items: those of a leaf are alike."""
    popularity: Floats
    """[n] log(1 + events)."""
    quality: Floats
    """[n] mean satisfaction, drawn towards that of all."""
    cached_means: list[LeafMeans] = field(default_factory=list, compare=False, repr=False)
    """At most one, made when a search needs it first (`search.means_of`)."""

    def signals(self, asker: Asker, rows: Ints | None = None) -> dict[str, Callable[[], Floats]]:
        """What each signal says of the items, or of those in `rows` alone, when it is called: [n] or [rows]."""
        some = slice(None) if rows is None else rows

        def ease() -> Floats:
            return np.append(self.of_units(asker), np.float32(0))[self.unit[some]]

        found: dict[str, Callable[[], Floats]] = {} if self.items is None else {"ease": ease}
        for name, share in asker.shares.items():
            found[name] = lambda share=share: share[self.cluster[some]]
        return found | {
            "ease_leaves": lambda: self.of_leaves(asker)[self.leaf[some]],
            "item_policy": lambda: product(self.vectors, asker.state, rows),
            "similarity": lambda: (
                self.likeness(asker)[self.leaf[some]]
                if self.content_of_leaves
                else product(self.content, self.taste(asker), rows)
            ),
            "popularity": lambda: self.popularity[some],
            "quality": lambda: self.quality[some],
        }

    def scores(self, asker: Asker, rows: Ints | None = None) -> Floats:
        """[n], or [rows] for these alone."""
        return total(self.parts(asker, rows), len(self.cluster) if rows is None else len(rows))

    def in_order(self, score: Floats, asker: Asker, rows: Ints | None = None) -> Floats:
        """The scores of all items or of these rows, with those of the ENOUGH best dealt out anew among them: the
        highest to what the item policy expects next. Unchanged where `next_first` is not set."""
        if not self.fitted.next_first:
            return score
        best = top(score, ENOUGH)
        expected = product(self.vectors, asker.state, best if rows is None else rows[best])
        dealt = score.copy()
        dealt[best[np.argsort(-expected, kind="stable")]] = score[best]
        return dealt

    def parts(self, asker: Asker, rows: Ints | None = None) -> dict[str, Floats]:
        """What each signal that has a weight adds to the scores."""
        weights, said = self.fitted.weights, self.signals(asker, rows)
        return {name: np.float32(weights[name]) * said[name]() for name in said if weights.get(name)}

    def of_units(self, asker: Asker) -> Floats:
        """[units] what EASE over items says of each."""
        assert self.items is not None
        if "ease" not in asker.cached:
            asker.cached["ease"] = self.items.scores(*by_unit(self.unit[asker.rows], asker.values))
        return asker.cached["ease"]

    def of_leaves(self, asker: Asker) -> Floats:
        """[leaves] what EASE over the finest clusters says of each."""
        if "ease_leaves" not in asker.cached:
            units, values = by_unit(self.leaf[asker.rows], asker.values)
            asker.cached["ease_leaves"] = self.leaves.scores(units, values)
        return asker.cached["ease_leaves"]

    @property
    def content_of_leaves(self) -> bool:
        """Whether contents are those of leaves and not of items."""
        return len(self.content) == self.leaves.n < len(self.leaf)

    def likeness(self, asker: Asker) -> Floats:
        """[leaves] of contents, where these are those of leaves."""
        if "similarity" not in asker.cached:
            asker.cached["similarity"] = self.content @ self.taste(asker)
        return asker.cached["similarity"]

    def taste(self, asker: Asker) -> Floats:
        """[w] unit vector of the contents that pleased, less those that did not; 0 without a history."""
        total = asker.values @ self.content[self.leaf[asker.rows] if self.content_of_leaves else asker.rows]
        return total / max(float(np.linalg.norm(total)), 1e-6)

    def because(self, asker: Asker, row: int, most: int = 2) -> list[int]:
        """Places in the history of the different items that pleased and say most for an item, by EASE; fewer where
        fewer do."""
        weights, unit = self.leaves, self.leaf
        if self.items is not None and self.unit[row] >= 0:
            weights, unit = self.items, self.unit
        own = unit[asker.rows]
        said = np.where(weights.to[own] == unit[row], weights.weight[own], 0).sum(1)
        said = said * np.maximum(asker.values, 0) * (own >= 0)
        order = np.argsort(-said, kind="stable")
        first = np.unique(asker.rows[order], return_index=True)[1]
        best = order[np.sort(first)[:most]]
        return best[said[best] > 0].tolist()


def item_stats(item: NDArray[np.integer], satisfaction: Floats, n: int) -> tuple[Floats, Floats]:
    """[n] events of each item, and mean satisfaction drawn towards that of all as by ten events."""
    traffic = np.bincount(item, minlength=n).astype(np.float32)
    mean = float(satisfaction.mean()) if len(satisfaction) else 0.0
    liked = np.bincount(item, satisfaction, n)
    return traffic, ((liked + 10 * mean) / (traffic + 10)).astype(np.float32)


def product(array_nd: Floats, vector_d: Floats, rows: Ints | None) -> Floats:
    """`array_nd[rows] @ vector_d`, without a copy of the rows where they follow each other in long runs."""
    if rows is None:
        return array_nd @ vector_d
    edge = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = np.concatenate([[0], edge, [len(rows)]])
    long = np.diff(bounds) >= RUN
    found = np.empty(len(rows), np.float32)
    first, last = bounds[:-1][long], bounds[1:][long]
    for a, b, start in zip(first.tolist(), last.tolist(), rows[first].tolist(), strict=True):
        found[a:b] = array_nd[start : start + b - a] @ vector_d
    apart = np.repeat(~long, np.diff(bounds))
    if apart.any():
        found[apart] = array_nd[rows[apart]] @ vector_d
    return found


def total(parts: dict[str, Floats], n: int) -> Floats:
    """[n] the scores that these parts add up to."""
    found = np.zeros(n, np.float32)
    for part in parts.values():
        found += part
    return found


def by_unit(units: NDArray[np.integer], values: Floats) -> tuple[Ints, Floats]:
    """The different units and the mean value of each; -1 is none.

    >>> by_unit(np.array([4, 2, 4]), np.array([1, 2, 0], np.float32))[1].tolist()
    [2.0, 0.5]
    """
    there = np.asarray(units) >= 0
    different, at = np.unique(np.asarray(units, np.int64)[there], return_inverse=True)
    values = values[there]
    return different, (np.bincount(at, values) / np.bincount(at)).astype(np.float32)
