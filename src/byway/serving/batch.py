"""What `recommend` answers to each of many people, as columns instead of sentences.

Every person is read and decided for as in `recommend`; the item policy reads the histories of many at
once. It does not know where the people come from.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.serving.answers import PROPENSITY_DIGITS, SCORE_DIGITS, popular_items
from byway.serving.bundle import Bundle
from byway.serving.person import Person, Seen, person_of
from byway.serving.recommend import decide

PEOPLE = 512
"""People who are answered together. Where items grow too old (`bundle.max_age_days`) each of them has a mask of the
catalog of their own: 0.5 GB of a million items."""


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


Best = tuple[NDArray[np.int64], NDArray[Any], list[float]]
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
        propensity=np.array([round(p, PROPENSITY_DIGITS) for *_, own in found for p in own], np.float64),
    )


def _answer(bundle: Bundle, people: Sequence[Request], k: int) -> list[Best]:
    found: dict[int, Best] = {}
    asking: dict[int, Person] = {}
    # What may be shown is kept for one hour at a time, so people of one hour follow each other.
    for i in sorted(range(len(people)), key=lambda i: people[i].now or 0):
        person = person_of(bundle, people[i].known, people[i].now, [], None, [])
        if person.recent:
            asking[i] = person
        else:
            positions, traffic = popular_items(bundle, k, person)
            found[i] = positions, traffic, [1.0] * len(positions)
    states = bundle.encode_many([person.positions for person in asking.values()])
    for (i, person), state in zip(asking.items(), states, strict=True):
        chosen = decide(bundle, person, people[i].rng, k, state=state)
        found[i] = chosen.positions, chosen.scores, chosen.propensities
    return [found[i] for i in range(len(people))]
