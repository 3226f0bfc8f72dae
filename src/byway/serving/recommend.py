"""What to answer a person: two past interests, the next novel one, and items inside it, with the reasons.

Pure functions of a bundle, a history and a source of randomness (paper 1, section 2.2). They keep no state and do
no input or output.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from byway.policy.restrict import top_anywhere, top_in_slice
from byway.serving.bundle import Bundle

DAY = 86_400_000_000
"""Microseconds."""

Road = Literal["table", "popular_cluster", "unrestricted", "popular_items", "context"]
"""How the answer was found, from the first choice to the last resort:

`table`: the first cluster in the pair's ranking that is novel to this person and has enough unseen items;
`popular_cluster`: no such cluster in the ranking, so the one most people turned to, with the same two conditions;
`unrestricted`: every cluster is known or used up, so the item policy over the whole catalog;
`popular_items`: nothing is known of the person, so the most popular items, at most one a cluster;
`context`: the item being watched led there (`serving.context`).
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One item of a history."""

    item: str
    time: int | None = None
    """Microseconds since 1970; None where it is not known."""
    satisfaction: float = 1.0
    """In [0, 1]; weighs the draw of interests."""


class Shown(msgspec.Struct, frozen=True):
    """One recommended item."""

    item: str
    title: str
    cluster: str
    score: float
    """Item policy's score; traffic on the road `popular_items`."""


class Answer(msgspec.Struct, frozen=True):
    """The items and why they were chosen."""

    items: list[Shown]
    road: Road
    interests: list[str]
    """Descriptions of the interests that were drawn, the most recent last."""
    cluster: str | None
    """Description of the novel cluster, where one was chosen."""
    rank: int | None
    """Place of the cluster in the pair's ranking, from 1."""
    reasons: list[str]


def recommend(
    bundle: Bundle, history: list[Seen], rng: np.random.Generator, k: int | None = None, now: int | None = None
) -> Answer:
    """Answer a person with this history, the most recent item last.

    `now` is in microseconds; without it, or without times, all of the history counts as recent. What a person has
    consumed at any time is never novel; only the last `bundle.days` days say what they like now.
    """
    k = bundle.knobs.items if k is None else k
    names, reasons = bundle.manifest.names, list[str]()
    known = [(s, p) for s in history if (p := bundle.position(s.item)) is not None]
    if len(known) < len(history):
        unknown = len(history) - len(known)
        reasons.append(f"{unknown} of {len(history)} items in the history are not in the catalog and are ignored.")
    positions = [p for _, p in known]
    seen = np.array(positions, dtype=np.int64)
    consumed = {bundle.cluster(p) for p in positions}
    recent = [(s, p) for s, p in known if _recent(s, now, bundle.knobs.days)]
    if known and not recent:
        reasons.append(f"Nothing in the last {bundle.knobs.days} days, so the whole history counts.")
        recent = known
    if not recent:
        reasons.append("There is no history to start from, so these are popular items, one an interest.")
        return Answer(_popular(bundle, k), "popular_items", [], None, None, reasons)
    drawn = draw(bundle, recent, rng)
    liked = [names[c] for c in drawn]
    if len(drawn) == 1:
        reasons.append(f"One recent interest: “{liked[0]}”.")
        drawn = drawn * 2
    else:
        reasons.append(f"Two recent interests, drawn from the history: “{liked[0]}”, then “{liked[1]}”.")
    user = bundle.encode(positions)
    ranking = [int(c) for c in bundle.table[drawn[0], drawn[1]] if c >= 0]
    chosen, rank = _first_open(bundle, ranking, consumed, positions)
    road: Road = "table"
    if chosen is None:
        reasons.append("Every interest in the ranking of this pair is known already or used up.")
        road = "popular_cluster"
        chosen, rank = _first_open(bundle, bundle.popularity.tolist(), consumed, positions)
    if chosen is None:
        found, scores = top_anywhere(bundle.vectors, user, k, exclude=seen)
        source = "so these items come from the whole catalog" if len(found) else "nor an item to show"
        reasons.append(f"No interest is left to discover, {source}.")
        return Answer(_shown(bundle, found, scores), "unrestricted", liked, None, None, reasons)
    if road == "popular_cluster":
        reasons.append(f"“{names[chosen]}” is the interest most people turn to that is new to this person.")
    elif rank == 1:
        reasons.append(f"People with these interests are most likely to enjoy “{names[chosen]}” next.")
    else:
        reasons.append(
            f"“{names[chosen]}” is number {rank} in the ranking of this pair; those before it are not new to this "
            "person or have no item left to show."
        )
    start, stop = int(bundle.starts[chosen]), int(bundle.starts[chosen + 1])
    found, scores = top_in_slice(bundle.vectors, user, start, stop, k, exclude=seen)
    shown = _shown(bundle, found, scores)
    return Answer(shown, road, liked, names[chosen], rank if road == "table" else None, reasons)


def draw(bundle: Bundle, recent: list[tuple[Seen, int]], rng: np.random.Generator) -> list[int]:
    """Draw items by satisfaction until `bundle.interests` different clusters are found; the most recent last.

    Drawing items without replacement and keeping those of a new cluster is drawing clusters by the satisfaction
    that they gave. An item without satisfaction can still be drawn when nothing else is left.
    """
    weight = np.array([max(s.satisfaction, 1e-6) for s, _ in recent])
    order = rng.choice(len(recent), len(recent), replace=False, p=weight / weight.sum())
    place: dict[int, int] = {}
    for i in order.tolist():
        cluster = bundle.cluster(recent[i][1])
        if cluster in place or len(place) < bundle.knobs.interests:
            place[cluster] = max(i, place.get(cluster, -1))
    return sorted(place, key=lambda c: place[c])


def _recent(seen: Seen, now: int | None, days: int) -> bool:
    return now is None or seen.time is None or seen.time > now - days * DAY


def _first_open(
    bundle: Bundle, ranking: list[int], consumed: set[int], positions: list[int]
) -> tuple[int | None, int | None]:
    """First cluster of the ranking that is novel and has enough unseen items, and its place from 1."""
    seen = np.array(positions)
    for rank, cluster in enumerate(ranking, 1):
        start, stop = int(bundle.starts[cluster]), int(bundle.starts[cluster + 1])
        unseen = stop - start - len(np.unique(seen[(seen >= start) & (seen < stop)]))
        if cluster not in consumed and unseen >= bundle.knobs.min_eligible:
            return cluster, rank
    return None, None


def _popular(bundle: Bundle, k: int) -> list[Shown]:
    """The item with most traffic of each of the k clusters that hold the most popular items."""
    best = [
        (float(bundle.traffic[a:b].max()), a + int(bundle.traffic[a:b].argmax()))
        for a, b in zip(bundle.starts[:-1].tolist(), bundle.starts[1:].tolist(), strict=True)
    ]
    best.sort(key=lambda pair: (-pair[0], pair[1]))
    return _shown(bundle, np.array([p for _, p in best[:k]]), np.array([t for t, _ in best[:k]]))


def _shown(bundle: Bundle, positions: np.ndarray, scores: np.ndarray) -> list[Shown]:
    return [
        Shown(bundle.ids[p], bundle.titles[p], bundle.manifest.names[bundle.cluster(p)], round(s, 6))
        for p, s in zip(positions.tolist(), scores.tolist(), strict=True)
    ]
