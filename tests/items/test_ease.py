"""EASE in closed form against ridge regression column by column, and its scores against a matrix product."""

import numpy as np
import pytest

from byway.items import ease


def by_force(x: np.ndarray, ridge: float) -> np.ndarray:
    """[n, n] each column by ridge regression on all other columns."""
    n = x.shape[1]
    found = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = x[:, others]
        found[others, j] = np.linalg.solve(a.T @ a + ridge * np.eye(n - 1), a.T @ x[:, j])
    return found


def drawn(seed: int, people: int = 60, units: int = 9) -> np.ndarray:
    """[people, units] values of either sign, most of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((people, units)) < 0.3, rng.normal(0.3, 1, (people, units)), 0).astype(np.float32)


def sparse(x: np.ndarray):
    user, unit = x.nonzero()
    return ease.interaction_matrix(user, unit, x[user, unit], x.shape)


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_the_weights_are_those_of_a_regression_for_each_unit(ridge):
    x = drawn(1)
    assert (x < 0).any()
    found = ease.solve(sparse(x), ridge)
    assert found.dtype == np.float32
    assert (found.diagonal() == 0).all()
    np.testing.assert_allclose(found, by_force(x.astype(np.float64), ridge), atol=1e-5)


def test_a_matrix_that_cannot_be_inverted_is_refused():
    x = drawn(5)
    x[:, 1] = x[:, 0]
    with pytest.raises(ValueError, match="9 units with ridge 0"):
        ease.solve(sparse(x), 0.0)


def test_the_largest_in_size_are_kept_whatever_their_sign():
    b = np.array([[0, -5, 1, 2], [4, 0, -3, 1], [1, 2, 0, 3], [-1, -2, -3, 0]], np.float32)
    kept = ease.largest(b, 2)
    assert kept.to.tolist() == [[1, 3], [0, 2], [1, 3], [1, 2]]
    assert kept.weight.tolist() == [[-5, 2], [4, -3], [2, 3], [-2, -3]]
    assert ease.largest(b, 100).to.shape == (4, 3)
    assert ease.largest(np.zeros((1, 1), np.float32)).weight.tolist() == [[0]]


def test_scores_are_the_matrix_product_over_what_is_kept(tmp_path):
    b = ease.solve(sparse(drawn(6, units=12)), 2.0)
    kept = ease.largest(b, 5)
    dense = np.zeros_like(b)
    for i, (to, weight) in enumerate(zip(kept.to, kept.weight, strict=True)):
        dense[i, to] = weight
        assert set(to.tolist()) == set(np.argsort(-np.abs(b[i]))[:5].tolist())
    units, times = np.array([7, 2, 4]), np.array([1.0, -0.5, 2.0], np.float32)
    np.testing.assert_allclose(kept.scores(units), dense[units].sum(0), atol=1e-6)
    np.testing.assert_allclose(kept.scores(units, times), times @ dense[units], atol=1e-6)
    assert (kept.scores(np.empty(0, np.int64)) == 0).all()
    kept.save(tmp_path, "some")
    back = ease.load(tmp_path, "some")
    assert back.n == 12
    np.testing.assert_array_equal(back.scores(units, times), kept.scores(units, times))


def test_repeated_events_count_by_their_mean_value():
    user, unit = np.array([0, 1, 0, 0, 1, 0]), np.array([2, 0, 2, 1, 0, 2])
    value = np.array([1.0, -0.5, 0.5, 3.0, -1.5, -3.0])
    found = ease.interaction_matrix(user, unit, value, (3, 4))
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.toarray(), [[0, 3, -0.5, 0], [-1, 0, 0, 0], [0, 0, 0, 0]])
