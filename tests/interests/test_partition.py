"""Cutting and balancing: planted parts, properties, and the repair of what cannot be right."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from byway.interests import graph, partition
from byway.interests.partition import coherence, loads_of
from tests.interests import planted


def heaviest(labels: np.ndarray, weights: np.ndarray, parts: int) -> float:
    return float(loads_of(labels, weights, parts).max() / (weights.sum() / parts))


def test_planted_parts_are_found_and_balanced() -> None:
    vectors, (truth,) = planted.hierarchy((24,), 40, np.random.default_rng(0))
    weights = np.random.default_rng(1).uniform(0.9, 1.1, len(vectors))
    labels = partition.partition(vectors, weights, 24, 1.05, np.random.default_rng(2))
    assert normalized_mutual_info_score(truth, labels) > 0.97
    assert heaviest(labels, weights, 24) <= 1.05 + 1e-9


def test_micro_clusters_lead_to_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "DIRECT", 500)
    monkeypatch.setattr(partition, "CELL", 400)
    vectors, (truth,) = planted.hierarchy((24,), 100, np.random.default_rng(0))
    weights = np.ones(len(vectors))
    labels = partition.partition(vectors, weights, 24, 1.05, np.random.default_rng(2))
    assert normalized_mutual_info_score(truth, labels) > 0.97
    assert heaviest(labels, weights, 24) <= 1.05 + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 120),
    parts=st.integers(1, 40),
    copies=st.integers(0, 120),
    heavy=st.floats(0, 50),
    seed=st.integers(0, 99),
)
def test_every_part_has_rows_and_the_weight_is_spread(
    n: int, parts: int, copies: int, heavy: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    vectors[: min(copies, n)] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = rng.uniform(0.5, 1.5, n)
    weights[0] += heavy
    labels = partition.partition(vectors, weights, min(parts, n), 1.05, rng)
    counts = np.bincount(labels, minlength=min(parts, n))
    assert len(counts) == min(parts, n)
    assert counts.min() >= 1
    # No part exceeds the tolerance by more than one row, unless it is one row, or all others are full too.
    loads = loads_of(labels, weights, len(counts))
    cap = 1.05 * weights.sum() / len(counts)
    for part in np.flatnonzero((loads > cap + 1e-9) & (counts > 1)):
        lightest = weights[labels == part].min()
        assert (loads + lightest > cap - 1e-9).all() or lightest > cap


def test_repair_moves_what_suits_elsewhere_and_never_empties() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.9, 0.436], [0.1, 0.995], [0, 1]], np.float32)
    labels = np.array([0, 0, 0, 0, 1])
    found = partition.repair(vectors, labels, np.ones(5), 2, 3.0)
    assert found.tolist() == [0, 0, 0, 1, 1]
    assert partition.repair(vectors[:2], np.array([0, 1]), np.array([9.0, 1.0]), 2, 5.0).tolist() == [0, 1]


def test_fill_empty_takes_the_row_that_fits_least() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert partition.fill_empty(vectors, np.zeros(3, np.int64), np.ones(3), 2).tolist() == [0, 0, 1]


def test_coherence_is_the_mean_cosine_to_the_centroid() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(50, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = rng.integers(0, 7, 50)
    middle = partition.centroids(vectors, labels, 7)
    by_hand = np.mean([vectors[i] @ middle[labels[i]] for i in range(50)])
    assert coherence(vectors, labels, 7) == pytest.approx(by_hand, abs=1e-6)


def test_balance_costs_little_coherence() -> None:
    vectors, _ = planted.hierarchy((6, 6), 50, np.random.default_rng(5), noise=1.0)
    weights = planted.zipf(len(vectors), np.random.default_rng(6), 0.6)
    balanced = partition.partition(vectors, weights, 36, 1.05, np.random.default_rng(7))
    free = partition.partition(vectors, np.ones(len(vectors)), 36, 100.0, np.random.default_rng(7))
    assert heaviest(balanced, weights, 36) <= 1.05 + 1e-9
    assert coherence(vectors, balanced, 36) > 0.93 * coherence(vectors, free, 36)


def test_metis_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """It complains on standard output of parts that one heavy row leaves empty; that belongs to answers."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.ones(400)
    weights[:3] = 4000.0
    partition.metis(graph.nearest(rows, 10), weights, 60, rng)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("shared", [True, False])
def test_rows_that_are_not_asked_again_would_not_have_changed_their_mind(shared: bool) -> None:
    """Against prices at which every row is asked in every step."""
    rng = np.random.default_rng(9)
    n, parts, k = 600, 12, 12 if shared else 5
    near = np.argsort(rng.random((n, parts)), axis=1)[:, :k].astype(np.int32)
    if shared:
        near = np.broadcast_to(np.arange(parts, dtype=np.int32), (n, parts))
    scores = (0.5 + 0.1 * rng.normal(size=(n, k)) - 0.05 * near).astype(np.float32)
    weights = rng.lognormal(0.0, 1.0, n)
    cap = 1.02 * weights.sum() / parts
    relative = (weights / weights.mean()).astype(np.float32)

    def straight() -> tuple[np.ndarray, float]:
        prices, pace, former = np.zeros(parts, np.float32), np.full(parts, partition.PACE), np.zeros(parts)
        best, least, since = np.zeros(n, np.int64), np.inf, 0
        for _ in range(partition.PRICE_STEPS):
            choice = near[np.arange(n), (scores - relative[:, None] * prices[near]).argmax(axis=1)]
            load = loads_of(choice, weights, parts) / cap
            excess, since = np.maximum(load - 1, 0).sum(), since + 1
            if excess < least:
                best, least, since = choice, excess, 0
            if excess == 0 or since == partition.PRICE_PATIENCE:
                break
            pace *= np.where(np.sign(load - 1) == former, 1.2, 0.5)
            former = np.sign(load - 1)
            prices = np.maximum(prices + pace * np.minimum(load - 1, 1), 0).astype(np.float32)
        return best, least

    expected, least = straight()
    found, prices = partition.reassign(
        scores, near, np.zeros(n, np.int64), weights, cap, np.zeros(parts, np.float32)
    )
    np.testing.assert_array_equal(found, expected)
    # The prices do something: at none the parts would be far too heavy.
    free = near[np.arange(n), scores.argmax(axis=1)]
    assert least < 0.3 * np.maximum(loads_of(free, weights, parts) / cap - 1, 0).sum()
    assert prices.max() > 0
