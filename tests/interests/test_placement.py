"""New items in a planted tree."""

import numpy as np
import pytest

from byway.interests import placement, tree
from byway.interests.graph import nearest
from tests.interests import planted


@pytest.fixture(scope="module")
def world() -> tuple[tree.Tree, np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    vectors, labels = planted.hierarchy((3, 4, 3, 3), 8, rng)
    n = len(vectors) - 100
    old, new = vectors[:n], vectors[n:]
    grown = tree.grow(old, nearest(old, 20), np.ones(n), (3, 12, 36, 108), rng)
    return grown, old, new, labels


def weights(tree_: tree.Tree, n: int) -> list[np.ndarray]:
    sizes = [tree_.size(level) for level in range(1, 5)]
    return [tree.blended_weights(np.ones(n), sizes, level) for level in range(1, 5)]


def test_new_items_go_where_their_kind_is(world: tuple) -> None:
    cut, old, new, labels = world
    placed = placement.place(cut, old, new, weights(cut, len(old) + 100), room=2.0)
    whole = placement.grown(cut, placed.leaf)
    at_2 = whole.assign(2)
    majority = [np.bincount(labels[1][: len(old)][at_2[: len(old)] == c]).argmax() for c in range(cut.size(2))]
    right = [majority[at_2[len(old) + i]] == labels[1][len(old) + i] for i in range(100)]
    assert np.mean(right) > 0.95
    assert placed.crowded == 0


@pytest.mark.parametrize("room", [1.02, 1.1, 1.5])
def test_balance_is_kept_and_nothing_moves(world: tuple, room: float) -> None:
    cut, old, new, _ = world
    # All new items are alike: only room can part them.
    alike = np.repeat(new[:1], 100, axis=0)
    all_weights = weights(cut, len(old) + 100)
    placed = placement.place(cut, old, alike, all_weights, room)
    whole = placement.grown(cut, placed.leaf)
    n = len(old)
    before = np.bincount(cut.assign(2), all_weights[1][:n], cut.size(2))
    after = np.bincount(whole.assign(2), all_weights[1], cut.size(2))
    cap = room * all_weights[1].sum() / cut.size(2)
    if placed.crowded == 0:
        assert (after <= np.maximum(before, cap) + 1e-12).all()
    assert placed.displaced > 0 or room > 1.4
    for level in range(1, 5):
        assert np.array_equal(whole.assign(level)[:n], cut.assign(level))
        assert whole.size(level) == cut.size(level)
        if level > 1:
            assert np.array_equal(whole.parent(level), cut.parent(level))
    assert sorted(whole.order.tolist()) == list(range(n + 100))


def test_where_nothing_has_room_the_nearest_takes_it(world: tuple) -> None:
    cut, old, new, _ = world
    placed = placement.place(cut, old, new, weights(cut, len(old) + 100), room=0.0)
    middle = placement.centroids(old, cut.assign(2), cut.size(2))
    assert placed.crowded == 100
    assert placed.displaced == 0
    assert np.array_equal(placement.grown(cut, placed.leaf).assign(2)[len(old) :], (new @ middle.T).argmax(axis=1))


def test_the_most_similar_item_is_found_by_brute_force(world: tuple) -> None:
    cut, old, new, _ = world
    cluster = np.arange(100) % cut.size(2)
    found = placement.most_similar(cut, old, new, cluster)
    for i in range(100):
        items = cut.items(2, int(cluster[i]))
        assert found[i] in items
        assert np.isclose((old[items] @ new[i]).max(), old[found[i]] @ new[i])


def test_no_new_items_change_nothing(world: tuple) -> None:
    cut, old, _, _ = world
    placed = placement.place(cut, old, old[:0], weights(cut, len(old)), 1.1)
    whole = placement.grown(cut, placed.leaf)
    assert np.array_equal(whole.order, cut.order)
    assert all(np.array_equal(a, b) for a, b in zip(whole.starts, cut.starts, strict=True))
