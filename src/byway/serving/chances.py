"""How likely every item is to stand in an answer: over all that is drawn at random, without drawing anything.

What `Shown.propensity` says of the items that are shown, for all that could be: so a log of exposures can be
weighed by what another arm would have shown to the same people. It reads a history as `recommend` does.
"""

import numpy as np
from numpy.typing import NDArray

from byway.base.ranking import top
from byway.serving import arms, pairs, plan
from byway.serving.answers import best, popular_items
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
        return _sure(arms.masked_best(opened, person, k)[0])
    if plan.applies(opened, person):
        return _of_page(opened, person, k)
    return _of_pairs(opened, person, k)


def _sure(positions: NDArray[np.int64]) -> Chances:
    return dict.fromkeys(positions.tolist(), 1.0)


def _of_page(opened: Bundle, person: Person, k: int) -> Chances:
    # Scores do not depend on the draw.
    found = plan.page_of(opened, person, np.random.default_rng(0), k).found
    of = top(found.score, max(WIDE, k))
    if not len(of):
        return _sure(best(opened, person, opened.encode(person.positions), k)[0])
    chance = plan.chances_of(opened, found, of, k)
    positions = found.candidates[of][chance > 0]
    return dict(zip(positions.tolist(), chance[chance > 0].tolist(), strict=True))


def _of_pairs(opened: Bundle, person: Person, k: int) -> Chances:
    leads = pairs.leads(opened, person)
    user = opened.encode(person.positions)
    found: Chances = {}
    for cluster in np.unique(leads.cluster).tolist():
        leading = leads.chance_of(cluster)
        for position in best(opened, person, user, k, cluster if cluster >= 0 else None)[0].tolist():
            found[position] = found.get(position, 0.0) + leading
    return found
