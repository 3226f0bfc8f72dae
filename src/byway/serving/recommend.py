"""What to answer a person: new interests and items inside them, with the reasons, and what an answer is drawn from.

Pure functions of a bundle, a history and a source of randomness. They keep no state and do no input or output. What
stands in the places that explore is decided by `bundle.mode`: by all that is known of the person (`plan`), or as
paper 1 has it, by two drawn interests (`pairs`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.serving import pairs, plan
from byway.serving.answers import ITEMS, Answer, Places, as_shown, best, from_known, mixed, popular
from byway.serving.bundle import Bundle
from byway.serving.messages import Explanation, Interest, Next, Strategy
from byway.serving.person import Person, Seen, read, shares


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
    consumed at any time is never novel. Interests are drawn from the last `bundle.days` days; the planner and the
    item policy read the whole history. Items in `exclude` are not shown. `context` is an item being watched: then
    it is the second interest of a pair, whatever the mode. `mix` is the share of the k places that explore; the
    others hold what the item policy finds among the interests already known.
    """
    k = ITEMS if k is None else k
    reasons = list[str]()
    person = read(bundle, history, now, exclude, context, reasons)
    if not person.recent and person.context is None:
        given = popular(bundle, person, k, reasons)
        if (n := len(given.items)) < k:
            reasons.append(f"Only {n} of {k} items: there are no more interests that have one to show.")
        return given
    chosen, names = decide(bundle, person, rng, k, mix), bundle.manifest.names
    shown = as_shown(bundle, chosen.positions, chosen.scores, chosen.strategy, chosen.propensities)
    interests, cluster, rank = list[int](), None, None
    if chosen.page is not None:
        interests, cluster = chosen.page.led, shown[0].cluster if shown else None
    elif chosen.drawn is not None:
        interests, rank = list(dict.fromkeys(chosen.drawn.context)), chosen.drawn.rank
        cluster = None if chosen.drawn.cluster is None else names[chosen.drawn.cluster]
    _explain(bundle, person, chosen, cluster, reasons)
    known = from_known(bundle, person, chosen.state, chosen.places, explored=chosen.explored, reasons=reasons)
    return Answer(mixed(shown, known), chosen.strategy, [names[c] for c in interests], cluster, rank, reasons)


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody is shown in the places that explore, and by what it was chosen."""

    strategy: Strategy
    places: Places
    state: NDArray[np.float32]
    """[d] the item policy's vector of the history."""
    positions: NDArray[np.int64]
    """[p] items, best first."""
    scores: NDArray[Any]
    """[p]"""
    propensities: list[float]
    """[p]"""
    explored: NDArray[np.bool_]
    """[M] interests that an answer to this request may explore."""
    page: plan.Page | None = None
    drawn: pairs.Drawn | None = None


def decide(
    bundle: Bundle,
    person: Person,
    rng: np.random.Generator,
    k: int,
    mix: float = 1.0,
    state: NDArray[np.float32] | None = None,
) -> Decision:
    """Choose what stands in the places that explore, for somebody of whom something is known. `state` is the item
    policy's vector of the history, where it is known already."""
    state = bundle.encode(person.positions) if state is None else state
    drawn = None
    if plan.applies(bundle, person):
        places = Places.drawn(k, mix, rng)
        page = plan.page_of(bundle, person, rng, places.explore, state)
        if (page.found.score > -np.inf).any():
            chances = plan.chances(bundle, page, places)
            return Decision("person", places, state, page.positions, page.scores, chances, person.open, page)
    else:
        drawn = pairs.follow(bundle, person, rng)
        if drawn.cluster is not None:
            places = Places.drawn(k, mix, rng)
            positions, scores = best(bundle, person, state, places.explore, drawn.cluster)
            leads = pairs.leads(bundle, person)
            chance = leads.chance_of(drawn.cluster)
            chances = [chance * places.chance(rank, True) for rank in range(len(positions))]
            strategy: Strategy = "popular_cluster" if drawn.rank is None else "table"
            explored = np.isin(np.arange(len(person.open)), leads.cluster)
            return Decision(strategy, places, state, positions, scores, chances, explored, drawn=drawn)
    # No place is left to explore, so all of them are the item policy's, whatever the mix.
    positions, scores = best(bundle, person, state, k)
    sure = [1.0] * len(positions)
    return Decision("unrestricted", Places(k, k, 0.0, k), state, positions, scores, sure, person.open, drawn=drawn)


def _explain(bundle: Bundle, person: Person, chosen: Decision, cluster: str | None, reasons: list[str]) -> None:
    """Say in words what led to the items, and which places stay empty."""
    n, places = len(chosen.positions), chosen.places.explore
    if chosen.page is not None and n:
        plan.explain(bundle, chosen.page, reasons)
    if chosen.drawn is not None:
        pairs.explain(bundle, person, chosen.drawn, reasons)
    if chosen.strategy == "unrestricted":
        source = "so these items come from the whole catalog" if n else "nor an item to show"
        reasons.append(f"No interest is left to discover, {source}.")
    elif n < places:
        source = "the new interests have" if chosen.page is not None else f"“{cluster}” has"
        reasons.append(f"Only {n} of {places} items: {source} no more to show.")


def explain(bundle: Bundle, history: list[Seen], now: int | None = None, context: str | None = None) -> Explanation:
    """What the answers to this history are drawn from: interests with their shares, and where each pair leads."""
    names, reasons = bundle.manifest.names, list[str]()
    person = read(bundle, history, now, (), context, reasons)
    share = shares(bundle, person)
    interests = [Interest(names[c], round(w, 6)) for c, w in share.items()]
    if plan.applies(bundle, person) and person.recent:
        led = plan.leads(bundle, person)
        nexts = [Next(names[c], round(p, 6), [[names[i] for i in from_]]) for c, p, from_ in led]
        return Explanation(interests, nexts, reasons)
    leads: dict[int, list[tuple[float, list[int]]]] = {}
    if share or person.context is not None:
        every = pairs.leads(bundle, person)
        columns = every.context.tolist(), every.chance.tolist(), every.cluster.tolist()
        for context_K, p, cluster in zip(*columns, strict=True):
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
