"""The planner fitted on a log of which it is known what tells who will like what."""

from dataclasses import replace

import numpy as np
import pytest

from byway.base import config
from byway.base.artifact import Work
from byway.data.events import DAY, Events
from byway.interests.tree import Tree
from byway.items import export
from byway.items.sequence import ItemPolicy
from byway.items.windows import HeldOut
from byway.planner import fit, regression
from byway.planner.planner import SIGNALS, item_stats
from byway.transitions.table import Table
from tests.serving.planted import policy_file

M, EACH, USERS, OTHERS = 12, 10, 120, 60
N = M * EACH
OLD = 6
"""Clusters that everybody has met; the others are what is new."""
CLUSTER = np.random.default_rng(1).permutation(np.repeat(np.arange(M), EACH))
"""[N] in the catalog's order."""


def rankings(rng: np.random.Generator) -> np.ndarray:
    """[M, M, 3] drawn new clusters after each pair."""
    return np.array([[OLD + rng.permutation(M - OLD)[:3] for _ in range(M)] for _ in range(M)], np.int32)


TABLE = Table(
    rankings(np.random.default_rng(2)), np.zeros((M, M, 3), np.float32), rankings(np.random.default_rng(3))
)


def tree() -> Tree:
    """Leaves of two items in the clusters."""
    order = np.argsort(CLUSTER, kind="stable").astype(np.int32)
    starts = np.arange(M + 1) * EACH
    leaves = np.arange(N // 2 + 1) * 2
    return Tree(order, (np.array([0, N]), starts, leaves, leaves))


def log(others: int = OTHERS) -> tuple[Events, HeldOut]:
    """Everybody has met all old clusters and likes items of two; next they like what the table has for these two,
    and not what it does not. Some others like anything, and nothing of theirs is held out."""
    rng = np.random.default_rng(4)
    rows: list[tuple[int, int, float]] = []
    at: list[int] = []
    inside = [np.flatnonzero(c == CLUSTER) for c in range(M)]
    for user in range(USERS):
        a, b = rng.choice(OLD, 2, replace=False)
        # The last two of the history are those that are liked: the order of the pair is that of the meeting.
        past = [c for c in rng.permutation(OLD) if c not in (a, b)]
        rows += [(user, int(rng.choice(inside[c])), 0.0) for c in past]
        rows += [(user, int(item), 1.0) for c in (a, b) for item in rng.choice(inside[c], 3, replace=False)]
        at.append(len(rows))
        target = int(TABLE.clusters[a, b, 0])
        rows += [(user, int(item), 1.0) for item in rng.choice(inside[target], 4, replace=False)]
    for user in range(USERS, USERS + others):
        rows += [(user, int(item), float(rng.random())) for item in rng.choice(N, 30, replace=False)]
    user, item, liked = (np.array(column) for column in zip(*rows, strict=True))
    events = Events(
        user.astype(np.int32),
        item.astype(np.int32),
        np.arange(len(rows), dtype=np.int64),
        liked.astype(np.float32),
        False,
        USERS + others,
        N,
        0.6,
    )
    return events, HeldOut(np.arange(USERS), np.array(at, np.int64))


def build(work: Work, events: Events, heldout: HeldOut, *signals: str, explored: bool = False):
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(N, 6)).astype(np.float32)
    policy = policy_file(work.scratch / "p.onnx", rng.normal(size=(N, 4)).astype(np.float32))
    return fit.build(
        work,
        config.Config(
            planner=config.Planner(signals=signals, explored=explored), item_policy=config.ItemPolicy(history=7)
        ),
        events=events,
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        tree=tree(),
        table=TABLE,
        level=2,
        item_policy=ItemPolicy(policy, rng.normal(size=(N, 4)).astype(np.float32), vectors, heldout),
    )


def test_the_signal_that_tells_has_the_weight(work: Work) -> None:
    outcome = build(work, *log())
    weights = outcome.metrics["planner.weights"]
    assert set(weights) == set(SIGNALS)
    assert weights["table"] == 1
    assert {name: w for name, w in weights.items() if abs(w) > 0.25} == {"table": 1}
    alone, without = outcome.metrics["planner.alone"], outcome.metrics["planner.without"]
    assert max(alone, key=alone.get) == min(without, key=without.get) == "table"
    assert outcome.metrics["planner.value"]["at_10"] > 3 * max(v for n, v in alone.items() if n != "table")
    assert outcome.counts == {"people": USERS, "taken_up": 4 * USERS}
    assert outcome.metrics["planner.people"] == USERS


def test_a_signal_that_says_nothing_is_worth_what_chance_is_worth(work: Work) -> None:
    """Nobody's past holds a new item, so EASE, popularity and quality say the same of all of them."""
    events, heldout = log(others=0)
    outcome = build(work, events, heldout)
    fitted = fit.load(work.out).fitted
    alone = outcome.metrics["planner.alone"]
    # Four of 60 items please by 1 - neutral; a page has ten places.
    chance = 4 * (1 - fitted.neutral) * 10 / (N - OLD * EACH)
    spread = (1 - fitted.neutral) * np.sqrt(4 * (1 / 6) * (5 / 6) / USERS)
    for name in ("ease", "ease_leaves", "popularity", "quality"):
        assert alone[name] == pytest.approx(chance, abs=4 * spread), name
        assert name not in fitted.weights
    assert alone["table"] > chance + 10 * spread


def test_what_is_asked_for_alone_is_fitted(work: Work) -> None:
    outcome = build(work, *log(), "table", "quality")
    assert set(outcome.metrics["planner.weights"]) == {"table", "quality"}
    assert set(fit.load(work.out).fitted.weights) <= {"table", "quality"}


def test_what_was_seldom_shown_counts_as_what_it_is_worth(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the table's items are shown to everybody and please a little; two of the model's please entirely, and
    are shown to one in ten. By how much was taken up the table tells more, by what would please the model does."""
    seen, solve, rng = [], regression.fitted, np.random.default_rng(9)
    monkeypatch.setattr(regression, "fitted", lambda found, names: seen.extend(found) or solve(found, names))
    rows: list[tuple[int, int, float, float]] = []
    at: list[int] = []
    inside = [np.flatnonzero(c == CLUSTER) for c in range(M)]
    users = 1500
    for user in range(users):
        a, b = rng.choice(OLD, 2, replace=False)
        past = [c for c in rng.permutation(OLD) if c not in (a, b)]
        rows += [(user, int(rng.choice(inside[c])), 0.0, 1.0) for c in past]
        rows += [(user, int(item), 1.0, 1.0) for c in (a, b) for item in rng.choice(inside[c], 3, replace=False)]
        at.append(len(rows))
        usual, rare = TABLE.clusters[a, b, 0], TABLE.model[a, b, 0]
        rows += [(user, int(item), 0.8, 1.0) for item in rng.choice(inside[usual], 2, replace=False)]
        if usual != rare and rng.random() < 0.1:
            rows += [(user, int(item), 1.0, 0.1) for item in rng.choice(inside[rare], 2, replace=False)]
    user, item, liked, chance = (np.array(column) for column in zip(*rows, strict=True))
    events = Events(
        user.astype(np.int32),
        item.astype(np.int32),
        np.arange(len(rows), dtype=np.int64),
        liked.astype(np.float32),
        False,
        users,
        N,
        0.6,
        chance.astype(np.float32),
    )
    heldout = HeldOut(np.arange(users), np.array(at, np.int64))
    weight: dict[bool, dict[str, float]] = {}
    for explored in (False, True):
        seen.clear()
        outcome = build(work, events, heldout, "table", "language_model", explored=explored)
        weight[explored] = outcome.metrics["planner.weights"]
        neutral = fit.load(work.out).fitted.neutral
        rare = sum(float(one.target[one.target > 0.9 - neutral].sum()) for one in seen)
        # Where both lead to the same cluster nothing else is shown.
        differ = np.mean([TABLE.clusters[a, b, 0] != TABLE.model[a, b, 0] for a in range(OLD) for b in range(OLD)])
        worth = rare / len(seen) / (2 * (1 - neutral) * differ)
        assert worth == pytest.approx(1.0 if explored else 0.1, rel=0.25)
    # That what is shown pleases entirely is known either way.
    ratio = {explored: found["table"] / found["language_model"] for explored, found in weight.items()}
    assert ratio[False] > 0.8
    assert ratio[True] < 0.5 * ratio[False]


def test_the_item_policy_reads_as_much_as_it_was_trained_on(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reader = [], export.reader
    monkeypatch.setattr(export, "reader", lambda path, history: read.append(history) or reader(path, history))
    build(work, *log())
    assert read == [7]


@pytest.mark.parametrize("clock", [True, False])
def test_interests_are_drawn_from_the_days_from_which_the_service_draws_them(
    work: Work, monkeypatch: pytest.MonkeyPatch, clock: bool
) -> None:
    """All past items please, but of the last 30 days are only those of the two interests that tell."""
    seen, solve = [], regression.fitted
    monkeypatch.setattr(regression, "fitted", lambda found, names: seen.extend(found) or solve(found, names))
    events, heldout = log()
    time = np.full(len(events), 100 * DAY)
    for at in heldout.at.tolist():
        time[at - 10 : at - 6] = 70 * DAY
        time[at - 6 : at] = 70 * DAY + 1
    liked = np.ones(len(events), np.float32)
    build(work, replace(events, time=time, satisfaction=liked, clock=clock), heldout)
    table = list(SIGNALS).index("table")
    # What is first after the only pair that can be drawn has 1; after several, of which it is not first, less.
    best = [one.said[:, table].max() for one in seen]
    assert len(best) == USERS
    assert np.mean(np.array(best) > 0.999) == (1 if clock else 0)


def test_the_artifact_is_read_back(work: Work) -> None:
    events, heldout = log()
    build(work, events, heldout)
    found = fit.load(work.out)
    every = np.ones(len(events), bool)
    leaf = tree().assign(4).astype(np.int32)
    leaves, items = fit.linear(events, every, leaf, found.unit, found.fitted)
    assert found.items is not None
    for back, made in ((found.leaves, leaves), (found.items, items)):
        np.testing.assert_array_equal(back.to, made.to)
        np.testing.assert_allclose(back.weight, made.weight, atol=1e-6)
    assert (found.leaves.n, found.items.n) == (N // 2, N)
    assert found.fitted.positive == pytest.approx(0.6)
    assert found.content.shape == (N, 6)
    np.testing.assert_allclose(np.linalg.norm(found.content, axis=1), 1, atol=1e-6)
    assert found.fitted.weights["table"] > 0


def test_beyond_so_many_items_the_most_watched_have_weights_of_their_own(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "ITEMS", 20)
    events, heldout = log()
    build(work, events, heldout)
    found = fit.load(work.out)
    assert found.items is not None
    assert found.items.n == 20
    traffic = np.bincount(events.item, minlength=N)
    assert traffic[found.unit >= 0].min() >= traffic[found.unit < 0].max()
    assert sorted(found.unit[found.unit >= 0].tolist()) == list(range(20))


def test_nothing_that_was_held_out_is_in_the_models_that_weights_are_fitted_on(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, linear = [], fit.linear
    monkeypatch.setattr(fit, "linear", lambda *of, **more: made.append(linear(*of, **more)) or made[-1])
    events, heldout = log()
    build(work, events, heldout)
    end = np.searchsorted(events.user, heldout.user, side="right")
    hidden = np.concatenate([np.arange(a, b) for a, b in zip(heldout.at, end, strict=True)])
    item, liked = events.item.copy(), events.satisfaction.copy()
    item[hidden] = (item[hidden] + 17) % N
    liked[hidden] = 0.3
    other = Events(events.user, item, events.time, liked, False, events.n_users, N, 0.6)
    build(work, other, heldout)
    (early, late), (early_too, late_too) = made[:2], made[2:]
    for before, after in zip(early, early_too, strict=True):
        np.testing.assert_array_equal(before.to, after.to)
        np.testing.assert_array_equal(before.weight, after.weight)
    assert not np.array_equal(late[1].weight, late_too[1].weight)


# The pieces


def test_candidates_stand_in_the_order_of_the_catalog_and_those_drawn_stand_for_the_rest(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, solve = [], regression.fitted
    monkeypatch.setattr(fit, "CANDIDATES", 8)
    monkeypatch.setattr(regression, "fitted", lambda found, names: seen.extend(found) or solve(found, names))
    build(work, *log())
    assert len(seen) == USERS
    for one in seen:
        assert len(one.target) == len(one.weight) == len(one.said) == 12
        assert (one.target > 0).sum() == 4
        # Eight stand for the 56 new items that nobody took up.
        assert one.weight[one.target > 0].tolist() == [1] * 4
        assert one.weight[one.target == 0].tolist() == [7] * 8
    first = [int(np.flatnonzero(one.target > 0)[0]) for one in seen]
    assert 0.2 < np.mean(np.array(first) == 0) < 0.45  # 4 in 12 by chance; 1 where they were put first


def test_weights_are_those_of_weighted_least_squares() -> None:
    rng = np.random.default_rng(6)
    S = len(SIGNALS)
    found = []
    for _ in range(5):
        said = rng.normal(2, 3, size=(40, S)).astype(np.float32)
        worth = (said @ np.linspace(-1, 1, S) + rng.normal(size=40)).astype(np.float32)
        found.append(regression.Compared(said, worth, rng.choice([1.0, 4.0], 40).astype(np.float32), worth))
    own = [0, 2, 5, 7]
    solved, standard = regression.ridge([regression.Regression(c.said, c.target, c.weight) for c in found], own)
    said, worth = np.concatenate([c.said for c in found]).astype(float), np.concatenate([c.target for c in found])
    root = np.sqrt(np.concatenate([c.weight for c in found]).astype(float))[:, None]
    design = np.column_stack([said[:, own], np.ones(len(said))]) * root
    wanted = np.linalg.lstsq(design, worth * root[:, 0], rcond=None)[0][:-1]
    np.testing.assert_allclose(solved[own], wanted, atol=0.01)
    assert (np.delete(solved, own) == 0).all()
    assert np.abs(standard[own]) == pytest.approx(np.abs(solved[own]) * 3, rel=0.2)


@pytest.fixture
def two_questions() -> list[regression.Compared]:
    """What is taken up goes by the first signal, how it pleases by the second, and badly by the third."""
    rng, found = np.random.default_rng(8), []
    for _ in range(200):
        said = np.zeros((100, len(SIGNALS)), np.float32)
        said[:, :4] = rng.normal(size=(100, 4)) * (1, 10, 0.1, 1)
        taken = rng.random(100) < 0.2 * np.clip(0.5 + said[:, 0] / 2, 0, 1)
        liked = (0.8 + 0.002 * said[:, 1] - 0.1 * said[:, 2] + rng.normal(0, 0.01, 100)).astype(np.float32)
        worth = np.where(taken, liked - 0.4, 0).astype(np.float32)
        found.append(regression.Compared(said, worth, np.ones(100, np.float32), np.where(taken, liked, np.nan)))
    return found


def test_what_pleases_counts_half_of_what_is_taken_up(two_questions: list[regression.Compared]) -> None:
    solved, figures = regression.fitted(two_questions, ())
    names = list(SIGNALS)
    # The third has a part in what was taken up, as it was worth less.
    assert set(solved) <= set(names[:4])
    assert solved[names[1]] * 10 == pytest.approx(regression.PLEASING * solved[names[0]], rel=0.25)
    assert figures["weights"][names[0]] == 1
    assert figures["weights"][names[1]] == pytest.approx(regression.PLEASING, abs=0.15)
    assert abs(figures["weights"].get(names[2], 0)) < 0.15
    # Scale and origin of a signal change nothing.
    moved = [replace(one, said=one.said * 3 + 7) for one in two_questions]
    again = regression.fitted(moved, ())[0]
    assert again[names[0]] == pytest.approx(solved[names[0]] / 3, rel=1e-3)


@pytest.mark.parametrize("tells", [0.0, 2.0])
def test_the_best_stand_in_the_order_of_the_item_policy_where_that_is_worth_more(tells: float) -> None:
    """Of a third of the items, which EASE names, the item policy tells those that are taken up; of the others it
    says anything, so that it has no weight. Where it tells nothing, nothing is put in order."""
    rng, found, policy = np.random.default_rng(3), [], list(SIGNALS).index("item_policy")
    for _ in range(300):
        said = np.zeros((150, len(SIGNALS)), np.float32)
        named = np.arange(150) < 50
        said[:, 0] = named + rng.normal(0, 0.1, 150)
        hidden = rng.normal(size=150)
        said[:, policy] = np.where(named, hidden, rng.normal(0, 20, 150))
        taken = named & (rng.random(150) < 0.1 * np.exp(tells * (hidden - 1)))
        worth = taken.astype(np.float32)
        pleased = np.where(taken, 1, np.nan).astype(np.float32)
        found.append(regression.Compared(said, worth, np.ones(150, np.float32), pleased))
    figures = regression.fitted(found, ())[1]
    assert regression.orders(figures) == (tells > 0), figures
    assert not regression.orders(regression.fitted(found, ("ease",))[1])
    assert not regression.orders({"people": 0})


def test_a_log_in_which_all_pleased_alike_has_the_first_question_alone(
    two_questions: list[regression.Compared], monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = [replace(one, pleased=one.pleased * 0 + np.float32(0.7)) for one in two_questions]
    first = regression.fitted(alike, ())[0]
    both = regression.fitted(two_questions, ())[0]
    monkeypatch.setattr(regression, "PLEASING", 0.0)
    assert regression.fitted(two_questions, ())[0] == pytest.approx(first)
    assert both != pytest.approx(first)


def test_how_somebody_rates_everything_is_not_what_pleases_them(two_questions: list[regression.Compared]) -> None:
    """A signal that tells who is in a good mood, and nothing of what pleases them."""
    mood = np.random.default_rng(9).normal(size=len(two_questions))
    moody = []
    for one, shift in zip(two_questions, mood.tolist(), strict=True):
        said = one.said.copy()
        said[:, 3] += 5 * shift
        moody.append(replace(one, said=said, pleased=one.pleased + np.float32(shift)))
    before, after = (regression.fitted(found, ())[0] for found in (two_questions, moody))
    names = list(SIGNALS)
    assert after[names[1]] == pytest.approx(before[names[1]], rel=0.02)
    assert abs(after.get(names[3], 0)) < 0.1 * after[names[0]]


def test_nobody_to_fit_on_leaves_the_item_policy(work: Work) -> None:
    nobody = HeldOut(np.empty(0, np.int64), np.empty(0, np.int64))
    outcome = build(work, log()[0], nobody)
    weights = fit.load(work.out).fitted.weights
    assert {name for name, w in weights.items() if w} == {"item_policy"}
    assert outcome.metrics["planner.people"] == 0


def test_neutral_is_a_part_of_the_mean_and_the_scale_makes_the_mean_square_one() -> None:
    satisfaction = np.array([0.0, 0.2, 1.0, 1.0, 0.3], np.float32)
    found = fit.neutral(satisfaction)
    assert found.neutral == pytest.approx(0.3)
    assert np.mean(found.values(satisfaction) ** 2) == pytest.approx(1)
    assert fit.neutral(np.empty(0, np.float32)).values(np.array([1.0])).tolist() == [0.5]


def test_displeasure_that_the_log_never_showed_is_neutral() -> None:
    positives = fit.neutral(np.array([1.0, 0.8, 0.9], np.float32))
    values = positives.values(np.array([0.0, 0.79, 0.8, 1.0], np.float32))
    assert values[:2].tolist() == [0, 0]
    assert 0 < values[2] < values[3]


def test_traffic_and_quality_of_items() -> None:
    traffic, quality = item_stats(np.array([0, 2, 2]), np.array([1, 0, 0.5], np.float32), 4)
    assert traffic.tolist() == [1, 0, 2, 0]
    np.testing.assert_allclose(quality, [(1 + 5) / 11, 0.5, (0.5 + 5) / 12, 0.5])


def test_axes_keep_likeness_in_fewer_numbers() -> None:
    rng = np.random.default_rng(7)
    flat = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 20))
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)
    placed = fit.axes(flat, 3)
    np.testing.assert_allclose(placed @ placed.T, flat @ flat.T, atol=1e-5)
