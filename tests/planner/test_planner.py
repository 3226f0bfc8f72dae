"""Each signal by a formula, their sum, what is scored of a large catalog, and what is named as a reason."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from byway.planner import search
from byway.planner.planner import SIGNALS, Asker, PlannerWeights
from tests.planner.planted import WEIGHTS, asker, dense, planner

HISTORY, LIKED = [0, 12, 3, 12, 20], [1.0, 0.8, 0.1, 0.4, 0.6]
VALUES = [1.5, 1.1, -0.3, 0.3, 0.7]
"""(satisfaction - 0.25) · 2"""


def by_hand(of, asked) -> dict[str, np.ndarray]:
    """[n] of every signal."""
    n = len(of.leaf)
    # Item 7 speaks for item 0; item 12 was met twice and counts by its mean.
    likes = np.zeros(n)
    likes[[7, 12, 3, 20]] = [1.5, 0.7, -0.3, 0.7]
    # By leaf: 0 and 3 are of leaf 0, 12 twice of leaf 2, 20 of leaf 4.
    leaf_likes = np.zeros(6)
    leaf_likes[[0, 2, 4]] = [0.6, 0.7, 0.7]
    taste = sum(v * of.content[i].astype(np.float64) for i, v in zip(HISTORY, VALUES, strict=True))
    return {
        "ease": (likes @ dense(of.items))[of.unit],
        "ease_leaves": (leaf_likes @ dense(of.leaves))[of.leaf],
        "item_policy": np.array([of.vectors[i] @ asked.state for i in range(n)]),
        "table": np.array([asked.shares["table"][i // 10] for i in range(n)]),
        "language_model": np.array([asked.shares["language_model"][i // 10] for i in range(n)]),
        "similarity": of.content @ (taste / np.linalg.norm(taste)),
        "popularity": of.popularity,
        "quality": of.quality,
    }


def test_every_signal_is_what_its_formula_says():
    of = planner()
    asked = asker(of, HISTORY, LIKED)
    np.testing.assert_allclose(asked.values, VALUES, atol=1e-6)
    wanted, rows = by_hand(of, asked), np.array([29, 0, 7, 13])
    every, some = of.signals(asked), of.signals(asked, rows)
    assert set(every) == set(some) == set(wanted) == set(SIGNALS)
    for name, expected in wanted.items():
        np.testing.assert_allclose(every[name](), expected, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(some[name](), expected[rows], atol=1e-5, err_msg=name)
    assert wanted["ease"][0] == wanted["ease"][7]


def test_parts_sum_to_the_scores():
    of = planner()
    asked, rows = asker(of, HISTORY, LIKED), np.array([4, 4, 22])
    parts, wanted = of.parts(asked), by_hand(of, asked)
    total = sum(WEIGHTS[name] * said for name, said in wanted.items())
    np.testing.assert_allclose(of.scores(asked), total, atol=1e-4)
    np.testing.assert_allclose(sum(parts.values()), of.scores(asked), atol=1e-5)
    np.testing.assert_allclose(of.scores(asked, rows), total[rows], atol=1e-4)
    np.testing.assert_allclose(parts["quality"], WEIGHTS["quality"] * of.quality, atol=1e-5)


@pytest.mark.parametrize("some", [False, True])
def test_the_best_stand_in_the_order_of_the_item_policy(monkeypatch, some):
    """The scores of the best are dealt out anew among them; all others keep theirs, also those not to be shown."""
    monkeypatch.setattr("byway.planner.planner.ENOUGH", 6)
    of = planner()
    asked, rows = asker(of, HISTORY, LIKED), np.arange(4, 30, 2) if some else None
    score = of.scores(asked, rows)
    score[[1, 5]] = -np.inf
    assert of.in_order(score, asked, rows) is score
    ordered = replace(of, fitted=msgspec.structs.replace(of.fitted, next_first=True))
    found = ordered.in_order(score.copy(), asked, rows)
    best = set(np.argsort(-score)[:6].tolist())
    assert set(np.argsort(-found)[:6].tolist()) == best
    np.testing.assert_array_equal(np.sort(found), np.sort(score))
    rest = [i for i in range(len(score)) if i not in best]
    np.testing.assert_array_equal(found[rest], score[rest])
    expected = (of.vectors @ asked.state)[np.arange(30) if rows is None else rows]
    assert np.argsort(-found)[:6].tolist() == sorted(best, key=lambda i: -expected[i])
    few = np.full_like(score, -np.inf)
    few[3] = 1.0
    np.testing.assert_array_equal(ordered.in_order(few, asked, rows), few)


def test_a_signal_without_a_weight_or_without_an_answer_has_no_part():
    of = planner(items=False)
    few = replace(of, fitted=replace_weights(of, {"ease": 1.0, "table": 2.0, "quality": 0.0, "popularity": -1.0}))
    asked = asker(of, HISTORY, LIKED)
    assert set(few.parts(asked)) == {"table", "popularity"}
    silent = Asker(asked.rows, asked.values, asked.state, {})
    np.testing.assert_array_equal(few.scores(silent), -of.popularity)
    nothing = replace(of, fitted=replace_weights(of, {}))
    assert nothing.scores(asked).tolist() == [0.0] * 30


def replace_weights(of, weights):
    return PlannerWeights(weights, of.fitted.neutral, of.fitted.scale)


def test_without_a_history_nothing_is_liked():
    of = planner()
    nobody = asker(of, [], [])
    said = of.signals(nobody)
    for name in ("ease", "ease_leaves", "similarity"):
        assert (said[name]() == 0).all(), name
    assert of.because(nobody, 3) == []


# A large catalog


def considered(of, asked, opened):
    """The items that are scored; what is added to them is what it is for them alone."""
    rows, parts = search.considered(of, asked, opened, lambda rows: opened[of.cluster[rows]])
    for name, part in of.parts(asked, rows).items():
        np.testing.assert_allclose(parts[name], part, rtol=1e-5, atol=1e-5)
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_candidates_hold_the_best_items_where_leaves_are_coherent(monkeypatch, seed):
    of = planner(seed, leaves=60, each=20, spread=0.02, items=False)
    asked = asker(of, [5, 417, 800, 801], [1.0, 0.3, 0.9, 0.0], seed)
    opened = np.random.default_rng(seed).random(30) < 0.5
    monkeypatch.setattr(search, "EXACT", 1000)
    monkeypatch.setattr(search, "LEAVES", 12)
    monkeypatch.setattr(search, "FIRST", 3)
    monkeypatch.setattr(search, "ENOUGH", 100)
    some = considered(of, asked, opened)
    assert 5 * 20 <= len(some) <= 12 * 20
    assert (np.diff(some) > 0).all()
    score = of.scores(asked)
    order = np.argsort(-score)
    order = order[opened[of.cluster[order]]]
    assert set(order[:100].tolist()) <= set(some.tolist())
    # Nor do they hold the worst.
    assert not set(order[-100:].tolist()) & set(some.tolist())


def test_what_ease_says_most_of_is_scored_wherever_it_lies(monkeypatch):
    of = planner(3)
    asked = asker(of, HISTORY, LIKED)
    monkeypatch.setattr(search, "EXACT", 29)
    monkeypatch.setattr(search, "LEAVES", 1)
    monkeypatch.setattr(search, "UNITS", 3)
    units = of.of_units(asked)[of.unit]
    some = considered(of, asked, np.ones(3, bool))
    assert some.tolist() == sorted(set(some.tolist()))
    assert 5 <= len(some) <= 8
    assert set(np.argsort(-units, kind="stable")[:2].tolist()) <= set(some.tolist())


def test_a_small_catalog_is_scored_as_a_whole(monkeypatch):
    of = planner(items=False)
    asked = asker(of, HISTORY, LIKED)
    assert considered(of, asked, np.zeros(3, bool)).tolist() == list(range(30))
    monkeypatch.setattr(search, "EXACT", 29)
    monkeypatch.setattr(search, "LEAVES", 2)
    some = considered(of, asked, np.array([False, True, False]))
    assert some.tolist() == list(range(10, 20))


# Reasons


@pytest.mark.parametrize("items", [True, False])
def test_the_items_that_say_most_are_named(items):
    of = planner(3, items=items)
    rows, satisfaction = [0, 12, 3, 25, 20, 12], [1.0, 0.8, 0.0, 0.4, 0.6, 0.9]
    asked = asker(of, rows, satisfaction)
    b, unit = (dense(of.items), of.unit) if items else (dense(of.leaves), of.leaf)
    different = set()
    for row in range(30):
        said = np.array([b[unit[i], unit[row]] for i in rows]) * asked.values
        # What displeased is never named; of item 12, met twice, the time when it pleased more.
        order = sorted((0, 3, 4, 5), key=lambda i: -said[i])
        wanted = [i for i in order if said[i] > 0]
        assert of.because(asked, row) == wanted[:2]
        assert of.because(asked, row, 4) == wanted[:4]
        different.add(tuple(wanted[:2]))
    assert len(different) > 3
