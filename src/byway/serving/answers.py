"""What is replied: items with their reasons, and what fills a page beside new interests."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.items.restrict import top_in_slice
from byway.serving.bundle import Bundle
from byway.serving.messages import Strategy
from byway.serving.person import Person, shares

ITEMS = 10
"""Items in an answer where the request does not say."""
SCORE_DIGITS, PROPENSITY_DIGITS = 6, 9
"""After the point, as they are replied."""

KNOWN = 8
"""Most recent interests from which the places that do not explore are filled: it bounds the slices read."""

FoundBy = Strategy | Literal["known", "usual"]
"""How one item was found: by the answer's strategy; in a place that does not explore, as the item policy's choice
among the interests that the person has (`known`); or by a recommender that never explores (`usual`, for
comparing)."""


class Shown(msgspec.Struct, frozen=True):
    """One recommended item."""

    item: str
    title: str
    cluster: str
    score: float
    """The planner's where this was found by `person`, traffic where by `popular_items`, else the item policy's."""
    found_by: FoundBy
    propensity: float
    """Probability that this request is answered with this item."""
    thumbnail: str = ""
    """Address or path of a picture, where the catalog has one."""


class Answer(msgspec.Struct, frozen=True):
    """The items and why they were chosen."""

    items: list[Shown]
    strategy: Strategy
    interests: list[str] = []
    """Descriptions of the interests that led there: those that were drawn, the most recent last, or those of the
    items that say most for the first one shown."""
    cluster: str | None = None
    """Description of the novel cluster, where one was chosen; of several, that of the first item."""
    rank: int | None = None
    """Place of the cluster in the pair's ranking, from 1; None where no pair was drawn."""
    reasons: list[str] = []


def as_shown(
    bundle: Bundle,
    positions: NDArray[Any],
    scores: NDArray[Any],
    found_by: FoundBy,
    chances: list[float] | None = None,
) -> list[Shown]:
    """Items at these positions as they are replied; without `chances` each is certain."""
    names, chances = bundle.manifest.names, [1.0] * len(positions) if chances is None else chances
    return [
        Shown(
            item=bundle.ids[p],
            title=bundle.titles[p],
            cluster=names[bundle.cluster(p)],
            score=round(s, SCORE_DIGITS),
            found_by=found_by,
            propensity=round(c, PROPENSITY_DIGITS),
            thumbnail=bundle.thumbnails[p],
        )
        for p, s, c in zip(positions.tolist(), scores.tolist(), chances, strict=True)
    ]


def best(
    bundle: Bundle, person: Person, user: NDArray[np.float32], k: int, cluster: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The item policy's k best of what a person may be shown of a cluster, or of the catalog: positions, scores.

    `user` [d] is the policy's vector of the history.
    """
    start, stop = (0, len(bundle.ids)) if cluster is None else bundle.span(cluster)
    return top_in_slice(bundle.vectors, user, start, stop, k, exclude=person.barred(start, stop))


def popular(bundle: Bundle, person: Person, k: int, reasons: list[str]) -> Answer:
    """What somebody is shown of whom nothing is known."""
    reasons.append("There is no history to start from, so these are popular items, one an interest.")
    shown = as_shown(bundle, *popular_items(bundle, k, person), "popular_items")
    return Answer(shown, "popular_items", reasons=reasons)


def popular_items(bundle: Bundle, k: int, person: Person) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The item with most traffic of each of the k clusters that hold the most popular items: positions, traffic."""
    found: list[tuple[float, int]] = []
    for start, stop in pairwise(bundle.starts.tolist()):
        traffic = np.array(bundle.traffic[start:stop])
        barred = person.barred(start, stop)
        traffic[barred[(barred >= start) & (barred < stop)] - start] = -1
        if (top := float(traffic.max(initial=-1))) >= 0:
            found.append((top, start + int(traffic.argmax())))
    found = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]
    return np.array([p for _, p in found], dtype=np.int64), np.array([t for t, _ in found])


@dataclass(frozen=True, slots=True)
class Places:
    """How many of the k places of an answer explore."""

    k: int
    whole: int
    """Those that explore in every answer to the request."""
    part: float
    """The chance that one more does."""
    explore: int
    """Those that explore in this answer."""

    @classmethod
    def drawn(cls, k: int, mix: float, rng: np.random.Generator) -> "Places":
        """Draw whether one more explores, where k times the `mix` is no whole number."""
        whole = math.floor(k * mix)
        part = k * mix - whole
        return cls(k, whole, part, whole + int(part > 0 and rng.random() < part))

    def chance(self, rank: int, explores: bool) -> float:
        """The chance that the item of a rank (from 0) has a place of its kind."""
        if explores:
            return 1.0 if rank < self.whole else self.part
        left = self.k - self.whole
        return 1.0 if rank < left - 1 or (rank < left and self.part == 0) else 1.0 - self.part


def from_known(
    bundle: Bundle,
    person: Person,
    user: NDArray[np.float32],
    places: Places,
    *,
    explored: NDArray[np.bool_],
    reasons: list[str],
) -> list[Shown]:
    """The item policy's best among the most recent interests, in the places that do not explore.

    None is of the interests [M] that the other places may hold, so that nothing is shown twice.
    """
    count = places.k - places.explore
    if not count:
        return []
    more = f"{count} more places do not explore" if count > 1 else "One more place does not explore"
    more = more if places.explore else "No place explores"
    reasons.append(f"{more}; there stands what fits the interests already known.")
    clusters = [cluster for cluster in shares(bundle, person) if not explored[cluster]][-KNOWN:]
    if person.context is not None and person.context not in clusters:
        clusters.append(person.context)
    found: list[tuple[float, int]] = []
    for cluster in clusters:
        positions, scores = best(bundle, person, user, count, cluster)
        found += zip((-scores).tolist(), positions.tolist(), strict=True)
    found = sorted(found)[:count]
    positions, scores = np.array([p for _, p in found], dtype=np.int64), np.array([-s for s, _ in found])
    return as_shown(bundle, positions, scores, "known", [places.chance(r, False) for r in range(len(found))])


def mixed(explore: list[Shown], known: list[Shown]) -> list[Shown]:
    """Both lists in one, each spread evenly over it."""
    placed = [((i + 0.5) / len(some), some[i]) for some in (explore, known) for i in range(len(some))]
    return [shown for _, shown in sorted(placed, key=lambda pair: pair[0])]
