"""Paper 1's plan: two or three past interests are drawn, and the first new one in their ranking is explored.

**Propensity.** Each item carries the probability with which it stands in an answer to this very request, over all
that is drawn at random: the interests and, with a mix, the number of places that explore. It is exact. Given the
interests everything else is decided: the cluster is the first of the pair's ranking that is open, its items are the
item policy's best. So it is the sum over the pairs (or triples) that lead to the item's cluster, times the chance
that enough places explore for its rank.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.serving.bundle import Bundle
from byway.serving.person import Person, Seen, clusters_of, shares
from byway.transitions import draws
from byway.transitions.draws import LEAST


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn context and where it leads."""

    context: list[int]
    """[K] interests, the most recent last."""
    cluster: int | None
    """The interest to explore, if any is open."""
    rank: int | None
    """Its place in the ranking of the context, from 1; None where it does not stand there."""


@dataclass(frozen=True, slots=True)
class Leads:
    """Where everything that can be drawn leads."""

    context: NDArray[np.int64]
    """[n, K] every context that can be drawn, the most recent interest last."""
    chance: NDArray[np.float64]
    """[n] its probability: 1 in all."""
    cluster: NDArray[np.int64]
    """[n] the interest that is then explored; -1 where none is open."""

    def chance_of(self, cluster: int) -> float:
        """The probability that this interest is explored."""
        return min(float(self.chance[self.cluster == cluster].sum()), 1.0)


def draw(bundle: Bundle, recent: list[tuple[Seen, int]], rng: np.random.Generator) -> list[int]:
    """Draw items by satisfaction until `K` different clusters are found; the most recent last.

    Drawing items without replacement and keeping those of a new cluster is drawing clusters by the satisfaction
    that they gave. An item without satisfaction can still be drawn when nothing else is left. The order comes from
    one exponential a item, over its weight (Efraimidis and Spirakis, 2006).
    """
    weight = np.array([max(s.satisfaction, LEAST) for s, _ in recent])
    order = np.argsort(rng.standard_exponential(len(recent)) / weight, kind="stable")
    clusters = clusters_of(bundle, recent)
    place: dict[int, int] = {}
    for i in order.tolist():
        cluster = clusters[i]
        if cluster in place or len(place) < bundle.interests:
            place[cluster] = max(i, place.get(cluster, -1))
    return sorted(place, key=lambda c: place[c])


def drawable(bundle: Bundle, person: Person) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every context [n, K] that can be drawn, the most recent interest last, and its probability [n]: 1 in all.

    Fewer interests than K are filled up with the oldest. The item being watched is the last, whatever is drawn.
    """
    share, n = shares(bundle, person), bundle.interests
    if person.context is None:
        return draws.drawable(share, n)
    clusters, w = np.array(list(share), dtype=np.int64), np.array(list(share.values()))
    others = clusters != person.context
    if not others.any():
        return draws.filled(np.array([[person.context]]), n), np.ones(1)
    clusters, w = clusters[others], w[others] / max(w[others].sum(), LEAST**2)
    sets, chance = draws.in_turn(w, max(n - 1, 1))
    return draws.filled(np.column_stack([clusters[sets], np.full(len(sets), person.context)]), n), chance


def context_of(bundle: Bundle, person: Person, rng: np.random.Generator) -> list[int]:
    """The context to look up."""
    if person.context is None:
        drawn = np.array([draw(bundle, person.recent, rng)])
        return draws.filled(drawn, bundle.interests)[0].tolist()
    contexts, chance = drawable(bundle, person)
    return contexts[int(rng.choice(len(contexts), p=chance))].tolist()


def leads(bundle: Bundle, person: Person) -> Leads:
    """Every context that can be drawn, and the cluster to which it leads this person."""
    contexts, chance = drawable(bundle, person)
    listed, opened = _rankings(bundle, person, contexts)
    is_open = (listed >= 0) & opened[listed]
    popular = popular_open(bundle, person)
    best = listed[np.arange(len(listed)), is_open.argmax(axis=1)]
    return Leads(contexts, chance, np.where(is_open.any(axis=1), best, -1 if popular is None else popular))


def _rankings(
    bundle: Bundle, person: Person, context_nK: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """What is looked up for each context, best first [n, m], and which clusters of it can be chosen [M]."""
    listed = bundle.ranking(context_nK)
    return (listed[:, :1], person.left) if bundle.settings.mode == "paper" else (listed, person.open)


def follow(bundle: Bundle, person: Person, rng: np.random.Generator) -> Drawn:
    """Draw a context and follow its ranking, or, where nothing of it is open, most people."""
    context = context_of(bundle, person, rng)
    listed, opened = _rankings(bundle, person, np.array([context]))
    for rank, cluster in enumerate(listed[0].tolist(), 1):
        if cluster >= 0 and opened[cluster]:
            return Drawn(context, cluster, rank)
    return Drawn(context, popular_open(bundle, person), None)


def explain(bundle: Bundle, person: Person, drawn: Drawn, reasons: list[str]) -> None:
    """Say in words what was drawn and where it led."""
    names = bundle.manifest.names
    whose = "this pair" if len(drawn.context) == 2 else "these three"
    liked = [names[c] for c in dict.fromkeys(drawn.context)]
    drawn_from = liked
    if person.context is not None:
        watched = names[drawn.context[-1]]
        reasons.append(f"The item being watched is of “{watched}”.")
        drawn_from = [name for name in liked if name != watched]
    if len(drawn_from) == 1:
        reasons.append(f"One recent interest: “{drawn_from[0]}”.")
    elif drawn_from:
        number, said = ("Two", "Three")[len(drawn_from) - 2], ", then ".join(f"“{name}”" for name in drawn_from)
        reasons.append(f"{number} recent interests, drawn from the history: {said}.")
    asked = np.array([drawn.context])
    if len(liked) == 3 and bundle.triples is not None and bundle.triples.rows(asked, len(names))[0] < 0:
        reasons.append("Hardly anybody had these three together, so the last two decide.")
    chosen = None if drawn.cluster is None else names[drawn.cluster]
    if drawn.rank == 1:
        these = "this interest" if len(liked) == 1 else "these interests"
        reasons.append(f"People with {these} are most likely to enjoy “{chosen}” next.")
    elif drawn.rank is not None:
        reasons.append(
            f"“{chosen}” is number {drawn.rank} in the ranking of {whose}; those before it are not new to "
            "this person or have no item left to show."
        )
    else:
        reasons.append(f"Every interest in the ranking of {whose} is known already or used up.")
        if chosen is not None:
            reasons.append(f"“{chosen}” is the interest most people turn to that is new to this person.")


def popular_open(bundle: Bundle, person: Person) -> int | None:
    """The open cluster that most people turned to."""
    ordered = person.open[bundle.popularity]
    return int(bundle.popularity[ordered.argmax()]) if ordered.any() else None
