"""How likely every item is to stand in an answer: over all that is drawn at random, without drawing anything.

What `Shown.propensity` says of the items that are shown, for all that could be: so a log of exposures can be
weighed by what another arm would have shown to the same people. It reads a history as `recommend` does.
"""

import numpy as np
from numpy.typing import NDArray

from byway.items.restrict import top_anywhere, top_in_slice
from byway.planner import page
from byway.serving import arms, pairs, plan
from byway.serving.answers import popular_items
from byway.serving.bundle import Bundle
from byway.serving.person import Person, Seen, read

WIDE = 300
"""Best items of a page of new interests whose chance is worked out; those after them are shown where most of the
interests before them are left out."""

Chances = dict[int, float]
"""By position of an item; those that are not there have none."""


def chances(serves: str, opened: Bundle, history: list[Seen], k: int, now: int | None) -> Chances:
    """The chance of each item to stand in an answer of an arm to somebody with this history, at most k items of it.

    The sum of them is the number of items that the answer holds on average.
    """
    if serves == arms.CONTROL:
        return {}
    person = read(opened, history, now, (), None, [])
    if not person.recent:
        return _sure(popular_items(opened, k, person)[0])
    if serves == arms.MASKED:
        barred = person.barred(0, len(opened.ids))
        return _sure(page.ranked(arms.masked_scores(opened, person.positions, person.open, barred), k))
    if plan.applies(opened, person):
        return _of_page(opened, person, k)
    return _of_pairs(opened, person, k)


def _sure(positions: NDArray[np.int64]) -> Chances:
    return dict.fromkeys(positions.tolist(), 1.0)


def _of_page(opened: Bundle, person: Person, k: int) -> Chances:
    # Scores do not depend on the draw.
    found = plan.page_of(opened, person, np.random.default_rng(0), k).found
    of = page.ranked(found.score, max(WIDE, k))
    if not len(of):
        return _anywhere(opened, person, k)
    settings, M = opened.settings, len(opened.manifest.names)
    chance = page.chances(found.score, found.cluster, M, of, k=k, most=settings.new_interests, skip=settings.skip)
    positions = found.candidates[of][chance > 0]
    return dict(zip(positions.tolist(), chance[chance > 0].tolist(), strict=True))


def _of_pairs(opened: Bundle, person: Person, k: int) -> Chances:
    contexts, chance = pairs.drawable(opened, person)
    led = pairs.leads_to(opened, person, contexts)
    user = opened.encode(person.positions)
    found: Chances = {}
    for cluster in np.unique(led).tolist():
        leading = min(float(chance[led == cluster].sum()), 1.0)
        if cluster < 0:
            own = _anywhere(opened, person, k, user)
        else:
            start, stop = int(opened.starts[cluster]), int(opened.starts[cluster + 1])
            barred = person.barred(start, stop)
            own = _sure(top_in_slice(opened.vectors, user, start, stop, k, exclude=barred)[0])
        for position in own:
            found[position] = found.get(position, 0.0) + leading
    return found


def _anywhere(opened: Bundle, person: Person, k: int, user: NDArray[np.float32] | None = None) -> Chances:
    user = opened.encode(person.positions) if user is None else user
    return _sure(top_anywhere(opened.vectors, user, k, exclude=person.barred(0, len(opened.ids)))[0])
