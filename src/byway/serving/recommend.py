"""What to answer a person: two or three past interests, the next novel one, and items inside it, with the reasons.

Pure functions of a bundle, a history and a source of randomness (paper 1, section 2.2). They keep no state and do
no input or output.

**Propensity.** Each item carries the probability with which it stands in an answer to this very request, over all
that is drawn at random: the interests and, with a mix, the number of places that explore. It is exact. Given the
interests everything else is decided: the cluster is the first of the pair's ranking that is open, its items are the
item policy's best. So it is the sum over the pairs (or triples) that lead to the item's cluster, times the chance
that enough places explore for its rank.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.items.restrict import top_anywhere, top_in_slice
from byway.serving.bundle import Bundle, Eligible
from byway.transitions import draws
from byway.transitions.draws import LEAST

DAY = 86_400_000_000
"""Microseconds."""

THREE_OF = 48
"""Three interests are drawn from so many, those met last: a propensity sums over every triple of them."""

SCORE_DIGITS, PROPENSITY_DIGITS = 6, 9
"""After the point, as they are replied."""

KNOWN = 8
"""Most recent interests from which the places that do not explore are filled: it bounds the slices read."""

Strategy = Literal["table", "popular_cluster", "unrestricted", "popular_items", "context"]
"""How the answer was found, from the first choice to the last resort:

`table`: the first cluster in the pair's ranking that is novel to this person and has enough unseen items;
`popular_cluster`: no such cluster in the ranking, so the one most people turned to, with the same two conditions;
`unrestricted`: every cluster is known or used up, so the item policy over the whole catalog;
`popular_items`: nothing is known of the person, so the most popular items, at most one a cluster;
`context`: the item being watched led there (`serving.context`).
"""

Arm = Literal["table", "popular_cluster", "unrestricted", "popular_items", "context", "known", "usual"]
"""How one item was found: by the answer's strategy; in a place that does not explore, as the item policy's choice
among the interests that the person has (`known`); or by a recommender that never explores (`usual`, for
comparing)."""


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
    """Item policy's score; traffic where that is `popular_items`."""
    arm: Arm
    propensity: float
    """Probability that this request is answered with this item."""
    thumbnail: str = ""
    """Address or path of a picture, where the catalog has one."""


class Answer(msgspec.Struct, frozen=True):
    """The items and why they were chosen."""

    items: list[Shown]
    strategy: Strategy
    interests: list[str]
    """Descriptions of the interests that were drawn, the most recent last."""
    cluster: str | None
    """Description of the novel cluster, where one was chosen."""
    rank: int | None
    """Place of the cluster in the pair's ranking, from 1."""
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Person:
    """What a bundle makes of a history, before anything is drawn."""

    positions: list[int]
    """Items that the catalog knows, the most recent last; with the item being watched, where there is one."""
    recent: list[tuple[Seen, int]]
    """What interests are drawn from."""
    context: int | None
    """Cluster of the item being watched."""
    apart: NDArray[np.int64]
    """Positions that are seen or excluded, in order."""
    eligible: Eligible
    open: NDArray[np.bool_]
    """[M] clusters that are novel to this person and have items left to show."""

    def barred(self, start: int, stop: int) -> NDArray[np.int64]:
        """Positions of a slice that are not shown: seen, excluded, too old or of too little quality."""
        if self.eligible.mask is None:
            return self.apart
        unfit = start + np.flatnonzero(~self.eligible.mask[start:stop])
        return np.union1d(self.apart[(self.apart >= start) & (self.apart < stop)], unfit)


class Next(msgspec.Struct, frozen=True):
    """A cluster that an answer can lead to."""

    cluster: str
    chance: float
    pairs: list[list[str]]
    """The pairs (or triples) of interests that lead there, the likeliest first; at most ten."""


class Interest(msgspec.Struct, frozen=True):
    """A recent interest."""

    cluster: str
    weight: float
    """Share of the draw."""


class Explanation(msgspec.Struct, frozen=True):
    """Everything that an answer to this history is drawn from."""

    interests: list[Interest]
    next: list[Next]
    reasons: list[str]


def recommend(
    bundle: Bundle,
    history: list[Seen],
    rng: np.random.Generator,
    k: int | None = None,
    now: int | None = None,
    *,
    exclude: Sequence[str] = (),
    context: str | None = None,
    mix: float = 1.0,
) -> Answer:
    """Answer a person with this history, the most recent item last.

    `now` is in microseconds; without it, or without times, all of the history counts as recent. What a person has
    consumed at any time is never novel; only the last `bundle.days` days say what they like now. Items in `exclude`
    are not shown. `context` is an item being watched: then it is the second interest of the pair. `mix` is the
    share of the k places that explore; the others hold what the item policy finds among the interests already
    known.
    """
    k = bundle.settings.items if k is None else k
    names, reasons = bundle.manifest.names, list[str]()
    person = read(bundle, history, now, exclude, context, reasons)
    if not person.recent and person.context is None:
        reasons.append("There is no history to start from, so these are popular items, one an interest.")
        found, scores = popular_items(bundle, k, person)
        if len(found) < k:
            reasons.append(f"Only {len(found)} of {k} items: there are no more interests that have one to show.")
        shown = as_shown(bundle, found, scores, "popular_items", [1.0] * len(found))
        return Answer(shown, "popular_items", [], None, None, reasons)
    drawn = context_of(bundle, person, rng)
    whose = "this pair" if len(drawn) == 2 else "these three"
    liked = [names[c] for c in dict.fromkeys(drawn)]
    if person.context is not None:
        reasons.append(f"The item being watched is of “{names[drawn[-1]]}”.")
    if len(liked) == 1:
        reasons.append(f"One recent interest: “{liked[0]}”.")
    else:
        number, listed = ("Two", "Three")[len(liked) - 2], ", then ".join(f"“{name}”" for name in liked)
        reasons.append(f"{number} recent interests, drawn from the history: {listed}.")
    places, likely = _places(k, mix, rng)
    user = bundle.encode(person.positions)
    asked = np.array([drawn])
    if len(liked) == 3 and bundle.triples is not None and bundle.triples.rows(asked, len(names))[0] < 0:
        reasons.append("Hardly anybody had these three together, so the last two decide.")
    ranking = [c for c in bundle.ranking(asked)[0].tolist() if c >= 0]
    rank = next((i for i, c in enumerate(ranking, 1) if person.open[c]), None)
    strategy: Strategy = "table"
    chosen = None if rank is None else ranking[rank - 1]
    if chosen is None:
        reasons.append(f"Every interest in the ranking of {whose} is known already or used up.")
        strategy, chosen = "popular_cluster", popular_open(bundle, person)
    if chosen is None:
        found, scores = top_anywhere(bundle.vectors, user, k, exclude=person.barred(0, len(bundle.ids)))
        source = "so these items come from the whole catalog" if len(found) else "nor an item to show"
        reasons.append(f"No interest is left to discover, {source}.")
        # No place is left to explore, so all of them are the item policy's, whatever the mix.
        shown = as_shown(bundle, found, scores, "unrestricted", [1.0] * len(found))
        return Answer(shown, "unrestricted", liked, None, None, reasons)
    if strategy == "popular_cluster":
        reasons.append(f"“{names[chosen]}” is the interest most people turn to that is new to this person.")
    elif rank == 1:
        reasons.append(f"People with these interests are most likely to enjoy “{names[chosen]}” next.")
    else:
        reasons.append(
            f"“{names[chosen]}” is number {rank} in the ranking of {whose}; those before it are not new to this "
            "person or have no item left to show."
        )
    start, stop = int(bundle.starts[chosen]), int(bundle.starts[chosen + 1])
    found, scores = top_in_slice(bundle.vectors, user, start, stop, places, exclude=person.barred(start, stop))
    if len(found) < places:
        reasons.append(f"Only {len(found)} of {places} items: “{names[chosen]}” has no more to show.")
    if places < k:
        reasons.append(f"{places} of {k} places explore; the others hold what fits the interests already known.")
    contexts, chance = drawable(bundle, person)
    leading = min(float(chance[leads_to(bundle, person, contexts) == chosen].sum()), 1.0)
    chances = [leading * likely(r, True) for r in range(len(found))]
    shown = as_shown(bundle, found, scores, strategy, chances)
    known = _known(bundle, person, user, k - places, likely) if mix < 1 else []
    return Answer(
        _mixed(shown, known), strategy, liked, names[chosen], rank if strategy == "table" else None, reasons
    )


def explain(bundle: Bundle, history: list[Seen], now: int | None = None, context: str | None = None) -> Explanation:
    """What the answers to this history are drawn from: interests with their shares, and where each pair leads."""
    names, reasons = bundle.manifest.names, list[str]()
    person = read(bundle, history, now, (), context, reasons)
    shares = _shares(bundle, person)
    interests = [Interest(names[c], round(w, 6)) for c, w in shares.items()]
    leads: dict[int, list[tuple[float, list[int]]]] = {}
    if shares or person.context is not None:
        contexts, chance = drawable(bundle, person)
        led = leads_to(bundle, person, contexts).tolist()
        for context_K, p, cluster in zip(contexts.tolist(), chance.tolist(), led, strict=True):
            leads.setdefault(cluster, []).append((p, context_K))
    nexts = [
        Next(
            names[c] if c >= 0 else "",
            round(sum(p for p, _ in found), 6),
            [[names[i] for i in one] for _, one in sorted(found, key=lambda f: (-f[0], f[1]))[:10]],
        )
        for c, found in leads.items()
    ]
    return Explanation(interests, sorted(nexts, key=lambda n: (-n.chance, n.cluster)), reasons)


def read(
    bundle: Bundle,
    history: list[Seen],
    now: int | None,
    exclude: Sequence[str],
    context: str | None,
    reasons: list[str],
) -> Person:
    """Look a history up. Sentences on what is ignored are added to `reasons`."""
    known = in_catalog(bundle, history)
    if len(known) < len(history):
        unknown = len(history) - len(known)
        reasons.append(f"{unknown} of {len(history)} items in the history are not in the catalog and are ignored.")
    watched = None if context is None else bundle.position(context)
    out = [p for p in bundle.positions(exclude) if p is not None]
    person = person_of(bundle, known, now, out, watched, reasons)
    if context is not None and watched is None:
        reasons.append("The item being watched is not in the catalog and is ignored.")
    return person


def in_catalog(bundle: Bundle, history: Sequence[Seen]) -> list[tuple[Seen, int]]:
    """What of a history the catalog knows, with its positions."""
    at = bundle.positions([s.item for s in history])
    return [(s, p) for s, p in zip(history, at, strict=True) if p is not None]


def person_of(
    bundle: Bundle,
    known: list[tuple[Seen, int]],
    now: int | None,
    out: list[int],
    watched: int | None,
    reasons: list[str],
) -> Person:
    """Who has the history `known`; the positions `out` are not shown, and `watched` is the one being watched."""
    positions = [p for _, p in known]
    recent = [(s, p) for s, p in known if _recent(s, now, bundle.settings.days)]
    if known and not recent:
        reasons.append(f"Nothing in the last {bundle.settings.days} days, so the whole history counts.")
        recent = known
    if bundle.settings.interests > 2:
        recent = _met_last(bundle, recent, THREE_OF)
    if watched is not None:
        positions = [*positions, watched]
    eligible = bundle.eligible(now)
    apart = np.unique(np.array(positions + out, dtype=np.int64))
    unseen = eligible.counts.copy()
    counted = apart if eligible.mask is None else apart[eligible.mask[apart]]
    np.subtract.at(unseen, bundle.clusters(counted), 1)
    opened = unseen >= max(bundle.settings.min_eligible, 1)
    opened[bundle.clusters(np.array(positions, dtype=np.int64))] = False
    watching = None if watched is None else bundle.cluster(watched)
    return Person(positions, recent, watching, apart, eligible, opened)


def draw(bundle: Bundle, recent: list[tuple[Seen, int]], rng: np.random.Generator) -> list[int]:
    """Draw items by satisfaction until `bundle.interests` different clusters are found; the most recent last.

    Drawing items without replacement and keeping those of a new cluster is drawing clusters by the satisfaction
    that they gave. An item without satisfaction can still be drawn when nothing else is left. The order comes from
    one exponential a item, over its weight (Efraimidis and Spirakis, 2006).
    """
    weight = np.array([max(s.satisfaction, LEAST) for s, _ in recent])
    order = np.argsort(rng.standard_exponential(len(recent)) / weight, kind="stable")
    clusters = _clusters(bundle, recent)
    place: dict[int, int] = {}
    for i in order.tolist():
        cluster = clusters[i]
        if cluster in place or len(place) < bundle.settings.interests:
            place[cluster] = max(i, place.get(cluster, -1))
    return sorted(place, key=lambda c: place[c])


def drawable(bundle: Bundle, person: Person) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every context [n, K] that can be drawn, the most recent interest last, and its probability [n]: 1 in all.

    Fewer interests than K are filled up with the oldest. The item being watched is the last, whatever is drawn.
    """
    shares, n = _shares(bundle, person), bundle.settings.interests
    clusters, w = np.array(list(shares), dtype=np.int64), np.array(list(shares.values()))
    if person.context is None:
        sets, chance = draws.in_turn(w, n)
        return draws.filled(clusters[sets], n), chance
    others = clusters != person.context
    if not others.any():
        return draws.filled(np.array([[person.context]]), n), np.ones(1)
    clusters, w = clusters[others], w[others] / max(w[others].sum(), LEAST**2)
    sets, chance = draws.in_turn(w, max(n - 1, 1))
    return draws.filled(np.column_stack([clusters[sets], np.full(len(sets), person.context)]), n), chance


def _met_last(bundle: Bundle, recent: list[tuple[Seen, int]], n: int) -> list[tuple[Seen, int]]:
    """What is of the n interests that were met last."""
    clusters = _clusters(bundle, recent)
    kept = set(list(dict.fromkeys(reversed(clusters)))[:n])
    return [one for one, cluster in zip(recent, clusters, strict=True) if cluster in kept]


def _clusters(bundle: Bundle, recent: list[tuple[Seen, int]]) -> list[int]:
    return bundle.clusters(np.array([position for _, position in recent], dtype=np.int64)).tolist()


def _shares(bundle: Bundle, person: Person) -> dict[int, float]:
    """Share of the draw of each recent interest, in the order in which they were last met."""
    weight: dict[int, float] = {}
    for (seen, _), cluster in zip(person.recent, _clusters(bundle, person.recent), strict=True):
        weight[cluster] = weight.pop(cluster, 0.0) + max(seen.satisfaction, LEAST)
    total = sum(weight.values())
    return {cluster: w / total for cluster, w in weight.items()}


def context_of(bundle: Bundle, person: Person, rng: np.random.Generator) -> list[int]:
    """The context to look up."""
    if person.context is None:
        drawn = np.array([draw(bundle, person.recent, rng)])
        return draws.filled(drawn, bundle.settings.interests)[0].tolist()
    contexts, chance = drawable(bundle, person)
    return contexts[int(rng.choice(len(contexts), p=chance))].tolist()


def leads_to(bundle: Bundle, person: Person, context_nK: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cluster to which each context leads this person; -1 where none is open."""
    listed = bundle.ranking(context_nK)
    is_open = (listed >= 0) & person.open[listed]
    popular = popular_open(bundle, person)
    best = listed[np.arange(len(listed)), is_open.argmax(axis=1)]
    return np.where(is_open.any(axis=1), best, -1 if popular is None else popular)


def popular_open(bundle: Bundle, person: Person) -> int | None:
    """The open cluster that most people turned to."""
    ordered = person.open[bundle.popularity]
    return int(bundle.popularity[ordered.argmax()]) if ordered.any() else None


def _places(k: int, mix: float, rng: np.random.Generator) -> tuple[int, Callable[[int, bool], float]]:
    """How many of k places explore, and the chance that the item of a rank (from 0) has a place of either kind."""
    whole = math.floor(k * mix)
    part = k * mix - whole
    places = whole + int(part > 0 and rng.random() < part)

    def likely(rank: int, explores: bool) -> float:
        if explores:
            return 1.0 if rank < whole else part
        return 1.0 if rank < k - whole - 1 or (rank < k - whole and part == 0) else 1.0 - part

    return places, likely


def _known(
    bundle: Bundle, person: Person, user: NDArray[np.float32], count: int, likely: Callable[[int, bool], float]
) -> list[Shown]:
    """The item policy's best among the most recent interests, in the places that do not explore."""
    clusters = list(_shares(bundle, person))[-KNOWN:]
    if person.context is not None and person.context not in clusters:
        clusters.append(person.context)
    found: list[tuple[float, int]] = []
    for cluster in clusters:
        start, stop = int(bundle.starts[cluster]), int(bundle.starts[cluster + 1])
        best = top_in_slice(bundle.vectors, user, start, stop, count, exclude=person.barred(start, stop))
        found += zip((-best[1]).tolist(), best[0].tolist(), strict=True)
    found = sorted(found)[:count]
    positions, scores = np.array([p for _, p in found], dtype=np.int64), np.array([-s for s, _ in found])
    return as_shown(bundle, positions, scores, "known", [likely(r, False) for r in range(len(found))])


def _mixed(explore: list[Shown], known: list[Shown]) -> list[Shown]:
    """Both lists in one, each spread evenly over it."""
    placed = [((i + 0.5) / len(some), some[i]) for some in (explore, known) for i in range(len(some))]
    return [shown for _, shown in sorted(placed, key=lambda pair: pair[0])]


def _recent(seen: Seen, now: int | None, days: int) -> bool:
    return now is None or seen.time is None or seen.time > now - days * DAY


def popular_items(bundle: Bundle, k: int, person: Person) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The item with most traffic of each of the k clusters that hold the most popular items: positions, traffic."""
    best: list[tuple[float, int]] = []
    for start, stop in zip(bundle.starts[:-1].tolist(), bundle.starts[1:].tolist(), strict=True):
        traffic = np.array(bundle.traffic[start:stop])
        barred = person.barred(start, stop)
        traffic[barred[(barred >= start) & (barred < stop)] - start] = -1
        if (top := float(traffic.max(initial=-1))) >= 0:
            best.append((top, start + int(traffic.argmax())))
    best.sort(key=lambda pair: (-pair[0], pair[1]))
    return np.array([p for _, p in best[:k]], dtype=np.int64), np.array([t for t, _ in best[:k]])


def as_shown(
    bundle: Bundle, positions: NDArray[Any], scores: NDArray[Any], arm: Arm, chances: list[float]
) -> list[Shown]:
    """Items at these positions as they are replied."""
    names = bundle.manifest.names
    return [
        Shown(
            item=bundle.ids[p],
            title=bundle.titles[p],
            cluster=names[bundle.cluster(p)],
            score=round(s, SCORE_DIGITS),
            arm=arm,
            propensity=round(c, PROPENSITY_DIGITS),
            thumbnail=bundle.thumbnails[p],
        )
        for p, s, c in zip(positions.tolist(), scores.tolist(), chances, strict=True)
    ]
