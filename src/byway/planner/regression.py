"""The weights of the signals, by two questions: what do people take up, and what of that pleases them?

Each is a regression over the items of new interests that each person could have taken up,

    min over w of Σ weight · (y - ȳ - (x - x̄) · w)² / Σ weight + SHRINK · Σ (w · sd)²

with x the signals, sd their standard deviations and means over all items of all people. For the first question y is
the satisfaction above neutral that an item gave, and 0 where it was not taken up (`fit` says why); for the second
only what was taken up counts, and y is how much more it pleased than the same person's other items. Each answer is
brought to the same spread over a person's items, and the scores are the first and half of the second (PLEASING).
Who logs what people searched for learns most by the first, who logs what they were shown by the second; a log of
positives has the first alone.

What people take up at all is not what they take up next. Where held-out people show it, by SURE standard errors,
the best items stand in the order of the item policy: on KuaiRec 0.54 of a first page please then, 0.42 without, and
over 30 days 0.4% less. This module knows tables of numbers alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.planner.planner import ENOUGH, SIGNALS

Floats = NDArray[np.float32]

SHRINK = 1e-3
"""Ridge of the weights, beside standardised signals of variance 1."""
SURE = 2.0
"""A signal keeps its weight where that is at least so many standard errors, over people, from 0."""
SAME = 1e-6
"""Satisfaction that differs by no more is the same."""
PLEASING = 0.5
"""What of the taken up pleases counts so much beside what is taken up. Lived beside EASE, 0, a quarter, a half and
all of it please Jester's people by -6%, 13%, 16% and 18%, MovieLens' by -0.2%, 0.1%, 0.1% and 0.6%, and the
embedded world's by 6%, 2.7%, 1.7% and -1.6% (results/pleasing.json)."""
KS = (10, 50)
"""k of the figures."""
TWO_PAGES = 20
"""Items by which the order of the best is judged: of the first ten held-out people take up too few to tell."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The candidates of one person: items of interests that they had not met."""

    said: Floats
    """[c, signals]"""
    target: Floats
    """[c] satisfaction above neutral, 0 where it was not taken up."""
    weight: Floats
    """[c] how many items each stands for."""
    pleased: Floats
    """[c] satisfaction, NaN where it was not taken up."""


@dataclass(frozen=True, slots=True)
class Regression:
    """One person's rows of a regression."""

    x: Floats
    """[c, signals]"""
    y: Floats
    """[c]"""
    weight: Floats
    """[c]"""


def fitted(people: Sequence[Compared], names: tuple[str, ...]) -> tuple[dict[str, float], dict[str, Any]]:
    """The weights by signal, and what each is worth: figures of people whom the weights were not fitted on.

    `next_first` of the figures is what the first TWO_PAGES gain in the item policy's order, with its error.
    """
    every = list(SIGNALS)
    wanted = [every.index(name) for name in every if not names or name in names]
    if not people:
        return {every[i]: float(every[i] == "item_policy") for i in wanted}, {"people": 0}
    halves = [people[::2], people[1::2]] if len(people) > 1 else [people, people]
    turns = [(halves[0], halves[1]), (halves[1], halves[0])]

    def measured(columns: list[int], choose: bool = False) -> dict[int, float]:
        """By k of KS, the mean sum of the targets of the k best items."""
        total = dict.fromkeys(KS, 0.0)
        for fitted_on, asked in turns:
            w = combined(fitted_on, columns, choose)[0]
            for one in asked:
                best = np.argsort(-(one.said @ w), kind="stable")
                for k in KS:
                    total[k] += float(one.target[best[:k]].sum())
        return {k: round(value / len(people), 4) for k, value in total.items()}

    weights, standard = combined(people, wanted)
    largest = max(float(np.abs(standard).max()), 1e-12)
    figures: dict[str, Any] = {
        "people": len(people),
        "weights": {every[i]: round(float(standard[i]) / largest, 3) for i in wanted},
        "value": {f"at_{k}": value for k, value in measured(wanted, choose=True).items()},
        "alone": {every[i]: measured([i])[KS[0]] for i in wanted},
        "without": {every[i]: measured([j for j in wanted if j != i])[KS[0]] for i in wanted if len(wanted) > 1},
    }
    if every.index("item_policy") in wanted:
        gain = np.concatenate([_gain(combined(fitted_on, wanted)[0], asked) for fitted_on, asked in turns])
        error = float(gain.std()) / len(gain) ** 0.5
        figures["next_first"] = {"gain": round(float(gain.mean()), 4), "error": round(error, 4)}
    return {every[i]: float(weights[i]) for i in wanted if weights[i]}, figures


def orders(figures: dict[str, Any]) -> bool:
    """Whether the best items shall stand in the order of the item policy."""
    found = figures.get("next_first")
    return found is not None and found["gain"] > SURE * found["error"]


def _gain(weights: Floats, asked: Sequence[Compared]) -> Floats:
    """[people] how much more the first TWO_PAGES are worth with the ENOUGH best in the item policy's order."""
    policy, gain = list(SIGNALS).index("item_policy"), np.zeros(len(asked), np.float32)
    for i, one in enumerate(asked):
        best = np.argsort(-(one.said @ weights), kind="stable")[:ENOUGH]
        order = best[np.argsort(-one.said[best, policy], kind="stable")]
        gain[i] = one.target[order[:TWO_PAGES]].sum() - one.target[best[:TWO_PAGES]].sum()
    return gain


def combined(people: Sequence[Compared], columns: list[int], choose: bool = True) -> tuple[Floats, Floats]:
    """Weights [signals] by both answers, 0 outside the `columns`; and as they are beside signals of equal spread.

    Without `choose` all signals have a part in the first, whatever their weight. In the second none counts against
    an item: what a feed shows too often pleases less than what people searched for, which says more of the feed.
    """
    covariance, weights = _covariance(people), np.zeros(len(SIGNALS), np.float32)
    taken_up = [Regression(one.said, one.target, one.weight) for one in people]
    pleasing = [rows for one in people if (rows := _pleasing(one)) is not None]
    first = (backward_elimination if choose else ridge)(taken_up, columns)[0]
    second = backward_elimination(pleasing, columns, positive=True)[0] if pleasing else np.zeros_like(weights)
    for part, share in ((first, 1.0), (second, PLEASING)):
        spread = float(np.sqrt(np.maximum(np.einsum("i,pij,j->p", part, covariance, part), 0)).mean())
        if spread > 0:
            weights += np.float32(share / spread) * part
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).mean(0).astype(np.float32)
    return weights, weights * deviation


def _covariance(people: Sequence[Compared]) -> NDArray[np.float64]:
    """[people, signals, signals] how the signals vary together over the items of each person."""
    found: list[NDArray[np.float64]] = []
    for one in people:
        x = one.said - np.average(one.said, axis=0, weights=one.weight)
        found.append((x * one.weight[:, None]).T @ x / one.weight.sum())
    return np.stack(found)


def _pleasing(one: Compared) -> Regression | None:
    """What a person took up alone, beside the mean of it; None where all of it pleased alike."""
    taken = ~np.isnan(one.pleased)
    pleased = one.pleased[taken]
    if len(pleased) < 2 or float(np.ptp(pleased)) <= SAME:
        return None
    said = one.said[taken]
    return Regression(said - said.mean(0), pleased - pleased.mean(), np.ones(len(pleased), np.float32))


def backward_elimination(
    people: Sequence[Regression], columns: list[int], positive: bool = False
) -> tuple[Floats, Floats]:
    """As `ridge`, without the signals whose weight could be chance: the least sure goes first, and the last stays.
    With `positive` those below 0 go too, and none has to stay.

    Standard errors are over people, whose items hang together (the sandwich of White, 1980, by person). With a few
    people eight signals fit chance; with many all stay that say anything.
    """
    left = list(columns)
    while True:
        weights, standard = ridge(people, left)
        if len(left) <= (0 if positive else 1):
            return weights, standard
        errors = _standard_errors(people, left, weights)
        sure = (weights[left] if positive else np.abs(weights[left])) / errors
        if sure.min() >= SURE:
            return weights, standard
        left.pop(int(sure.argmin()))


def _standard_errors(people: Sequence[Regression], columns: list[int], weights: Floats) -> NDArray[np.float64]:
    """[columns] of these weights, over people."""
    bread = np.zeros((len(columns), len(columns)))
    meat = np.zeros_like(bread)
    n = sum(float(one.weight.sum()) for one in people)
    mean_x = sum(one.weight @ one.x[:, columns] for one in people) / n
    mean_y = sum(float(one.weight @ one.y) for one in people) / n
    for one in people:
        x = (one.x[:, columns] - mean_x).astype(np.float64)
        weighed = x * one.weight[:, None]
        bread += weighed.T @ x
        pull = weighed.T @ (one.y - mean_y - x @ weights[columns])
        meat += np.outer(pull, pull)
    inverse = np.linalg.pinv(bread)
    return np.sqrt(np.maximum(np.diag(inverse @ meat @ inverse), 1e-30))


def ridge(people: Sequence[Regression], columns: list[int]) -> tuple[Floats, Floats]:
    """Weights [signals] of those in `columns`, 0 of the others; and as they are beside standardised signals."""
    S = len(SIGNALS)
    n, sum_x, sum_xx, sum_xy, sum_y = 0.0, np.zeros(S), np.zeros((S, S)), np.zeros(S), 0.0
    for one in people:
        weighed = (one.x * one.weight[:, None]).astype(np.float64)
        n += float(one.weight.sum())
        sum_x += weighed.sum(0)
        sum_xx += weighed.T @ one.x
        sum_xy += weighed.T @ one.y
        sum_y += float(one.weight @ one.y)
    mean = sum_x / n
    deviation = np.sqrt(np.maximum(np.diag(sum_xx) / n - mean**2, 0))
    # What is left of a constant by the difference of two large numbers is no signal.
    use = [i for i in columns if deviation[i] > 1e-6 * np.sqrt(sum_xx[i, i] / n)]
    weights, standard = np.zeros(S, np.float32), np.zeros(S, np.float32)
    if use:
        sd = deviation[use]
        correlation = (sum_xx[np.ix_(use, use)] / n - np.outer(mean[use], mean[use])) / np.outer(sd, sd)
        right = (sum_xy[use] / n - mean[use] * sum_y / n) / sd
        standard[use] = np.linalg.solve(correlation + SHRINK * np.eye(len(use)), right)
        weights[use] = standard[use] / sd
    return weights, standard
