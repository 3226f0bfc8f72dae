"""The default plan: the items of new interests that score highest by all that is known of a person.

Which signals make the score, and what each weighs, is fitted (`planner.fit`). What is drawn at random is which new
interests are left out of this page (`bundle.skip`), so that each item has a known chance to stand on it, which is
exact (`planner.page`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.base.ranking import top
from byway.planner import page, search
from byway.planner.planner import SIGNALS, Asker, Planner, total
from byway.serving import pairs
from byway.serving.answers import ITEMS, Places
from byway.serving.bundle import Bundle
from byway.serving.person import Person
from byway.transitions import draws

LIKELY = 10
"""New interests that `leads` names."""
SHARE = 0.15
"""Part of a score's lead over other items from which a signal is named as a reason."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page and all that it was chosen from."""

    positions: NDArray[np.int64]
    """[p] items, best first."""
    scores: NDArray[np.float32]
    asker: Asker
    found: "Scored"
    said: list[int]
    """Places in the history of the items that say most for the first item."""
    led: list[int]
    """The interests of these."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a page is chosen from."""

    candidates: NDArray[np.int64]
    """[c] positions, in order."""
    cluster: NDArray[np.int32]
    """[c]"""
    parts: dict[str, NDArray[np.float32]]
    """By signal, [c] what it adds to the scores."""
    score: NDArray[np.float32]
    """[c] -inf for what is not to be shown, whatever is left out."""


def applies(bundle: Bundle, person: Person) -> bool:
    """Whether this person is answered by the planner: not where an item is being watched."""
    return bundle.planner is not None and bundle.settings.mode == "person" and person.context is None


def page_of(
    bundle: Bundle,
    person: Person,
    rng: np.random.Generator,
    places: int,
    state: NDArray[np.float32] | None = None,
) -> Page:
    """Score, leave some new interests out, and fill a page. `state` is the item policy's vector of the history,
    where it is known already."""
    planner, M = _planner(bundle), len(bundle.manifest.names)
    asker = asker_of(bundle, person, state)
    found = _scored(bundle, person, asker)
    opened = page.best_of(found.score, found.cluster, M) > -np.inf
    stays = page.kept(opened, bundle.settings.skip, rng) if opened.any() else opened
    remaining = np.where(stays[found.cluster], found.score, np.float32(-np.inf))
    if bundle.settings.new_interests:
        remaining = page.within(remaining, found.cluster, M, bundle.settings.new_interests)
    best = top(remaining, places)
    said: list[int] = []
    led: list[int] = []
    if len(best):
        said = planner.because(asker, int(found.candidates[best[0]]))
        led = list(dict.fromkeys(planner.cluster[asker.rows[said or [-1]]].tolist()))
    return Page(found.candidates[best], remaining[best], asker, found, said, led)


def chances(bundle: Bundle, shown: Page, places: Places) -> list[float]:
    """The chance of each item of a page to stand in an answer to this request."""
    if not bundle.settings.skip:  # Then all is decided but the number of places.
        return [places.chance(rank, True) for rank in range(len(shown.positions))]
    of = np.searchsorted(shown.found.candidates, shown.positions)
    chance = chances_of(bundle, shown.found, of, places.whole)
    if places.part:
        more = chances_of(bundle, shown.found, of, places.whole + 1)
        chance = (1 - places.part) * chance + places.part * more
    return chance.tolist()


def chances_of(bundle: Bundle, found: "Scored", of: NDArray[np.int64], places: int) -> NDArray[np.float64]:
    """[of] the chance of each of these candidates to stand on a page of so many places."""
    most, skip, M = bundle.settings.new_interests, bundle.settings.skip, len(bundle.manifest.names)
    return page.chances(found.score, found.cluster, M, of, k=places, most=most, skip=skip)


def leads(bundle: Bundle, person: Person) -> list[tuple[int, float, list[int]]]:
    """New interests that an answer of the usual length can lead to: each with the chance that its best item is
    shown, and the interests of the history that say most for it; the likeliest first, of equal ones the one whose
    best item is better."""
    planner, M = _planner(bundle), len(bundle.manifest.names)
    asker = asker_of(bundle, person)
    scored = _scored(bundle, person, asker)
    cluster, score = scored.cluster, scored.score
    top = page.best_of(score, cluster, M)
    found: list[tuple[int, float, list[int]]] = []
    order = np.argsort(-top, kind="stable")[:LIKELY]
    order = order[top[order] > -np.inf]
    best = np.array([np.flatnonzero((cluster == c) & (score == top[c]))[0] for c in order.tolist()], np.int64)
    chance = chances_of(bundle, scored, best, ITEMS)
    for c, at, p in zip(order.tolist(), best.tolist(), chance.tolist(), strict=True):
        own = [int(planner.cluster[asker.rows[i]]) for i in planner.because(asker, int(scored.candidates[at]))]
        if p > 0:
            found.append((c, p, list(dict.fromkeys(own))))
    return sorted(found, key=lambda one: -one[1])


def explain(bundle: Bundle, shown: Page, reasons: list[str]) -> None:
    """Say in words what led to the first item, and what else is on the page."""
    planner, names = _planner(bundle), bundle.manifest.names
    first = int(shown.positions[0])
    title = bundle.titles[first]
    liked = [f"“{bundle.titles[int(shown.asker.rows[i])]}”" for i in shown.said]
    if liked:
        reasons.append(f"Who liked {' and '.join(liked)} liked “{title}” too.")
    strong = [SIGNALS[name] for name, share in signals_of(shown.found, first) if share >= SHARE]
    if strong and planner.fitted.next_first:
        reasons.append(f"“{title}” is among the best because of {_listed(strong)}.")
        reasons.append(f"It stands first because of {SIGNALS['item_policy']}.")
    elif strong:
        reasons.append(f"“{title}” stands first because of {_listed(strong)}.")
    clusters = list(dict.fromkeys(planner.cluster[shown.positions].tolist()))
    several = _listed([f"“{names[c]}”" for c in clusters[:5]]) + (" and others" if len(clusters) > 5 else "")
    reasons.append(f"New to this person: {several}.")


def signals_of(found: Scored, first: int) -> list[tuple[str, float]]:
    """By signal, the share of what lifts an item above the mean of all that can be shown; the largest first."""
    at = int(np.searchsorted(found.candidates, first))
    others = (found.score > -np.inf).astype(np.float32)
    others /= others.sum()
    lift = {name: float(part[at] - part @ others) for name, part in found.parts.items()}
    whole = sum(value for value in lift.values() if value > 0)
    shares = [(name, value / whole) for name, value in lift.items() if value > 0]
    return sorted(shares, key=lambda one: -one[1])


def asker_of(bundle: Bundle, person: Person, state: NDArray[np.float32] | None = None) -> Asker:
    """A person as the signals see them; `state` is the item policy's vector of the history, where it is known."""
    planner = _planner(bundle)
    rows = np.array(person.positions, dtype=np.int64)
    values = planner.fitted.values(person.liked)
    state = bundle.encode(person.positions) if state is None else state
    return Asker(rows, values, state, _shares(bundle, person, planner))


def _scored(bundle: Bundle, person: Person, asker: Asker) -> Scored:
    planner = _planner(bundle)
    candidates, parts = search.considered(planner, asker, person.open, lambda rows: showable(planner, person, rows))
    score = total(parts, len(candidates))
    score[~showable(planner, person, candidates)] = -np.inf
    return Scored(candidates, planner.cluster[candidates], parts, planner.in_order(score, asker, candidates))


def showable(planner: Planner, person: Person, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[p] whether each of these positions, in order, may be shown to this person."""
    found = person.open[planner.cluster[positions]]
    # What is apart is a handful: its places among the positions, where it has one.
    at = np.minimum(np.searchsorted(positions, person.apart), len(positions) - 1)
    found[at[positions[at] == person.apart]] = False
    if person.eligible.mask is not None:
        found &= person.eligible.mask[positions]
    return found


def _shares(bundle: Bundle, person: Person, planner: Planner) -> dict[str, NDArray[np.float32]]:
    """What the table and the language model say of every cluster, over all contexts that could be drawn."""
    rankings = {"table": bundle.ranking, "language_model": bundle.model_ranking}
    asked = [name for name in rankings if planner.fitted.weights.get(name)]
    if not asked or not person.recent:
        return {}
    contexts, chance = pairs.drawable(bundle, person)
    M = len(bundle.manifest.names)
    return {name: draws.reciprocal_rank(rankings[name](contexts), chance, M) for name in asked}


def _planner(bundle: Bundle) -> Planner:
    assert bundle.planner is not None  # `applies` has seen to it
    return bundle.planner


def _listed(words: Sequence[str]) -> str:
    """As a sentence has them: “a, b and c”."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
