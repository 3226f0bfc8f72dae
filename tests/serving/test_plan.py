"""The mode `person`: which items stand on a page, how likely, and why; and what stays as it was beside it."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import msgspec
import numpy as np
import pytest

from byway.base import config
from byway.planner import search
from byway.planner.fit import FittedPlanner
from byway.planner.planner import SIGNALS, Asker, PlannerWeights
from byway.serving import plan
from byway.serving.bundle import Bundle
from byway.serving.person import DAY, Seen, person_of
from byway.serving.recommend import explain, recommend
from tests.planner.planted import dense
from tests.serving.planted import LENGTH, NAMES, SIZES, M, N, Planted, planned_of

NOW = 20_000 * DAY
HISTORY = [Seen("c0-0", None, 0.9), Seen("c2-0", None, 0.2), Seen("c4-0", None, 0.5), Seen("c0-2", None, 0.1)]
MET = (0, 2, 4)


def rankings(seed: int) -> np.ndarray:
    """[M, M, 3] drawn others after each pair."""
    rng = np.random.default_rng(seed)
    return np.array(
        [[rng.permutation([c for c in range(M) if c not in (a, b)])[:3] for b in range(M)] for a in range(M)],
        np.int32,
    )


def built(folder: Path, planned=None, **settings) -> tuple[Planted, Bundle]:
    planted = Planted(
        table=rankings(1),
        model=rankings(2),
        planned=planned_of() if planned is None else planned,
        settings=config.Bundle(**settings),
    )
    return planted, planted.build(folder)


def ask(bundle: Bundle, history: list[Seen], seed: int = 0, k: int | None = None, **more):
    return recommend(bundle, history, np.random.default_rng(seed), k, **more)


def names(answer) -> list[str]:
    return [shown.item for shown in answer.items]


def share_by_force(bundle: Bundle, table: np.ndarray) -> np.ndarray:
    """[M] of HISTORY: one over the place in the ranking of the pair that is drawn, in the mean over all draws."""
    weight, last = {0: 1.0, 2: 0.2, 4: 0.5}, {2: 1, 4: 2, 0: 3}
    found, total = np.zeros(M), sum(weight.values())
    for a, b in permutations(weight, 2):
        chance = weight[a] / total * weight[b] / (total - weight[a])
        older, newer = sorted((a, b), key=last.get)
        for place, cluster in enumerate(table[older, newer], 1):
            found[cluster] += chance / place
    return found


def scores_by_force(planted: Planted, bundle: Bundle) -> dict[str, float]:
    """Every item's score for HISTORY, from the arrays that the bundle was laid out from."""
    order, planned = planted.order, planted.planned
    rows = [int(order[planted.ids.index(seen.item)]) for seen in HISTORY]
    values = (np.array([0.9, 0.2, 0.5, 0.1]) - 0.25) * 2
    position = [planted.ids.index(seen.item) for seen in HISTORY]
    state = planted.vectors[rows].sum(0) / LENGTH
    taste = values @ planned.content[rows]
    traffic = planted.traffic.astype(float)
    said = {
        "ease": (values @ dense(planned.items)[rows])[order],
        "ease_leaves": values @ dense(planned.leaves)[position],
        "item_policy": planted.vectors[order] @ state,
        "table": np.repeat(share_by_force(bundle, planted.table), SIZES),
        "language_model": np.repeat(share_by_force(bundle, planted.model), SIZES),
        "similarity": planned.content[order] @ taste / np.linalg.norm(taste),
        "popularity": np.log1p(traffic),
        "quality": np.zeros(N),
    }
    assert set(said) == set(SIGNALS)
    total = sum(planned.fitted.weights[name] * each for name, each in said.items())
    return dict(zip(planted.ids, total.tolist(), strict=True))


def test_a_page_holds_the_best_items_of_the_interests_never_met(tmp_path: Path) -> None:
    planted, bundle = built(tmp_path, skip=0)
    scores = scores_by_force(planted, bundle)
    new = sorted((i for i in planted.ids if int(i[1]) not in MET), key=lambda i: -scores[i])
    answer = ask(bundle, HISTORY, k=8)
    assert answer.strategy == "person"
    assert names(answer) == new[:8]
    assert [shown.score for shown in answer.items] == pytest.approx([scores[i] for i in new[:8]], abs=1e-4)
    assert {(shown.found_by, shown.propensity) for shown in answer.items} == {("person", 1.0)}
    assert answer.cluster == answer.items[0].cluster == NAMES[int(new[0][1])]
    assert answer.rank is None
    assert len(ask(bundle, HISTORY, k=100).items) == len(new)


@pytest.mark.parametrize("without", ["table", "language_model"])
def test_a_ranking_without_a_weight_is_not_kept_and_not_asked(tmp_path: Path, without: str) -> None:
    planned = planned_of()
    weights = {name: w for name, w in planned.fitted.weights.items() if name != without}
    planted, bundle = built(tmp_path, replace(planned, fitted=PlannerWeights(weights, 0.25, 2.0)), skip=0)
    planted.planned = replace(planned, fitted=PlannerWeights({**weights, without: 0.0}, 0.25, 2.0))
    scores = scores_by_force(planted, bundle)
    new = sorted((i for i in planted.ids if int(i[1]) not in MET), key=lambda i: -scores[i])
    assert names(ask(bundle, HISTORY, k=8)) == new[:8]
    assert (bundle.model is None) == (without == "language_model")


def in_turn() -> FittedPlanner:
    """The best items stand in the order of the item policy."""
    planned = planned_of()
    return replace(planned, fitted=msgspec.structs.replace(planned.fitted, next_first=True))


def test_the_best_stand_in_the_order_in_which_they_are_expected(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("byway.planner.planner.ENOUGH", 6)
    planted, bundle = built(tmp_path, in_turn(), skip=0)
    scores = scores_by_force(planted, bundle)
    new = sorted((i for i in planted.ids if int(i[1]) not in MET), key=lambda i: -scores[i])
    state = planted.vectors[[int(planted.order[planted.ids.index(seen.item)]) for seen in HISTORY]].sum(0)
    next_of = {i: float(planted.vectors[int(planted.order[planted.ids.index(i)])] @ state) for i in new}
    answer = ask(bundle, HISTORY, k=8)
    assert names(answer) == sorted(new[:6], key=lambda i: -next_of[i]) + new[6:8] != new[:8]
    first = f"“Title of {names(answer)[0]}”"
    said = [reason for reason in answer.reasons if "first" in reason or "among the best" in reason]
    assert [each.split(" because")[0] for each in said] == [f"{first} is among the best", "It stands first"]


@pytest.mark.parametrize("most", [1, 2])
def test_a_page_of_few_interests_is_of_those_with_the_best_items(tmp_path: Path, most: int) -> None:
    planted, bundle = built(tmp_path, skip=0, new_interests=most)
    scores = scores_by_force(planted, bundle)
    best = sorted((c for c in range(M) if c not in MET), key=lambda c: -max(scores[i] for i in of(planted, c)))
    wanted = sorted((i for c in best[:most] for i in of(planted, c)), key=lambda i: -scores[i])
    answer = ask(bundle, HISTORY, k=9)
    assert names(answer) == wanted[:9]
    if len(wanted) < 9:
        assert answer.reasons[-1] == f"Only {len(wanted)} of 9 items: the new interests have no more to show."


def of(planted: Planted, cluster: int) -> list[str]:
    return [i for i in planted.ids if i.startswith(f"c{cluster}-")]


# Propensities


def frequencies(bundle: Bundle, rounds: int, k: int, **more) -> dict[str, tuple[float, float]]:
    """Of every item that was shown: how often, and the propensity that it carried each time."""
    counts: dict[str, int] = {}
    said: dict[str, set[float]] = {}
    for seed in range(rounds):
        answer = recommend(bundle, HISTORY, np.random.default_rng([7, seed]), k, **more)
        assert len(set(names(answer))) == len(answer.items) <= k
        for shown in answer.items:
            counts[shown.item] = counts.get(shown.item, 0) + 1
            said.setdefault(shown.item, set()).add(shown.propensity)
    assert all(len(found) == 1 for found in said.values())
    return {item: (count / rounds, *said[item]) for item, count in counts.items()}


@pytest.mark.parametrize(
    ("settings", "k", "more"),
    [
        ({"skip": 0.3, "planned": in_turn()}, 4, {}),
        ({"skip": 0.4, "planned": in_turn(), "new_interests": 1}, 3, {"mix": 0.5}),
        ({"skip": 0.3}, 4, {}),
        ({"skip": 0.4}, 5, {"mix": 0.5}),
        ({"skip": 0.3}, 1, {"mix": 0.5}),
        ({"skip": 0.3, "new_interests": 1}, 3, {}),
        ({"skip": 0.5, "new_interests": 1}, 3, {"mix": 0.5, "exclude": ["c3-0", "c5-1"]}),
        ({"mode": "paper"}, 3, {"mix": 0.5}),
    ],
)
def test_a_propensity_is_how_often_the_item_is_shown(
    tmp_path: Path, settings, k: int, more, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byway.planner.planner.ENOUGH", 6)
    monkeypatch.setattr(plan, "explain", lambda *of: None)  # words take half of the time, and nothing is drawn
    _, bundle = built(tmp_path, **settings)
    rounds = 3000
    found = frequencies(bundle, rounds, k, **more)
    for item, (often, propensity) in found.items():
        spread = 4.5 * np.sqrt(max(propensity * (1 - propensity), 0) / rounds)
        assert often == pytest.approx(propensity, abs=max(spread, 1e-9)), item
    assert len({p for _, p in found.values()}) > 1
    # What was never shown is unlikely: all the numbers add up to the places that are filled.
    assert sum(p for _, p in found.values()) == pytest.approx(sum(o for o, _ in found.values()), abs=0.1)


@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_a_page_without_a_place_to_explore_is_of_known_interests(tmp_path: Path, mix: float) -> None:
    _, bundle = built(tmp_path)
    answers = [ask(bundle, HISTORY, seed, 1, mix=mix) for seed in range(30)]
    arms = {shown.found_by for answer in answers for shown in answer.items}
    assert arms == ({"known"} if mix == 0 else {"known", "person"})
    assert {answer.strategy for answer in answers} == {"person"}
    for answer in answers:
        assert len(answer.items) == 1
        assert int(names(answer)[0][1]) in MET or answer.items[0].found_by == "person"


# What is never shown


@pytest.mark.parametrize("large", [False, True])
def test_what_is_seen_excluded_not_eligible_or_known_is_never_shown(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted, bundle = built(tmp_path, skip=0.3, min_quality=0.5)
    rng = np.random.default_rng(3)
    bundle = replace(bundle, quality=rng.random(N).astype(np.float32), eligible_at={})
    if large:
        monkeypatch.setattr(search, "EXACT", N - 1)
        monkeypatch.setattr(search, "LEAVES", 15)
    shown = set[str]()
    for seed in range(150):
        items = [planted.ids[p] for p in rng.choice(N, rng.integers(1, 6))]
        exclude = [planted.ids[p] for p in rng.choice(N, 4)]
        answer = ask(bundle, [Seen(i) for i in items], seed, k=12, exclude=exclude)
        if answer.strategy != "person":
            continue
        met = {i[1] for i in items}
        for item in names(answer):
            assert item not in exclude
            assert item[1] not in met
            assert bundle.quality[planted.ids.index(item)] >= 0.5
        shown |= set(names(answer))
    # Whatever may be shown was.
    assert shown == {i for p, i in enumerate(planted.ids) if bundle.quality[p] >= 0.5}


def test_where_nothing_is_open_the_whole_catalog_is(tmp_path: Path) -> None:
    planted, bundle = built(tmp_path)
    history = [Seen(f"c{c}-0") for c in range(M)]
    for mix in (1.0, 0.5):
        answer = ask(bundle, history, k=6, mix=mix)
        assert (answer.strategy, answer.cluster, answer.interests) == ("unrestricted", None, [])
        assert {shown.propensity for shown in answer.items} == {1.0}
        rows = planted.order[[planted.ids.index(seen.item) for seen in history]]
        score = planted.vectors[planted.order] @ planted.vectors[rows].sum(0)
        unseen = [i for i in np.argsort(-score) if planted.ids[i] not in {s.item for s in history}]
        assert names(answer) == [planted.ids[i] for i in unseen[:6]]
        assert answer.reasons[-1].startswith("No interest is left to discover")
    assert ask(bundle, [Seen(i) for i in planted.ids]).items == []


# Why


def test_the_reasons_name_the_items_that_were_liked(tmp_path: Path) -> None:
    """Item c5-3 is liked by whoever likes c2-0, and less by whoever likes c4-0; nothing else says anything."""
    planned = planned_of()
    b = np.zeros((N, N), np.float32)
    planted = Planted()
    row = {item: int(planted.order[p]) for p, item in enumerate(planted.ids)}
    b[row["c2-0"], row["c5-3"]], b[row["c4-0"], row["c5-3"]], b[row["c0-0"], row["c5-3"]] = 0.9, 0.5, 0.1
    b[row["c0-2"], row["c6-1"]] = 0.1
    ease = planned.items.__class__(np.tile(np.arange(N, dtype=np.int32), (N, 1)), b)
    own = replace(planned, items=ease, fitted=PlannerWeights({"ease": 1.0, "popularity": 1e-5}, 0.25, 2.0))
    _, bundle = built(tmp_path, own, skip=0, new_interests=1)
    history = [Seen("c0-0", None, 1.0), Seen("c4-0", None, 1.0), Seen("c2-0", None, 0.9)]
    answer = ask(bundle, history, k=2)
    assert names(answer)[0] == "c5-3"
    assert answer.interests == [NAMES[2], NAMES[4]]
    assert answer.reasons == [
        "Who liked “Title of c2-0” and “Title of c4-0” liked “Title of c5-3” too.",
        f"“Title of c5-3” stands first because of {SIGNALS['ease']}.",
        f"New to this person: “{NAMES[5]}”.",
    ]
    # What displeased is not among those that were liked.
    answer = ask(bundle, [Seen("c0-0", None, 1.0), Seen("c4-0", None, 0.9), Seen("c2-0", None, 0.0)], k=2)
    assert not any("c2-0" in reason for reason in answer.reasons)
    assert answer.interests == [NAMES[4], NAMES[0]] or names(answer)[0] != "c5-3"


def test_what_can_be_led_to_is_explained_with_its_chances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ITEMS", 3)
    _, bundle = built(tmp_path, skip=0.3)
    explained = explain(bundle, HISTORY)
    assert {i.cluster: i.weight for i in explained.interests} == pytest.approx(
        {NAMES[0]: 1 / 1.7, NAMES[2]: 0.2 / 1.7, NAMES[4]: 0.5 / 1.7}, abs=1e-5
    )
    chance = {one.cluster: one.chance for one in explained.next}
    assert set(chance) == {NAMES[c] for c in range(M) if c not in MET}
    assert list(chance.values()) == sorted(chance.values(), reverse=True)
    for one in explained.next:
        assert set().union(*map(set, one.pairs)) <= {NAMES[c] for c in MET}
    # An interest is met by its best item: it is on the page as often as that.
    rounds, often = 1500, dict.fromkeys(chance, 0)
    for seed in range(rounds):
        for cluster in {shown.cluster for shown in ask(bundle, HISTORY, seed, k=3).items}:
            often[cluster] += 1
    for cluster, p in chance.items():
        assert often[cluster] / rounds == pytest.approx(p, abs=max(4.5 * np.sqrt(p * (1 - p) / rounds), 1e-9))
    assert explain(bundle, []).next == []


def test_shares_of_the_lead_are_by_signal(tmp_path: Path) -> None:
    _, bundle = built(tmp_path)
    planner = bundle.planner
    asker = Asker(
        np.array([0, 9]), np.array([1.5, 0.5], np.float32), bundle.encode([0, 9]), {"table": np.ones(M, np.float32)}
    )
    score = np.where(np.arange(N) < 4, -np.inf, 0).astype(np.float32)
    scored = plan.Scored(np.arange(N), planner.cluster, planner.parts(asker), score)
    found = plan.signals_of(scored, 20)
    lift = {name: part[20] - part[4:].mean() for name, part in planner.parts(asker).items()}
    total = sum(value for value in lift.values() if value > 0)
    assert dict(found) == pytest.approx({n: v / total for n, v in lift.items() if v / total > 1e-6}, abs=1e-5)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
    assert "table" not in dict(found)


# Beside it


def test_an_item_being_watched_and_the_mode_pair_are_answered_as_before(tmp_path: Path) -> None:
    _, bundle = built(tmp_path / "with")
    plain = Planted(table=rankings(1)).build(tmp_path / "without")
    pair = replace(bundle, settings=config.Bundle(mode="pair"))
    for seed in range(20):
        watching = ask(bundle, HISTORY, seed, context="c1-3", mix=0.5)
        assert watching == ask(plain, HISTORY, seed, context="c1-3", mix=0.5)
        assert watching.strategy != "person"
        assert ask(pair, HISTORY, seed) == ask(plain, HISTORY, seed)
        assert ask(bundle, HISTORY, seed).strategy == "person"
    assert explain(pair, HISTORY) == explain(plain, HISTORY)
    assert explain(bundle, HISTORY, context="c1-3") == explain(plain, HISTORY, context="c1-3")
    assert ask(bundle, []) == ask(plain, [])


def test_an_interest_that_was_met_may_be_the_answer_where_only_the_pair_is_not_new(tmp_path: Path) -> None:
    table = np.full((M, M, 3), -1, np.int32)
    table[0, 1] = 2, 5, 3
    met = [Seen("c2-0", NOW - 40 * DAY), Seen("c0-0", NOW), Seen("c1-0", NOW)]
    both = {
        mode: Planted(table=table, settings=config.Bundle(mode=mode)).build(tmp_path / mode)
        for mode in ("pair", "paper")
    }
    assert (ask(both["pair"], met, now=NOW).cluster, ask(both["pair"], met, now=NOW).rank) == (
        NAMES[5],
        2,
    )
    answer = ask(both["paper"], met, now=NOW)
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[2], 1)
    assert set(names(answer)) == {"c2-1", "c2-2", "c2-3"}
    assert {shown.propensity for shown in answer.items} == {1.0}
    assert explain(both["paper"], met, NOW).next[0].cluster == NAMES[2]
    # Where nothing of it is left the answer is not the second in the ranking but what most turn to.
    everything = [Seen(f"c2-{i}", NOW - 40 * DAY) for i in range(4)] + met
    answer = ask(both["paper"], everything, now=NOW)
    assert (answer.strategy, answer.cluster) == ("popular_cluster", NAMES[3])


# Interests that stay new for a while


def opened(bundle: Bundle, history: list[Seen], now: int | None = NOW, watched: int | None = None) -> set[int]:
    known = [(seen, bundle.position(seen.item) or 0) for seen in history]
    return set(np.flatnonzero(person_of(bundle, known, now, [], watched, []).open).tolist())


YOUNG = [
    Seen("c0-0", NOW - 3 * DAY, 0.9),  # pleased three days ago
    Seen("c1-0", NOW - 9 * DAY, 0.9),  # pleased, but was met nine days ago for the first time
    Seen("c1-1", NOW - 1 * DAY, 0.9),
    Seen("c2-0", NOW - 3 * DAY, 0.4),  # never pleased, lately
    Seen("c3-0", NOW - 20 * DAY, 0.4),  # never pleased, long ago
    Seen("c5-0", NOW - 30 * DAY, 0.4),  # never pleased, and was met again lately
    Seen("c5-1", NOW - 2 * DAY, 0.4),
]


def test_young_interests_and_those_to_try_again_are_offered(tmp_path: Path) -> None:
    settings = {
        "neither": {},
        "young": {"young_days": 5},
        "again": {"again_days": 10},
        "both": {"young_days": 5, "again_days": 10},
        "longer": {"young_days": 10, "again_days": 3},
    }
    bundle = {name: built(tmp_path / name, **own)[1] for name, own in settings.items()}
    found = {name: opened(one, YOUNG) for name, one in bundle.items()}
    assert found == {
        "neither": {4, 6},
        "young": {0, 4, 6},
        "again": {3, 4, 6},
        "both": {0, 3, 4, 6},
        "longer": {0, 1, 2, 3, 4, 6},
    }
    both = bundle["both"]
    assert opened(both, YOUNG, None) == {4, 6}  # without a clock nothing is young
    assert opened(both, YOUNG, NOW, 25) == {4}  # a pair answers, and the item watched is of 6
    assert opened(replace(both, settings=replace(both.settings, mode="pair")), YOUNG) == {4, 6}
    assert opened(replace(both, planner=None), YOUNG) == {4, 6}
    # What was met at a time that nobody knows is not young.
    assert opened(both, [Seen("c0-3", None, 0.9), *YOUNG]) == {3, 4, 6}
    # To the microsecond.
    edge = [Seen("c0-0", NOW - 5 * DAY + 1, 0.5), Seen("c1-0", NOW - 5 * DAY, 0.5)]
    edge += [Seen("c2-0", NOW - 10 * DAY, 0.4), Seen("c3-0", NOW - 10 * DAY + 1, 0.4)]
    assert opened(both, edge) == {0, 2, 4, 5, 6}


def test_what_pleases_is_for_the_planner_to_say(tmp_path: Path) -> None:
    planned = planned_of()
    strict = replace(planned, fitted=PlannerWeights(planned.fitted.weights, 0.25, 2.0, positive=0.95))
    _, bundle = built(tmp_path, strict, young_days=5, again_days=10)
    assert opened(bundle, YOUNG) == {3, 4, 6}


def test_a_young_interest_shows_what_is_left_of_it_and_nothing_twice(tmp_path: Path) -> None:
    planted, bundle = built(tmp_path, young_days=5, again_days=10, skip=0)
    answer = ask(bundle, YOUNG, k=20, now=NOW)
    assert set(names(answer)) == {i for i in planted.ids if i[1] in "0346"} - {"c0-0", "c3-0"}
    half = ask(bundle, YOUNG, k=12, now=NOW, mix=0.5)
    assert len(set(names(half))) == len(half.items)
    assert {shown.item[1] for shown in half.items if shown.found_by == "known"} <= set("125")
    assert {shown.item[1] for shown in half.items if shown.found_by == "person"} <= set("0346")
    # One that is used up is not offered.
    everything = [*(Seen(f"c0-{i}", NOW - DAY) for i in range(4)), *YOUNG]
    assert not any(item.startswith("c0") for item in names(ask(bundle, everything, k=20, now=NOW)))
