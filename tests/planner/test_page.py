"""Pages of new interests: what is on them, and the exact chances, against every way that the draw can come out."""

from itertools import product

import numpy as np
import pytest

from byway.base.ranking import top
from byway.planner import page


def shown(score, cluster, M, k, most):
    """The places on a page, by the words of the module."""
    if most:
        score = page.within(score, cluster, M, most)
    return top(score, k)


def by_force(score, cluster, M, k, most, skip):
    """[n] chance of every candidate, over all subsets of open interests."""
    opened = np.unique(cluster[score > -np.inf])
    found = np.zeros(len(score))
    for stays in product((False, True), repeat=len(opened)):
        chance = np.prod([1 - skip if stay else skip for stay in stays])
        kept = np.isin(cluster, opened[list(stays)]) if any(stays) else np.ones(len(score), bool)
        found[shown(np.where(kept, score, -np.inf).astype(np.float32), cluster, M, k, most)] += chance
    return found


@pytest.mark.parametrize("most", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("skip", [0.0, 0.1, 0.5])
def test_chances_are_those_of_every_way_to_leave_interests_out(most, k, skip):
    rng = np.random.default_rng(most * 100 + k)
    for _ in range(4):
        M = int(rng.integers(1, 7))
        cluster = rng.integers(0, M, 20)
        score = rng.normal(size=20).astype(np.float32)
        score[rng.random(20) < 0.2] = -np.inf
        wanted = by_force(score, cluster, M, k, most, skip)
        of = np.flatnonzero(score > -np.inf)
        found = page.chances(score, cluster, M, of, k=k, most=most, skip=skip)
        np.testing.assert_allclose(found, wanted[of], atol=1e-12)
        assert found.sum() == pytest.approx(wanted.sum())


def test_a_page_without_a_bound_holds_the_best_items_of_all_interests():
    score, cluster = np.array([3, 1, 2, 5], np.float32), np.array([0, 1, 1, 2])
    assert top(score, 3).tolist() == [3, 0, 2]
    assert top(page.within(score, cluster, 3, 1), 3).tolist() == [3]
    assert top(page.within(score, cluster, 3, 2), 3).tolist() == [3, 0]


def test_where_every_interest_would_be_left_out_none_is():
    class Low:
        def random(self, n):
            return np.zeros(n)

    opened = np.array([True, False, True])
    assert page.kept(opened, 0.5, Low()).tolist() == opened.tolist()


def test_drawn_pages_come_as_often_as_their_chances_say():
    rng = np.random.default_rng(5)
    cluster, score = rng.integers(0, 8, 40), rng.normal(size=40).astype(np.float32)
    count = np.zeros(40)
    for _ in range(4000):
        stays = page.kept(np.ones(8, bool), 0.3, rng)
        count[shown(np.where(stays[cluster], score, -np.inf).astype(np.float32), cluster, 8, 5, 2)] += 1
    wanted = page.chances(score, cluster, 8, np.arange(40), k=5, most=2, skip=0.3)
    spread = np.sqrt(wanted * (1 - wanted) / 4000)
    assert (np.abs(count / 4000 - wanted) <= 4.5 * spread + 1e-9).all()
