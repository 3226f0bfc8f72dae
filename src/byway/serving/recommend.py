"""What to answer a person: new interests and items inside them, with the reasons, and what an answer is drawn from.

Pure functions of a bundle, a history and a source of randomness. They keep no state and do no input or output. How
new interests are chosen is decided by `bundle.mode`: by all that is known of the person (`plan`), or as paper 1 has
it, by two drawn interests (`pairs`).
"""

from collections.abc import Sequence

import numpy as np

from byway.serving import pairs, plan
from byway.serving.answers import ITEMS, Answer, as_shown, best, from_known, mixed, places_of, popular
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
    consumed at any time is never novel. Interests are drawn from the last `bundle.days` days; what else the planner
    and the item policy read is the whole history. Items in `exclude` are not shown. `context` is an item being watched: then it is the second interest of a pair, whatever the mode.
    `mix` is the share of the k places that explore; the others hold what the item policy finds among the interests
    already known.
    """
    k = ITEMS if k is None else k
    reasons = list[str]()
    person = read(bundle, history, now, exclude, context, reasons)
    if not person.recent and person.context is None:
        given = popular(bundle, person, k, reasons)
        if (n := len(given.items)) < k:
            reasons.append(f"Only {n} of {k} items: there are no more interests that have one to show.")
        return given
    if plan.applies(bundle, person):
        return _by_person(bundle, person, rng, k, mix, reasons)
    return _by_pair(bundle, person, rng, k, mix, reasons)


def _by_person(
    bundle: Bundle, person: Person, rng: np.random.Generator, k: int, mix: float, reasons: list[str]
) -> Answer:
    places, likely = places_of(k, mix, rng)
    page = plan.page_of(bundle, person, rng, places)
    if not (page.found.score > -np.inf).any():
        return _unrestricted(bundle, person, k, [], reasons)
    chances = plan.chances(bundle, page, k, mix)
    if len(page.positions):
        plan.explain(bundle, page, reasons)
    if len(page.positions) < places:
        reasons.append(f"Only {len(page.positions)} of {places} items: the new interests have no more to show.")
    shown = as_shown(bundle, page.positions, page.scores, "person", chances)
    known = from_known(bundle, person, page.asker.state, k - places, likely, explored=person.open, reasons=reasons)
    led = [bundle.manifest.names[c] for c in page.led]
    return Answer(mixed(shown, known), "person", led, shown[0].cluster if shown else None, None, reasons)


def _by_pair(
    bundle: Bundle, person: Person, rng: np.random.Generator, k: int, mix: float, reasons: list[str]
) -> Answer:
    drawn, chosen, rank = pairs.plan(bundle, person, rng, reasons)
    names = bundle.manifest.names
    liked = [names[c] for c in dict.fromkeys(drawn)]
    if chosen is None:
        return _unrestricted(bundle, person, k, liked, reasons)
    places, likely = places_of(k, mix, rng)
    user = bundle.encode(person.positions)
    found, scores = best(bundle, person, user, places, chosen)
    if len(found) < places:
        reasons.append(f"Only {len(found)} of {places} items: “{names[chosen]}” has no more to show.")
    contexts, chance = pairs.drawable(bundle, person)
    led = pairs.leads_to(bundle, person, contexts)
    leading = min(float(chance[led == chosen].sum()), 1.0)
    chances = [leading * likely(r, True) for r in range(len(found))]
    strategy: Strategy = "popular_cluster" if rank is None else "table"
    shown = as_shown(bundle, found, scores, strategy, chances)
    explored = np.isin(np.arange(len(names)), led)
    known = from_known(bundle, person, user, k - places, likely, explored=explored, reasons=reasons)
    return Answer(mixed(shown, known), strategy, liked, names[chosen], rank, reasons)


def _unrestricted(bundle: Bundle, person: Person, k: int, liked: list[str], reasons: list[str]) -> Answer:
    found, scores = best(bundle, person, bundle.encode(person.positions), k)
    source = "so these items come from the whole catalog" if len(found) else "nor an item to show"
    reasons.append(f"No interest is left to discover, {source}.")
    # No place is left to explore, so all of them are the item policy's, whatever the mix.
    shown = as_shown(bundle, found, scores, "unrestricted")
    return Answer(shown, "unrestricted", liked, reasons=reasons)


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
        contexts, chance = pairs.drawable(bundle, person)
        led = pairs.leads_to(bundle, person, contexts).tolist()
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
