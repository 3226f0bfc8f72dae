"""Pages of the planner: on a planted bundle, against the plain way that scores and sorts everything."""

from dataclasses import replace

import numpy as np
import pytest

from byway.base import config
from byway.items.ease import SparseMatrix
from byway.planner import page, search
from byway.planner.fit import FittedPlanner
from byway.planner.planner import SIGNALS, LeafMeans, PlannerWeights
from byway.serving import pack, plan
from byway.serving.person import Seen, read
from byway.serving.recommend import recommend
from tests.serving.planted import STARTS, M, N, Planted

OWNER = np.repeat(np.arange(M), np.diff(STARTS))


def planned(items=True):
    rng = np.random.default_rng(11)

    def weights():
        to = np.stack([rng.permutation(N)[:6] for _ in range(N)]).astype(np.int32)
        return SparseMatrix(to, rng.normal(size=to.shape).astype(np.float32))

    names = [name for name in SIGNALS if name != "language_model" and (items or name != "ease")]
    fitted = PlannerWeights({name: float(rng.uniform(0.2, 1)) for name in names}, 0.4, 2.0)
    content = rng.normal(size=(N, 3)).astype(np.float32)
    return FittedPlanner(fitted, np.arange(N, dtype=np.int32), weights(), weights(), content)


def people(opened, count=20):
    rng = np.random.default_rng(3)
    for seed in range(count):
        rows = rng.integers(N, size=1 + seed % 4)
        yield seed, [Seen(opened.ids[int(r)], None, float(rng.random())) for r in rows]


def plainly(opened, person, rng, k):
    """Positions on the page: every item scored, some interests left out, all sorted."""
    score = opened.planner.scores(plan.asker_of(opened, person), np.arange(N))
    may = [person.open[OWNER[p]] and p not in person.apart for p in range(N)]
    ranked = [p for p in np.argsort(-score, kind="stable").tolist() if may[p]]
    left = np.isin(np.arange(M), OWNER[ranked])
    if left.any():
        left = page.kept(left, opened.settings.skip, rng)
    ranked = [p for p in ranked if left[OWNER[p]]]
    if most := opened.settings.new_interests:
        first = list(dict.fromkeys(OWNER[ranked].tolist()))[:most]
        ranked = [p for p in ranked if OWNER[p] in first]
    return ranked[:k]


@pytest.mark.parametrize("most", [0, 2])
@pytest.mark.parametrize("two_steps", [False, True])
def test_pages_are_those_of_the_plain_way(tmp_path, monkeypatch, most, two_steps):
    settings = config.Bundle(skip=0.3, new_interests=most)
    opened = Planted(planned=planned(not two_steps), settings=settings).build(tmp_path)
    if two_steps:  # all leaves are among the best, so nothing is missed
        monkeypatch.setattr(search, "EXACT", 0)
        monkeypatch.setattr(search, "LEAVES", N)
    for seed, history in people(opened):
        person = read(opened, history, None, ["c5-2"], None, [])
        found = plan.page_of(opened, person, np.random.default_rng(seed), 4)
        assert found.positions.tolist() == plainly(opened, person, np.random.default_rng(seed), 4)
        answer = recommend(opened, history, np.random.default_rng(seed), 4, exclude=["c5-2"])
        if len(found.positions):
            assert [shown.item for shown in answer.items] == [opened.ids[p] for p in found.positions.tolist()]


def test_chances_are_how_often_an_item_is_shown(tmp_path):
    opened = Planted(planned=planned(), settings=config.Bundle(skip=0.3, new_interests=2)).build(tmp_path)
    _, history = next(people(opened))
    rng, times = np.random.default_rng(0), 2000
    shown: dict[str, list[float]] = {}
    for _ in range(times):
        for item in recommend(opened, history, rng, 4).items:
            shown.setdefault(item.item, []).append(item.propensity)
    for propensities in shown.values():
        assert len(set(propensities)) == 1
        p = propensities[0]
        assert abs(len(propensities) / times - p) <= 4.5 * np.sqrt(p * (1 - p) / times) + 1e-9


def test_the_shares_of_signals_are_of_the_lift_over_what_else_could_be_shown(tmp_path):
    opened = Planted(planned=planned()).build(tmp_path)
    _, history = next(people(opened))
    person = read(opened, history, None, (), None, [])
    found = plan.page_of(opened, person, np.random.default_rng(0), 4)
    first = int(found.positions[0])
    rest = np.flatnonzero(person.open[OWNER] & ~np.isin(np.arange(N), person.apart))
    parts = opened.planner.parts(found.asker)
    lift = {name: float(part[first] - part[rest].mean()) for name, part in parts.items()}
    whole = sum(max(value, 0) for value in lift.values())
    wanted = {name: value / whole for name, value in lift.items() if value > 0}
    assert dict(plan.signals_of(found.found, first)) == pytest.approx(wanted, rel=1e-3)


def test_a_bundle_of_many_items_carries_what_its_leaves_are_like(tmp_path, monkeypatch):
    assert not Planted(planned=planned(False)).build(tmp_path / "few").planner.cached_means
    monkeypatch.setattr(pack, "EXACT", 0)
    opened = Planted(planned=planned(False)).build(tmp_path / "many")
    (kept,) = opened.planner.cached_means
    again = search.leaf_means(replace(opened.planner, cached_means=[]))
    for name in LeafMeans.__slots__:
        np.testing.assert_array_equal(getattr(kept, name), getattr(again, name))
