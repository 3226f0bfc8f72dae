"""The tree: planted levels are found, the four levels nest and cover, sizes are derived or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from byway.base import config
from byway.base.errors import UserError
from byway.interests import graph, tree
from tests.interests import planted

SETTINGS = config.Tree()


def grow(
    vectors: np.ndarray,
    traffic: np.ndarray,
    sizes: tuple[int, ...],
    seed: int = 0,
) -> tree.Tree:
    links = graph.nearest(vectors, 20)
    return tree.grow(vectors, links, traffic, sizes, np.random.default_rng(seed))


def check(found: tree.Tree, n: int, sizes: tuple[int, ...]) -> None:
    """Every item once; four levels of the sizes asked for, contiguous, nested, none empty."""
    assert sorted(found.order.tolist()) == list(range(n))
    for level, size in enumerate(sizes, 1):
        starts = found.starts[level - 1]
        assert found.size(level) == size
        assert (starts[0], starts[-1]) == (0, n)
        assert (np.diff(starts) > 0).all()
        for cluster in range(size):
            assert (found.assign(level)[found.items(level, cluster)] == cluster).all()
        if level > 1:
            assert set(found.starts[level - 2].tolist()) <= set(starts.tolist())
            parent = found.parent(level)
            assert (np.diff(parent) >= 0).all()
            np.testing.assert_array_equal(parent[found.assign(level)], found.assign(level - 1))


def test_planted_levels_are_found() -> None:
    sizes = (6, 36, 108, 324)
    rng = np.random.default_rng(0)
    vectors, labels = planted.hierarchy((6, 6, 3, 3), 8, rng)
    traffic = planted.zipf(len(vectors), rng, 0.8)
    found = grow(vectors, traffic, sizes)
    check(found, len(vectors), sizes)
    scores = [normalized_mutual_info_score(labels[i], found.assign(i + 1)) for i in range(4)]
    assert scores[0] > 0.93
    assert scores[1] > 0.93
    assert min(scores) > 0.85
    measured = tree.measure(found, vectors, traffic)
    assert measured["tree.levels"] == list(sizes)
    assert max(measured["tree.balance_blended"][:2]) <= tree.TOLERANCE + 1e-4


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(16, 200),
    exponent=st.floats(0, 2),
    copies=st.integers(0, 200),
    per=st.integers(2, 80),
    seed=st.integers(0, 99),
)
def test_any_catalog_gives_a_whole_tree(n: int, exponent: float, copies: int, per: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors[: min(copies, n)] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sizes = tree.level_sizes(n, replace(SETTINGS, items_per_cluster=per))
    assert 2 <= sizes[0] < sizes[1] < sizes[2] < sizes[3] <= n
    check(grow(vectors, planted.zipf(n, rng, exponent), sizes, seed), n, sizes)


def test_no_traffic_at_all_balances_items() -> None:
    vectors, _ = planted.hierarchy((4, 4), 20, np.random.default_rng(3))
    found = grow(vectors, np.zeros(len(vectors)), (4, 16, 48, 96))
    assert np.diff(found.starts[1]).max() <= 21


@pytest.mark.parametrize(
    ("n", "expected"),
    [(16, (2, 4, 5, 8)), (40, (2, 4, 12, 20)), (9742, (13, 152, 456, 1368)), (19220, (25, 300, 900, 2700))],
)
def test_sizes_are_derived_from_the_catalog(n: int, expected: tuple[int, ...]) -> None:
    assert tree.level_sizes(n, SETTINGS) == expected


def test_level_2_stops_at_the_paper_s_761() -> None:
    assert tree.level_sizes(1_000_000, SETTINGS) == (64, 761, 2283, 6849)


def test_sizes_that_cannot_be_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="at least 16"):
        tree.level_sizes(15, SETTINGS)
    with pytest.raises(UserError, match="four numbers that grow"):
        tree.level_sizes(10_000, replace(SETTINGS, levels=(10, 10, 20, 40)))
    with pytest.raises(UserError, match="four numbers that grow"):
        tree.level_sizes(10_000, replace(SETTINGS, levels=(10, 20, 40)))
    with pytest.raises(UserError, match="has 100 items"):
        tree.level_sizes(100, replace(SETTINGS, levels=(2, 10, 50, 101)))
    assert tree.level_sizes(7000, replace(SETTINGS, levels=(64, 761, 2283, 6849))) == (64, 761, 2283, 6849)


def test_blended_weight_caps_heads_level_by_level() -> None:
    traffic = np.array([1000.0, *[1.0] * 99])
    sizes = (2, 4, 10, 20)
    for level in (1, 2, 3, 4):
        weights = tree.blended_weights(traffic, sizes, level)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= (1 - tree.TRAFFIC_SHARE) / 100 - 1e-12).all()
    # α · mean = 0.25 · 1099 / 4 at level 2, and at level 1 the same.
    cap = 0.25 * 1099 / 4
    expected = 0.8 * cap / (cap + 99) + 0.2 / 100
    for level in (1, 2):
        assert tree.blended_weights(traffic, sizes, level)[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    loads=st.lists(st.floats(0, 100), min_size=1, max_size=30), spare=st.integers(0, 100), seed=st.integers(0, 9)
)
def test_children_are_allotted_within_room(loads: list[float], spare: int, seed: int) -> None:
    room = np.random.default_rng(seed).integers(1, 8, len(loads))
    parts = min(int(room.sum()), len(loads) + spare)
    children = tree.allot(np.array(loads), room, parts)
    assert children.sum() == parts
    assert ((children >= 1) & (children <= room)).all()


def test_two_builds_are_byte_identical_and_load_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors, _ = planted.hierarchy((4, 4, 3), 30, rng)
    log = planted.events(planted.zipf(len(vectors), rng))
    links = graph.nearest(vectors, 20)
    for name in ("one", "two"):
        outcome = tree.build(planted.work(tmp_path, name), SETTINGS, vectors, links, log)
    files = ["order.npy", *(f"level-{level}.npy" for level in range(1, 5))]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(files)
    found = tree.load(tmp_path / "one")
    check(found, len(vectors), tuple(outcome.metrics["tree.levels"]))
    assert found.order.dtype == np.int32
    assert all(start.dtype == np.int64 for start in found.starts)
    kmeans, own = outcome.metrics["tree.coherence_kmeans"], outcome.metrics["tree.coherence"]
    assert own == sorted(own)
    assert own[1] > 0.9 * kmeans


def test_a_tree_on_equal_vectors_says_that_its_coherence_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kinds, told in ((1, True), (9, True), (40, False)):
        vectors = np.eye(40, dtype=np.float32)[np.arange(40) % kinds]
        links = graph.nearest(vectors, 5)
        work = planted.work(tmp_path, f"tree-{kinds}")
        outcome = tree.build(work, SETTINGS, vectors, links, planted.events(np.ones(40)))
        assert outcome.metrics["tree.distinct_vectors"] == kinds
        assert ("coherence says nothing" in capsys.readouterr().err.replace("\n", " ")) == told
