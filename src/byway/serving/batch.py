"""What `recommend` answers to each of many people, as columns instead of sentences.

Every person is read and drawn for as in `recommend`, by the same functions; the table is asked for all of their
contexts at once, and the item policy reads their histories in batches. It does not know where the people come from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.items.restrict import top_anywhere, top_in_slice
from byway.serving import plan
from byway.serving.answers import PROPENSITY_DIGITS, SCORE_DIGITS, popular_items
from byway.serving.bundle import Bundle
from byway.serving.pairs import context_of, drawable, popular_open
from byway.serving.person import Person, Seen, person_of

PEOPLE = 512
"""People who are answered together. Where items grow too old (`bundle.max_age_days`) each of them has a mask of the
catalog of their own: 0.5 GB of a million items."""
CONTEXTS = 1 << 16
"""Rankings that are looked up at once: 13 MB where each has 50 clusters."""


@dataclass(frozen=True, slots=True)
class Request:
    """One person to answer."""

    known: list[tuple[Seen, int]]
    """Items of the history that the catalog knows and their positions, the most recent last."""
    now: int | None
    """Microseconds; None where all of the history counts as recent."""
    rng: np.random.Generator
    """This person's own, so that it does not matter who else is answered, nor in which order."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A row for each item that somebody is shown: people in their order, for each the best item first."""

    person: NDArray[np.int64]
    """[N] place in what was asked."""
    rank: NDArray[np.int64]
    """[N] from 1."""
    position: NDArray[np.int64]
    """[N] of the item in the bundle."""
    score: NDArray[np.float64]
    """[N] as in `Shown`."""
    propensity: NDArray[np.float64]
    """[N] as in `Shown`."""


Best = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]
"""Positions of a person's items, their scores, and their propensities."""


def answer(bundle: Bundle, people: Iterable[Request], k: int) -> Answers:
    """What each person is shown: at most `k` items, all of whose places explore.

    People are taken as they are needed, PEOPLE at a time.
    """
    asked, found = iter(people), list[Best]()
    while some := list(islice(asked, PEOPLE)):
        found += _answer(bundle, some, k)
    length = np.array([len(positions) for positions, _, _ in found], dtype=np.int64)
    person = np.repeat(np.arange(len(found)), length)
    scores = [round(s, SCORE_DIGITS) for _, own, _ in found for s in own.tolist()]
    return Answers(
        person=person,
        rank=np.arange(len(person)) - np.repeat(np.cumsum(length) - length, length) + 1,
        position=np.concatenate([np.empty(0, np.int64), *(positions for positions, _, _ in found)]),
        score=np.array(scores, dtype=np.float64),
        propensity=np.array([round(p, PROPENSITY_DIGITS) for *_, own in found for p in own.tolist()], np.float64),
    )


def _answer(bundle: Bundle, people: Sequence[Request], k: int) -> list[Best]:
    found: dict[int, Best] = {}
    planned: dict[int, Person] = {}
    drawn: dict[int, tuple[Person, NDArray[np.int64], NDArray[np.float64]]] = {}
    # What may be shown is kept for one hour at a time, so people of one hour follow each other.
    for i in sorted(range(len(people)), key=lambda i: people[i].now or 0):
        person = person_of(bundle, people[i].known, people[i].now, [], None, [])
        if not person.recent:
            found[i] = _sure(*popular_items(bundle, k, person))
            continue
        if plan.applies(bundle, person):
            planned[i] = person
            continue
        context = np.array([context_of(bundle, person, people[i].rng)])
        others, chance = drawable(bundle, person)
        drawn[i] = person, np.concatenate([context, others]), chance
    users = bundle.encode_many([person.positions for person, _, _ in drawn.values()])
    leads = _leads(bundle, [(person, contexts) for person, contexts, _ in drawn.values()])
    for (i, (person, _, chance)), user, led in zip(drawn.items(), users, leads, strict=True):
        chosen = int(led[0])
        if chosen < 0:
            found[i] = _sure(*top_anywhere(bundle.vectors, user, k, person.barred(0, len(bundle.ids))))
            continue
        start, stop = int(bundle.starts[chosen]), int(bundle.starts[chosen + 1])
        best = top_in_slice(bundle.vectors, user, start, stop, k, person.barred(start, stop))
        leading = min(float(chance[led[1:] == chosen].sum()), 1.0)
        found[i] = (*best, np.full(len(best[0]), leading))
    states = bundle.encode_many([person.positions for person in planned.values()])
    for (i, person), state in zip(planned.items(), states, strict=True):
        page = plan.page_of(bundle, person, people[i].rng, k, state)
        if len(page.positions):
            found[i] = page.positions, page.scores, np.array(plan.chances(bundle, page, k, 1.0))
        else:
            found[i] = _sure(*top_anywhere(bundle.vectors, state, k, person.barred(0, len(bundle.ids))))
    return [found[i] for i in range(len(people))]


def _sure(positions: NDArray[np.int64], scores: NDArray[Any]) -> Best:
    """What does not depend on any draw."""
    return positions, scores, np.ones(len(positions))


def _leads(bundle: Bundle, contexts: Sequence[tuple[Person, NDArray[np.int64]]]) -> Iterator[NDArray[np.int64]]:
    """For each person the cluster to which each context leads them, as `recommend.leads_to` finds it."""
    if not contexts:
        return
    every = np.concatenate([some for _, some in contexts])
    length = [len(some) for _, some in contexts]
    who = np.repeat(np.arange(len(contexts)), length)
    opened = np.array([person.open for person, _ in contexts])
    popular = np.array([-1 if (c := popular_open(bundle, person)) is None else c for person, _ in contexts])
    led = popular[who]
    for start in range(0, len(every), CONTEXTS):
        part = slice(start, start + CONTEXTS)
        listed = bundle.ranking(every[part])
        is_open = (listed >= 0) & opened[who[part, None], listed]
        best = listed[np.arange(len(listed)), is_open.argmax(axis=1)]
        led[part] = np.where(is_open.any(axis=1), best, led[part])
    yield from np.split(led, np.cumsum(length)[:-1])
