"""Controls that can fail: a source that peeks at the truth, and two identical arms.

They know the platform and its figures, and no particular arm.
"""

import copy

import numpy as np

from byway.base import metrics
from byway.simulation.platform import Environment
from byway.simulation.source import Asked, Source
from byway.simulation.tallies import Tally

FEW = 10
"""People who make up a figure, at least, for its bootstrap to be read: where one arm has none of them the lift is
-100% in every draw, however few the other has, and so would always differ."""


def leaks(source: Source, environment: Environment, asked: Asked, k: int, seed: int) -> bool:
    """Whether the source's answer depends on the truth.

    The same question is put three times: as things are, with every hidden array overwritten in place by a
    permutation of itself, and with the truth restored. Whatever way a source came by a reference, its answer then
    changes. One that would build the world anew from its seed is not caught: that is for a reader of the code.
    """
    # Each time a copy answers, so that a source that counts its questions is not taken for one that peeks. The
    # arrays of the truth stay shared: a copy of them would not feel the change.
    shared = {id(array): array for array in environment.hidden()}

    def answer() -> np.ndarray:
        asked_again = copy.deepcopy(source, dict(shared))
        return asked_again.nominate(asked, k, np.random.default_rng(seed))

    before = answer()
    kept = [array.copy() for array in environment.hidden()]
    rng = np.random.default_rng(seed + 1)
    for array in environment.hidden():
        array[...] = rng.permutation(array.ravel()).reshape(array.shape)
    during = answer()
    for array, was in zip(environment.hidden(), kept, strict=True):
        array[...] = was
    return not (np.array_equal(before, during) and np.array_equal(before, answer()))


def different(one: Tally, other: Tally, times: int, rng: np.random.Generator) -> dict[str, bool]:
    """By metric that both arms have, each of at least `FEW` people: whether they differ significantly at 5%.

    Sums are [U], or [S, U] over deals, which are drawn then as people are.
    """
    deals, users = np.atleast_2d(next(iter(one.values()))[0]).shape
    people_BU, deals_BS = (
        metrics.bootstrap_weights(users, times, rng),
        metrics.replication_weights(deals, times, rng),
    )
    found: dict[str, bool] = {}
    for name in sorted(one.keys() & other.keys()):
        if min(np.count_nonzero(each[name][0]) for each in (one, other)) < FEW:
            continue
        (own,), (reference,) = (
            metrics.bootstrap_ratios(np.atleast_2d(top)[None], below, people_BU, deals_BS)
            for top, below in (one[name], other[name])
        )
        interval = own.over(reference)
        if np.isfinite([interval.low, interval.high]).all():
            found[name] = interval.away_from(0)
    return found
