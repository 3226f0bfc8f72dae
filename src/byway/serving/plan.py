"""The default plan: the items of new interests that score highest by all that is known of a person.

Which signals make the score, and what each weighs, is fitted (`planner.fit`). What is drawn at random is which new
interests are left out of this page (`bundle.skip`), so that each item has a known chance to stand on it, which is
exact (`planner.page`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.planner import page
from byway.planner.signals import SIGNALS, Asker, Planner
from byway.serving import pairs
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
    state: NDArray[np.float32]
    """[d] the item policy's vector of the history."""
    asker: Asker
    candidates: NDArray[np.int64]
    """[c] positions that were scored."""
    scored: NDArray[np.float32]
    """[c] -inf for what is not to be shown, whatever is left out."""
    led: list[int]
    """Interests of the history's items that say most for the first item."""


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
    asker, candidates, scored = _scored(bundle, person, state)
    opened = page.best_of(scored, planner.cluster[candidates], M) > -np.inf
    stays = page.kept(opened, bundle.settings.skip, rng) if opened.any() else opened
    cluster = planner.cluster[candidates]
    remaining = np.where(stays[cluster], scored, np.float32(-np.inf))
    if bundle.settings.new_interests:
        remaining = page.within(remaining, cluster, M, bundle.settings.new_interests)
    best = page.ranked(remaining, places)
    led: list[int] = []
    if len(best):
        places_led = planner.because(asker, int(candidates[best[0]]))
        own = [int(planner.cluster[asker.rows[i]]) for i in places_led] or _last(planner, asker)
        led = list(dict.fromkeys(own))
    return Page(candidates[best], remaining[best], asker.state, asker, candidates, scored, led)


def chances(bundle: Bundle, found: Page, k: int, mix: float) -> list[float]:
    """The chance of each item of a page to stand in an answer to this request."""
    settings, M = bundle.settings, len(bundle.manifest.names)
    cluster, of = _planner(bundle).cluster[found.candidates], np.searchsorted(found.candidates, found.positions)
    whole, part = int(k * mix), k * mix - int(k * mix)

    def on(places: int) -> NDArray[np.float64]:
        return page.chances(found.scored, cluster, M, places, settings.new_interests, settings.skip, of)

    total = on(whole) if not part else (1 - part) * on(whole) + part * on(whole + 1)
    return total.tolist()


def leads(bundle: Bundle, person: Person) -> list[tuple[int, float, list[int]]]:
    """New interests that an answer can lead to: each with the chance that its best item is shown, and the interests
    of the history that say most for it; the likeliest first."""
    planner, M = _planner(bundle), len(bundle.manifest.names)
    asker, candidates, scored = _scored(bundle, person)
    cluster, settings = planner.cluster[candidates], bundle.settings
    top = page.best_of(scored, cluster, M)
    found: list[tuple[int, float, list[int]]] = []
    order = np.argsort(-top, kind="stable")[:LIKELY]
    order = order[top[order] > -np.inf]
    best = np.array([np.flatnonzero((cluster == c) & (scored == top[c]))[0] for c in order.tolist()], np.int64)
    chance = page.chances(scored, cluster, M, settings.items, settings.new_interests, settings.skip, best)
    for c, at, p in zip(order.tolist(), best.tolist(), chance.tolist(), strict=True):
        own = [int(planner.cluster[asker.rows[i]]) for i in planner.because(asker, int(candidates[at]))]
        found.append((c, p, list(dict.fromkeys(own))))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def explain(bundle: Bundle, person: Person, found: Page, reasons: list[str]) -> None:
    """Say in words what led to the first item, and what else is on the page."""
    planner, names = _planner(bundle), bundle.manifest.names
    first = int(found.positions[0])
    title = bundle.titles[first]
    said = planner.because(found.asker, first)
    liked = [f"“{bundle.titles[int(found.asker.rows[i])]}”" for i in said]
    if liked:
        reasons.append(f"Who liked {' and '.join(liked)} liked “{title}” too.")
    lead = signals_of(planner, found.asker, first, found.candidates[found.scored > -np.inf])
    strong = [SIGNALS[name] for name, share in lead if share >= SHARE]
    if strong:
        reasons.append(f"“{title}” stands first because of {_listed(strong)}.")
    clusters = list(dict.fromkeys(planner.cluster[found.positions].tolist()))
    several = _listed([f"“{names[c]}”" for c in clusters[:5]]) + (" and others" if len(clusters) > 5 else "")
    reasons.append(f"New to this person: {several}.")


def signals_of(planner: Planner, asker: Asker, first: int, others: NDArray[np.int64]) -> list[tuple[str, float]]:
    """By signal, the share of what lifts an item above the mean of others to show; the largest first."""
    rows = np.concatenate([[first], others])
    lift = {name: float(part[0] - part[1:].mean()) for name, part in planner.parts(asker, rows).items()}
    total = sum(value for value in lift.values() if value > 0)
    shares = [(name, value / total) for name, value in lift.items() if value > 0]
    return sorted(shares, key=lambda one: -one[1])


def asker_of(bundle: Bundle, person: Person, state: NDArray[np.float32] | None = None) -> Asker:
    """A person as the signals see them; `state` is the item policy's vector of the history, where it is known."""
    planner = _planner(bundle)
    rows = np.array(person.positions, dtype=np.int64)
    values = planner.fitted.values(person.liked)
    state = bundle.encode(person.positions) if state is None else state
    return Asker(rows, values, state, _shares(bundle, person, planner))


def _scored(
    bundle: Bundle, person: Person, state: NDArray[np.float32] | None = None
) -> tuple[Asker, NDArray[np.int64], NDArray[np.float32]]:
    """Who asks, the positions that are scored, and their scores; -inf for what is not to be shown."""
    planner, asker = _planner(bundle), asker_of(bundle, person, state)
    candidates = planner.candidates(asker, person.open)
    scored = planner.scores(asker, candidates)
    barred = ~person.open[planner.cluster[candidates]]
    if len(candidates) == len(bundle.ids):
        barred[person.apart] = True
        if person.eligible.mask is not None:
            barred |= ~person.eligible.mask
    else:
        barred |= np.isin(candidates, person.apart)
        if person.eligible.mask is not None:
            barred |= ~person.eligible.mask[candidates]
    return asker, candidates, np.where(barred, np.float32(-np.inf), scored)


def _shares(bundle: Bundle, person: Person, planner: Planner) -> dict[str, NDArray[np.float32]]:
    """What the table says of every cluster, over all contexts that could be drawn."""
    if not planner.fitted.weights.get("table") or not person.recent:
        return {}
    contexts, chance = pairs.drawable(bundle, person)
    M = len(bundle.manifest.names)
    return {"table": draws.reciprocal_rank(bundle.ranking(contexts), chance, M)}


def _planner(bundle: Bundle) -> Planner:
    assert bundle.planner is not None  # `applies` has seen to it
    return bundle.planner


def _last(planner: Planner, asker: Asker) -> list[int]:
    return [int(c) for c in planner.cluster[asker.rows[-1:]]]


def _listed(words: Sequence[str]) -> str:
    """As a sentence has them: “a, b and c”."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
