"""Figures of a ranking against their definitions."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import ranking

counted = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=40)
places = st.integers(1, 50)


def test_the_examples_worked_by_hand() -> None:
    found = doctest.testmod(ranking)
    assert found.attempted >= 4
    assert found.failed == 0


@settings(deadline=None)
@given(counted, places)
def test_recall_is_the_share_that_is_found(rows: list[tuple[int, int, int]], k: int) -> None:
    ranks, counts, _ = zip(*rows, strict=True)
    expected = Fraction(sum(rank < k for rank in ranks), len(ranks))
    assert ranking.recall_at(ranks, k) == pytest.approx(float(expected), abs=1e-6)
    weighted = Fraction(sum(c for rank, c in zip(ranks, counts, strict=True) if rank < k), sum(counts))
    assert ranking.recall_at(ranks, k, counts) == pytest.approx(float(weighted), abs=1e-6)


@settings(deadline=None)
@given(counted, places)
def test_counts_are_repetitions(rows: list[tuple[int, int, int]], k: int) -> None:
    ranks, counts, labels = (np.array(column) for column in zip(*rows, strict=True))
    repeated = np.repeat(ranks, counts)
    assert ranking.recall_at(ranks, k, counts) == ranking.recall_at(repeated, k)
    assert ranking.macro_recall_at(ranks, k, labels, counts) == ranking.macro_recall_at(
        repeated, k, np.repeat(labels, counts), np.ones(len(repeated))
    )


@settings(deadline=None)
@given(counted, places)
def test_macro_recall_is_the_mean_of_the_labels_recalls(rows: list[tuple[int, int, int]], k: int) -> None:
    ranks, counts, labels = zip(*rows, strict=True)
    recalls: list[Fraction] = []
    for label in sorted(set(labels)):
        own = [(rank, count) for rank, count, other in rows if other == label]
        recalls.append(Fraction(sum(c for rank, c in own if rank < k), sum(c for _, c in own)))
    expected = sum(recalls) / len(recalls)
    assert ranking.macro_recall_at(ranks, k, labels, counts) == pytest.approx(float(expected), abs=1e-6)


@settings(deadline=None)
@given(counted, places)
def test_ndcg_is_the_gain_over_the_best_gain(rows: list[tuple[int, int, int]], k: int) -> None:
    ranks = [rank for rank, _, _ in rows]
    gains = []
    for rank in ranks:
        relevance = [1.0 if place == rank else 0.0 for place in range(61)]
        gain = sum(r / math.log2(place + 2) for place, r in enumerate(relevance[:k]))
        ideal = sum(r / math.log2(place + 2) for place, r in enumerate(sorted(relevance, reverse=True)[:k]))
        gains.append(gain / ideal)
    assert ranking.ndcg_at(ranks, k) == pytest.approx(sum(gains) / len(gains), abs=1e-6)


@settings(deadline=None)
@given(counted, places)
def test_figures_grow_with_k_and_with_better_ranks(rows: list[tuple[int, int, int]], k: int) -> None:
    ranks = np.array([rank for rank, _, _ in rows])
    better = np.maximum(ranks - 1, 0)
    for figure in (ranking.recall_at, ranking.ndcg_at):
        assert 0 <= figure(ranks, k) <= figure(ranks, k + 1) <= 1
        assert figure(ranks, k) <= figure(better, k)
    assert ranking.ndcg_at(ranks, k) <= ranking.recall_at(ranks, k)


def test_nothing_has_a_figure() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert ranking.recall_at(nothing, 10) == 0
    assert ranking.ndcg_at(nothing, 10) == 0
    assert ranking.macro_recall_at(nothing, 10, nothing, nothing) == 0
    assert ranking.recall_at(nothing, 10, nothing) == 0


def test_a_label_that_does_not_occur_does_not_count() -> None:
    assert ranking.macro_recall_at([0, 0], 1, labels=[0, 7], counts=[1, 1]) == 1


def test_the_best_first_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(-3, 3, (200, 40)).astype(np.float32) * np.float32(0.1)
    score[rng.random(score.shape) < 0.3] = -np.inf
    score[0] = -np.inf
    score[1, ::2] = -0.0
    for n in (1, 7, 40):
        want = np.argsort(-score, axis=1, kind="stable")[:, :n]
        np.testing.assert_array_equal(ranking.best_first(score, n), want)
