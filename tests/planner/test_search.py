"""Scores in slices, and leaves searched before items, against scoring every item plainly."""

from dataclasses import replace

import numpy as np
import pytest

from byway.items.ease import SparseMatrix
from byway.planner import fit, search
from byway.planner.planner import Asker, Planner, PlannerWeights, product

LEAVES, M, D = 120, 15, 6
WEIGHTS = {
    "ease_leaves": 0.5, "item_policy": 0.8, "table": 0.3, "similarity": 0.4, "popularity": -0.1, "quality": 0.2,
}  # fmt: skip


def planner(seed=0, **weights):
    """Items of a leaf lie around one point; some leaves are wide and some narrow."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 60, LEAVES)
    leaf = np.repeat(np.arange(LEAVES), size).astype(np.int32)
    n = len(leaf)
    wide = rng.uniform(0.05, 1.0, LEAVES)[leaf, None]

    def around():
        return (rng.normal(size=(LEAVES, D))[leaf] + wide * rng.normal(size=(n, D))).astype(np.float32)

    to = np.stack([rng.permutation(LEAVES)[:20] for _ in range(LEAVES)]).astype(np.int32)
    return Planner(
        fitted=PlannerWeights(WEIGHTS | weights, 0.3, 2.0),
        unit=np.arange(n, dtype=np.int32),
        items=None,
        leaf=leaf,
        leaves=SparseMatrix(to, rng.normal(size=to.shape).astype(np.float32)),
        cluster=(leaf * M // LEAVES).astype(np.int32),
        vectors=around(),
        content=around(),
        popularity=rng.random(n).astype(np.float32),
        quality=rng.random(n).astype(np.float32),
    )


def asker(of, seed=1):
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(of.leaf), size=8)
    shares = {"table": rng.random(M).astype(np.float32)}
    return Asker(rows, rng.normal(size=8).astype(np.float32), rng.normal(size=D).astype(np.float32), shares)


@pytest.mark.parametrize(
    "rows",
    [None, np.arange(300), np.r_[5:200, 250:700], np.arange(0, 300, 2), np.array([7]), np.array([], int)],
    ids=["all", "one run", "two runs", "scattered", "one row", "none"],
)
def test_products_by_slices_are_those_of_rows(rows):
    of = planner()
    wanted = of.vectors @ np.arange(D, dtype=np.float32) if rows is None else of.vectors[rows] @ np.arange(D)
    found = product(of.vectors, np.arange(D, dtype=np.float32), rows)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32


def test_scores_of_some_rows_are_those_of_all():
    of = planner()
    who, rows = asker(of), np.r_[10:400, 600:900]
    np.testing.assert_allclose(of.scores(who, rows), of.scores(who)[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by_leaf", [False, True])
def test_without_spread_a_leaf_scores_the_mean_of_its_items(by_leaf, monkeypatch):
    monkeypatch.setattr(search, "SPREAD", 0.0)
    of = planner()
    if by_leaf:
        of = replace(of, content=fit.of_leaves(of.content, of.leaf), cached_means=[])
    who = asker(of)
    score, means = of.scores(who), search.means_of(of)
    wanted = [score[of.leaf == one].mean() for one in means.leaf]
    np.testing.assert_allclose(search.leaf_scores(of, who), wanted, rtol=1e-3, atol=1e-4)


def test_variance_is_that_of_the_items_of_a_leaf():
    of = planner()
    found = search.leaf_means(of)
    for place in (0, 7, LEAVES - 1):
        own = slice(found.start[place], found.stop[place])
        kinds = of.vectors, of.content, of.popularity[:, None], of.quality[:, None]
        wanted = [kind[own].astype(np.float64).var(0).mean() for kind in kinds]
        np.testing.assert_allclose(found.variance[place], wanted, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found.mean[place, :D], of.vectors[own].mean(0), rtol=1e-4, atol=1e-6)


def test_contents_of_leaves_score_as_items_that_are_all_like_their_leaf():
    of = planner()
    content = fit.of_leaves(of.content, of.leaf)
    np.testing.assert_allclose(np.linalg.norm(content, axis=1), 1, rtol=1e-5)
    leaves, items = replace(of, content=content), replace(of, content=content[of.leaf])
    assert leaves.content_of_leaves
    assert not items.content_of_leaves
    for rows in (None, np.r_[3:50, 80:300]):
        np.testing.assert_allclose(
            leaves.scores(asker(of), rows), items.scores(asker(of), rows), rtol=1e-4, atol=1e-5
        )


def recall(of, people=40):
    """Share of the ten best items of open clusters that are candidates."""
    found = []
    for seed in range(people):
        who = asker(of, seed)
        opened = np.ones(M, bool)
        opened[of.cluster[who.rows]] = False
        score = np.where(opened[of.cluster], of.scores(who), -np.inf)
        candidates = search.considered(of, who, opened, lambda rows, may=opened: may[of.cluster[rows]])[0]
        assert (np.diff(candidates) > 0).all()
        found.append(np.isin(np.argsort(-score)[:10], candidates).mean())
    return np.mean(found)


def test_the_best_leaves_hold_nearly_all_of_the_best_items(monkeypatch):
    """A tenth of the leaves: by their means alone those that are narrow crowd out the wide."""
    of = planner()
    assert recall(of) == 1
    monkeypatch.setattr(search, "EXACT", 0)
    monkeypatch.setattr(search, "LEAVES", LEAVES // 10)
    spread = recall(of)
    assert spread >= 0.95
    monkeypatch.setattr(search, "SPREAD", 0.0)
    assert recall(of) < spread - 0.05
