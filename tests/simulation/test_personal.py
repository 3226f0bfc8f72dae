"""The arms of the whole person against the service and against plain numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.data.events import Events
from byway.serving.person import DAY, Seen
from byway.serving.recommend import recommend
from byway.simulation.personal import MostLiked, Personal, PublishedEase
from byway.simulation.planned import Scored
from byway.simulation.source import NONE, Asked, Known, Logged
from byway.transitions.table import Table
from tests.serving.planted import LENGTH, STARTS, M, N, Planted, planned_of

USERS, TODAY = 30, 4


class Mean:
    """The planted policy: the mean of the vectors of a history, where padding counts as a vector of zeros."""

    def __init__(self, vectors: np.ndarray):
        self.own = np.vstack([np.zeros((1, vectors.shape[1])), vectors]).astype(np.float32)

    def learn(self, log: Logged, today: int) -> None:
        pass

    def states(self, history: np.ndarray) -> np.ndarray:
        return self.own[history[:, -LENGTH:]].mean(1)

    def vectors(self) -> np.ndarray:
        return self.own[1:]


def log(planted: Planted) -> Logged:
    """Everybody's items, in order of arrival, over 29 days; some met twice."""
    rng = np.random.default_rng(4)
    count = 240
    user = rng.integers(0, USERS, count)
    # Few interests each, so that some are left.
    cluster_of = np.repeat(np.arange(M), np.diff(STARTS))
    own = [rng.choice(M, 4, replace=False) for _ in range(USERS)]
    position = np.array([rng.choice(np.flatnonzero(np.isin(cluster_of, own[u]))) for u in user])
    day = np.sort(rng.integers(-25, TODAY, count))
    return Logged(user, planted.order[position].astype(np.int64), rng.random(count).astype(np.float32), day, USERS)


class Logging(Planted):
    """A bundle laid out from a log."""

    def events(self) -> Events:
        made = log(self)
        user, item = made.user.astype(np.int32), made.item.astype(np.int32)
        return Events(user, item, np.zeros(len(made), np.int64), made.satisfaction, True, USERS, N)


def rankings(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array(
        [[rng.permutation([c for c in range(M) if c not in (a, b)])[:3] for b in range(M)] for a in range(M)],
        np.int32,
    )


def world(**settings: float) -> tuple[Planted, Known, Personal]:
    """The same arrays as a bundle is laid out from and as an arm has them."""
    planted = Logging(
        table=rankings(1), model=rankings(2), planned=planned_of(), settings=config.Bundle(skip=0, **settings)
    )
    tree = planted.tree()
    known = Known(planted.vectors, tree.assign(2).astype(np.int64), (np.zeros(M, np.int64),))
    arm = Personal(
        known,
        planted.planned,
        tree.assign(4).astype(np.int64),
        Table(planted.table, planted.table.astype(np.float32), planted.model),
        Mean(planted.vectors),
        planted.settings,
    )
    return planted, known, arm


def asked_of(known: Known, made: Logged) -> Asked:
    """All users, each with a history, what they have seen and which interests they have met."""
    history = np.zeros((USERS, 60), np.int64)
    seen, met = np.zeros((USERS, N), bool), np.zeros((USERS, M), bool)
    for user in range(USERS):
        items = made.item[made.user == user]
        if len(items):
            history[user, -len(items) :] = items + 1
        seen[user, items] = True
        met[user, known.cluster[items]] = True
    nothing = np.zeros(history.shape, np.float32)
    return Asked(np.arange(USERS), history, nothing, nothing.astype(np.int64), TODAY, seen, met)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"days": 6},
        {"new_interests": 1},
        {"new_interests": 2},
        {"young_days": 9},
        {"young_days": 6, "again_days": 12},
    ],
    ids=str,
)
def test_the_arm_names_what_the_service_answers(tmp_path: Path, settings: dict[str, float]) -> None:
    planted, known, arm = world(**settings)
    bundle, made = planted.build(tmp_path), log(planted)
    arm.learn(made, 0)
    named = arm.nominate(asked_of(known, made), 5, np.random.default_rng(0))
    position = np.argsort(planted.order)
    answered = 0
    for user in range(USERS):
        rows = np.flatnonzero(made.user == user)
        history = [
            Seen(planted.ids[position[made.item[i]]], int(made.day[i]) * DAY, float(made.satisfaction[i]))
            for i in rows
        ]
        answer = recommend(bundle, history, np.random.default_rng(user), 5, TODAY * DAY)
        if answer.strategy != "person":
            continue
        answered += 1
        found = [planted.ids[position[item]] for item in named[user] if item != NONE]
        assert found == [shown.item for shown in answer.items], user
    assert answered > USERS / 2
    assert len({tuple(row) for row in named.tolist()}) > USERS / 2


def test_what_is_left_out_differs_from_page_to_page_and_is_never_known() -> None:
    planted, known, arm = world()
    made = log(planted)
    arm.bundle = replace(arm.bundle, skip=0.5)
    arm.learn(made, 0)
    asked, rng = asked_of(known, made), np.random.default_rng(0)
    pages = [arm.nominate(asked, 6, rng) for _ in range(5)]
    assert len({page.tobytes() for page in pages}) == 5
    for page in pages:
        for user, row in enumerate(page):
            assert not asked.met[user, known.cluster[row[row != NONE]]].any()


def test_linear_models_are_learned_anew_every_so_many_days() -> None:
    planted, _, arm = world()
    made = log(planted)
    arm.learn(made, 0)
    first = arm.planner
    assert first is not None
    assert first.items is planted.planned.items
    arm.learn(made, 7)
    assert arm.planner is first
    arm.learn(made, 10)
    assert arm.planner is not first
    assert arm.planner.items is not planted.planned.items


def test_ease_is_the_published_model_over_what_was_liked(tmp_path: Path) -> None:
    planted, known, _ = world()
    made = log(planted)
    x = np.zeros((USERS, N))
    good = made.satisfaction >= 0.5
    x[made.user[good], made.item[good]] = 1
    inverse = np.linalg.inv(x.T @ x + 200 * np.eye(N))
    b = -inverse / np.diag(inverse)
    np.fill_diagonal(b, 0)
    score = x @ b
    asked = asked_of(known, made)
    arm = Scored(PublishedEase(known, tmp_path), hides=known)
    arm.learn(made, 0)
    named = arm.nominate(asked, 5, np.random.default_rng(0))
    closed = asked.seen | asked.met[:, known.cluster]
    assert (named != NONE).any(1).sum() > USERS / 2
    for user in range(USERS):
        left = np.where(closed[user], -np.inf, score[user])
        found = named[user][named[user] != NONE]
        assert len(found) == min(5, int((~closed[user]).sum()))
        assert not closed[user, found].any()
        np.testing.assert_allclose(left[found], np.sort(left)[::-1][: len(found)], atol=1e-6)
    # What was solved before the first day is kept for the next deal, and read.
    kept = np.load(tmp_path / "ease.npy")
    np.testing.assert_allclose(kept, b, atol=1e-5)
    np.save(tmp_path / "ease.npy", 0 * kept)
    other = PublishedEase(known, tmp_path)
    other.learn(made, 0)
    assert not other.scores(asked, np.empty(0, np.int64)).any()
    other.learn(made, 10)
    np.testing.assert_allclose(other.scores(asked, np.empty(0, np.int64)), score, atol=1e-5)


def test_what_most_people_liked_is_counted_anew_and_hides_what_is_known() -> None:
    planted, known, _ = world()
    made = log(planted)
    arm = Scored(MostLiked(known), hides=known)
    arm.learn(made, 0)
    asked = asked_of(known, made)
    likes = [int(((made.item == i) & (made.satisfaction >= known.positive)).sum()) for i in range(N)]
    closed = asked.seen | asked.met[:, known.cluster]
    for user, named in enumerate(arm.nominate(asked, 3, np.random.default_rng(0))):
        found = named[named != NONE].tolist()
        assert len(found) == min(3, int((~closed[user]).sum()))
        assert not closed[user, found].any()
        left = sorted((likes[i] for i in np.flatnonzero(~closed[user])), reverse=True)
        assert [likes[i] for i in found] == left[: len(found)]
    worst = int(np.argmin(likes))
    more = Logged(
        np.append(made.user, np.arange(USERS)),
        np.append(made.item, np.full(USERS, worst)),
        np.append(made.satisfaction, np.ones(USERS, np.float32)),
        np.append(made.day, np.full(USERS, TODAY)),
        made.n_users,
    )
    arm.learn(more, 1)
    assert (arm.ground.scores(asked, np.empty(0, np.int64)).argmax(1) == worst).all()
