"""The graph against brute force, its symmetry, and its behaviour on equal and opposite rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.interests import graph
from tests.interests import planted


def dense(found: graph.Graph) -> np.ndarray:
    matrix = np.zeros((len(found), len(found)), np.float32)
    for i in range(len(found)):
        row = slice(found.indptr[i], found.indptr[i + 1])
        matrix[i, found.indices[row]] = found.weights[row]
    return matrix


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_exact_search_is_brute_force() -> None:
    vectors = unit(np.random.default_rng(0), 120, 8)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    near = np.argsort(-cosines, axis=1)[:, :5]
    linked = np.zeros_like(cosines, bool)
    np.put_along_axis(linked, near, True, axis=1)
    linked |= linked.T
    found = dense(graph.nearest(vectors, 5))
    np.testing.assert_array_equal(found > 0, linked)
    np.testing.assert_allclose(found[linked], np.clip(cosines, graph.FAINTEST, 1)[linked], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), k=st.integers(1, 70), copies=st.integers(1, 30), seed=st.integers(0, 9))
def test_symmetric_without_loops_and_within_bounds(n: int, k: int, copies: int, seed: int) -> None:
    vectors = unit(np.random.default_rng(seed), n, 4)
    vectors[: min(copies, n)] = vectors[0]
    found = graph.nearest(vectors, k)
    matrix = dense(found)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 0).all()
    assert len(found.indices) == (matrix > 0).sum()
    assert ((found.weights > 0) & (found.weights <= 1)).all()
    assert (np.diff(found.indptr) >= min(k, n - 1)).all()
    assert (found.indptr.dtype, found.indices.dtype, found.weights.dtype) == (np.int64, np.int32, np.float32)


def test_approximate_search_finds_nearly_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "CELL", 60)
    # Spread evenly, so that at the border of a cell the nearest are in the next ones.
    vectors = unit(np.random.default_rng(1), 2560, 3)
    asked: list[int] = []
    among = graph.among

    def counted(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(rows))
        return among(queries, rows, k)

    monkeypatch.setattr(graph, "among", counted)
    exact, near = dense(graph.nearest(vectors, 10)) > 0, dense(graph.nearest(vectors, 10, exact=False)) > 0
    assert (exact & near).sum() / exact.sum() > 0.97
    # All rows once for the exact search; then the cells' centroids, and a part of the rows for every cell.
    assert asked[0] == len(vectors)
    assert len(asked) > 40
    assert max(asked[1:]) < len(vectors) / 2


@pytest.mark.parametrize("exact_up_to", [10_000, 10])
def test_two_builds_are_byte_identical(exact_up_to: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "CELL", 40)
    monkeypatch.setattr(graph, "EXACT_UP_TO", exact_up_to)
    vectors, _ = planted.hierarchy((4, 4), 30, np.random.default_rng(2))
    vectors[10:60] = vectors[10]
    for name in ("one", "two"):
        work = planted.work(tmp_path, name)
        outcome = graph.build(work, vectors)
        assert outcome.metrics["graph.exact"] == (exact_up_to > 480)
    for file in ("indptr.npy", "indices.npy", "weights.npy"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    loaded = graph.load(tmp_path / "one")
    assert len(loaded) == 480
    assert loaded.indptr[-1] == len(loaded.indices) == len(loaded.weights)
