"""Who gets which new interest: one score of every item for a person, the sum of named signals by fitted weights.

The signals are what the log says of the whole person (`ease`, over items; `ease_leaves`, over the tree's finest
clusters), the item policy's score, what the table and the language model's own ranking say of the item's interest,
averaged over every pair of interests that could be drawn, the likeness of contents, popularity and quality. Weights
are fitted by `fit`. Scores are comparable within one request, and say nothing across requests. This module knows
items by row and clusters by number, keeps no state, and needs numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.items.ease import Weights

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EXACT = 50_000
"""Items up to which all are scored: about a millisecond on one core."""
LEAVES = 64
"""Leaves whose items are scored where there are more."""

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


class Fitted(msgspec.Struct, frozen=True):
    """`fitted.json` of a planner."""

    weights: dict[str, float]
    """Of every signal by name; one that is not named has no part."""
    neutral: float
    """Satisfaction that speaks neither for an item nor against it."""
    scale: float
    """What satisfaction above `neutral` is multiplied by, so that its mean square over the log is 1."""
    positive: float = 0.5
    """Satisfaction from which an interest has pleased."""

    def values(self, satisfaction: NDArray[np.floating]) -> Floats:
        """What events are worth to the linear signals."""
        return ((np.asarray(satisfaction, np.float64) - self.neutral) * self.scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Asker:
    """One person as the signals see them."""

    rows: Ints
    """[h] items of the history."""
    values: Floats
    """[h] what each was worth (`Fitted.values`)."""
    state: Floats
    """[d] the item policy's vector of the history."""
    shares: dict[str, Floats]
    """By `table` and `language_model`, [M]: `draws.reciprocal_rank` of every cluster; missing where not asked."""


@dataclass(frozen=True, slots=True)
class Planner:
    """All that scores n items, by row."""

    fitted: Fitted
    known: NDArray[np.int32]
    """[n] row of `items` that speaks for an item: its own, or for one that came later that of the most similar."""
    items: Weights | None
    """EASE over items; None where there are too many."""
    leaf: NDArray[np.int32]
    """[n] finest cluster of each item."""
    leaves: Weights
    """EASE over the finest clusters."""
    cluster: NDArray[np.int32]
    """[n] cluster of the planning level."""
    vectors: Floats
    """[n, d] of the item policy."""
    content: Floats
    """[n, w] unit rows."""
    popularity: Floats
    """[n] log(1 + events)."""
    quality: Floats
    """[n] mean satisfaction, drawn towards that of all."""
    kept: list["LeafMeans"] = field(default_factory=list, compare=False, repr=False)

    def signals(self, asker: Asker, rows: Ints | None = None) -> dict[str, Callable[[], Floats]]:
        """What each signal says of the items, or of those in `rows` alone, when it is called: [n] or [rows]."""
        some = slice(None) if rows is None else rows

        def ease() -> Floats:
            assert self.items is not None
            return self.items.scores(*by_unit(self.known[asker.rows], asker.values))[self.known[some]]

        found: dict[str, Callable[[], Floats]] = {} if self.items is None else {"ease": ease}
        for name, share in asker.shares.items():
            found[name] = lambda share=share: share[self.cluster[some]]
        return found | {
            "ease_leaves": lambda: self.leaves.scores(*by_unit(self.leaf[asker.rows], asker.values))[
                self.leaf[some]
            ],
            "item_policy": lambda: self.vectors[some] @ asker.state,
            "similarity": lambda: self.content[some] @ self.taste(asker),
            "popularity": lambda: self.popularity[some],
            "quality": lambda: self.quality[some],
        }

    def candidates(self, asker: Asker, open_M: NDArray[np.bool_]) -> Ints:
        """Items that are worth scoring: all up to EXACT, beyond that those of the best leaves in open clusters.

        A leaf is judged by the mean of its items, which is exact for the mean of their scores, since all signals
        are linear in what an item is.
        """
        n = len(self.cluster)
        if n <= EXACT:
            return np.arange(n)
        mean = self.means()
        score = sum(
            (np.float32(self.fitted.weights[name]) * said() for name, said in self._of_leaves(asker, mean).items()),
            np.zeros(len(mean.start), np.float32),
        )
        score = np.where(open_M[mean.cluster], score, np.float32(-np.inf))
        best = np.argpartition(-score, min(LEAVES, len(score)) - 1)[:LEAVES]
        spans = [np.arange(int(mean.start[leaf]), int(mean.stop[leaf])) for leaf in np.sort(best).tolist()]
        return np.concatenate(spans)

    def means(self) -> "LeafMeans":
        """Made when they are first needed, and kept."""
        if not self.kept:
            self.kept.append(LeafMeans.of(self))
        return self.kept[0]

    def _of_leaves(self, asker: Asker, mean: "LeafMeans") -> dict[str, Callable[[], Floats]]:
        found: dict[str, Callable[[], Floats]] = {
            name: (lambda share=share: share[mean.cluster]) for name, share in asker.shares.items()
        }
        found |= {
            "ease_leaves": lambda: self.leaves.scores(*by_unit(self.leaf[asker.rows], asker.values))[mean.leaf],
            "item_policy": lambda: mean.vectors @ asker.state,
            "similarity": lambda: mean.content @ self.taste(asker),
            "popularity": lambda: mean.popularity,
            "quality": lambda: mean.quality,
        }
        return {name: said for name, said in found.items() if self.fitted.weights.get(name)}

    def scores(self, asker: Asker, rows: Ints | None = None) -> Floats:
        """[n], or [rows] for these alone."""
        parts = self.parts(asker, rows)
        n = len(self.cluster) if rows is None else len(rows)
        return np.asarray(sum(parts.values(), np.zeros(n, np.float32)), np.float32)

    def parts(self, asker: Asker, rows: Ints | None = None) -> dict[str, Floats]:
        """What each signal that has a weight adds to the scores."""
        weights, said = self.fitted.weights, self.signals(asker, rows)
        return {name: np.float32(weights[name]) * said[name]() for name in said if weights.get(name)}

    def taste(self, asker: Asker) -> Floats:
        """[w] unit vector of the contents that pleased, less those that did not; 0 without a history."""
        total = asker.values @ self.content[asker.rows]
        return total / max(float(np.linalg.norm(total)), 1e-6)

    def because(self, asker: Asker, row: int, most: int = 2) -> list[int]:
        """Places in the history of the different items that pleased and say most for an item, by EASE; fewer where
        fewer do."""
        weights, unit = (self.leaves, self.leaf) if self.items is None else (self.items, self.known)
        own = unit[asker.rows]
        said = np.where(weights.to[own] == unit[row], weights.weight[own], 0).sum(1)
        said = said * np.maximum(asker.values, 0)
        order = np.argsort(-said, kind="stable")
        first = np.unique(asker.rows[order], return_index=True)[1]
        best = order[np.sort(first)[:most]]
        return best[said[best] > 0].tolist()


@dataclass(frozen=True, slots=True)
class LeafMeans:
    """The leaves that hold items, as they stand in the tree's order, and the means of what these are."""

    leaf: NDArray[np.int32]
    start: Ints
    stop: Ints
    cluster: NDArray[np.int32]
    vectors: Floats
    content: Floats
    popularity: Floats
    quality: Floats

    @classmethod
    def of(cls, planner: Planner) -> "LeafMeans":
        """Items must stand leaf by leaf, as in a bundle."""
        start = np.flatnonzero(np.diff(planner.leaf, prepend=-1))
        stop = np.append(start[1:], len(planner.leaf))

        def mean(values: Floats) -> Floats:
            size = (stop - start).reshape(-1, *[1] * (values.ndim - 1))
            return (np.add.reduceat(np.asarray(values), start, axis=0) / size).astype(np.float32)

        return cls(
            planner.leaf[start],
            start,
            stop,
            planner.cluster[start],
            mean(planner.vectors),
            mean(planner.content),
            mean(planner.popularity),
            mean(planner.quality),
        )


def by_unit(units: NDArray[np.integer], values: Floats) -> tuple[Ints, Floats]:
    """The different units and the mean value of each.

    >>> by_unit(np.array([4, 2, 4]), np.array([1, 2, 0], np.float32))[1].tolist()
    [2.0, 0.5]
    """
    different, at = np.unique(np.asarray(units, np.int64), return_inverse=True)
    return different, (np.bincount(at, values) / np.bincount(at)).astype(np.float32)
