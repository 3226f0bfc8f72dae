"""The benchmark of the item policy beside its opponents: EASE by brute force, and a split that can be read."""

import numpy as np
import pytest
from benchmarks import questions
from benchmarks.questions import Split
from benchmarks.sequence import ease, near
from scipy import sparse


def test_ease_is_the_regression_of_every_item_on_all_others():
    rng = np.random.default_rng(0)
    x = (rng.random((40, 7)) < 0.4).astype(np.float32)
    found = ease(sparse.csr_array(x), 3.0)
    for j in range(7):
        others = [i for i in range(7) if i != j]
        a = x[:, others].astype(np.float64)
        weights = np.linalg.solve(a.T @ a + 3.0 * np.eye(6), a.T @ x[:, j])
        assert found[others, j] == pytest.approx(weights, abs=1e-5)
        assert found[j, j] == 0


# Items 0 to 5; clusters of two: 0 1, 2 3, 4 5. Person 0 meets two new clusters, person 1 none after the first.
USER = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
ITEM = np.array([0, 2, 4, 5, 1, 1, 2, 3, 2, 4])
GOOD = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 0], bool)
CLUSTER = np.array([0, 0, 1, 1, 2, 2])


def made(share: float = 1.0) -> Split:
    held = questions.hold_out(USER, ITEM, GOOD, CLUSTER, share=share, most=10, seed=0)
    start, stop = np.array([0, 6]), np.array([6, 10])
    for rows in held.values():
        np.minimum.at(stop, USER[rows], rows)
    return Split(
        USER, ITEM, np.ones(10, np.float32), GOOD, start, stop, CLUSTER, np.eye(6, dtype=np.float32), **held
    )


def test_the_last_liked_events_of_a_new_item_and_of_a_new_cluster_are_held_out():
    split = made()
    # Person 1 has no liked event of a new cluster; item 1 was new to person 0 when it was not liked.
    assert (split.test_item.tolist(), split.test_cluster.tolist()) == ([3], [2])
    assert split.rows(liked=False).tolist() == [0, 1, 6, 7, 8, 9]
    assert split.rows(liked=True).tolist() == [0, 1, 6, 7, 8]


def test_what_was_met_is_no_candidate():
    split = made()
    assert split.history(np.array([3, 9]), 4, liked=True).tolist() == [[0, 1, 3, 5], [0, 3, 4, 3]]
    assert np.flatnonzero(split.closed(split.test_item, "item")[0]).tolist() == [0, 2, 4]
    assert np.flatnonzero(split.closed(split.test_cluster, "cluster")[0]).tolist() == [0, 1, 2, 3]
    falling = np.arange(6, 0, -1, dtype=np.float32)
    # Of the new items 1, 3 and 5 the last is held out; of the new cluster's 4 and 5 the first.
    assert questions.ranks(split, "test", "item", lambda at: np.tile(falling, (len(at), 1))).tolist() == [2]
    assert questions.ranks(split, "test", "cluster", lambda at: np.tile(falling, (len(at), 1))).tolist() == [0]


def test_counts_are_of_neighbours_within_the_window_over_the_roots():
    split = made()
    # In training person 0 liked 0 2, person 1 liked 2 3 2: 2 three times, 0 and 3 once.
    close = near(split, 1).toarray()
    assert close[0, 2] == close[2, 0] == pytest.approx(1 / np.sqrt(3))
    assert close[2, 3] == pytest.approx(2 / np.sqrt(3))
    assert near(split, 2).toarray()[2, 2] == pytest.approx(2 / 3)
