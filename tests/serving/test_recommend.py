"""Every person has a stated answer."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import config
from byway.serving.answers import ITEMS, Answer
from byway.serving.bundle import Bundle
from byway.serving.pairs import draw
from byway.serving.person import DAY, Seen
from byway.serving.recommend import explain, recommend
from tests.serving.planted import LENGTH, NAMES, SIZES, STARTS, M, N, Planted

NOW = 20_000 * DAY
Builder = Callable[..., Bundle]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def opened(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return planted.build(tmp_path_factory.mktemp("bundle"))


def table_of(rankings: dict[tuple[int, int], list[int]]) -> np.ndarray:
    """A table with these rankings; all other pairs have none."""
    table = np.full((M, M, M), -1, dtype=np.int32)
    for pair, ranking in rankings.items():
        table[pair][: len(ranking)] = ranking
    return table


def ask(bundle: Bundle, *items: str | Seen, seed: int = 0, k: int | None = None, now: int | None = None) -> Answer:
    history = [Seen(item) if isinstance(item, str) else item for item in items]
    return recommend(bundle, history, np.random.default_rng(seed), k, now)


def items_of(cluster: int) -> list[str]:
    return [f"c{cluster}-{i}" for i in range(SIZES[cluster])]


def names(answer: Answer) -> list[str]:
    return [shown.item for shown in answer.items]


def scored(planted: Planted, bundle: Bundle, history: list[str]) -> dict[str, float]:
    """Every item's score by the planted policy, one at a time."""
    rows = [int(planted.order[planted.ids.index(item)]) for item in history[-LENGTH:]]
    user = planted.vectors[rows].sum(axis=0) / LENGTH
    return {planted.ids[p]: float(user @ planted.vectors[planted.order[p]]) for p in range(N)}


def test_two_interests(planted: Planted, tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(0, 1): [5, 3], (1, 0): [6, 2]})).build(tmp_path)
    answer = ask(bundle, "c0-0", "c1-2")
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[5], 1)
    assert answer.interests == [NAMES[0], NAMES[1]]
    scores = scored(planted, bundle, ["c0-0", "c1-2"])
    assert names(answer) == sorted(items_of(5), key=lambda item: -scores[item])
    assert [shown.score for shown in answer.items] == pytest.approx([scores[i] for i in names(answer)], abs=1e-5)
    assert {shown.cluster for shown in answer.items} == {NAMES[5]}
    assert answer.items[0].title == f"Title of {answer.items[0].item}"
    assert answer.reasons == [
        f"Two recent interests, drawn from the history: “{NAMES[0]}”, then “{NAMES[1]}”.",
        f"People with these interests are most likely to enjoy “{NAMES[5]}” next.",
        f"Only 7 of 10 items: “{NAMES[5]}” has no more to show.",
    ]
    # The other way round the table says something else.
    assert ask(bundle, "c1-2", "c0-0").cluster == NAMES[6]


def test_the_order_of_two_interests_is_that_of_their_last_item(tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(0, 1): [5], (1, 0): [6]})).build(tmp_path)
    for seed in range(20):
        assert ask(bundle, "c0-0", "c1-2", "c0-1", seed=seed).interests == [NAMES[1], NAMES[0]]
        assert ask(bundle, "c1-0", "c0-0", "c1-2", seed=seed).cluster == NAMES[5]


def test_one_interest_asks_the_diagonal(tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(2, 2): [6, 0]})).build(tmp_path)
    answer = ask(bundle, "c2-0", "c2-3", "c2-1")
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[6], 1)
    assert answer.interests == [NAMES[2]]
    assert answer.reasons[0] == f"One recent interest: “{NAMES[2]}”."


def test_three_interests(tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(0, 2): [6, 3]}), triples={(0, 1, 2): [5, 3]}).build(tmp_path)
    answer = ask(bundle, "c0-0", "c1-2", "c2-1")
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[5], 1)
    assert answer.interests == NAMES[:3]
    assert answer.reasons[0] == (
        f"Three recent interests, drawn from the history: “{NAMES[0]}”, then “{NAMES[1]}”, then “{NAMES[2]}”."
    )
    # Another order is another triple, which nobody had: its last two are asked.
    answer = ask(bundle, "c1-2", "c0-0", "c2-1")
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[6], 1)
    assert answer.reasons[1] == "Hardly anybody had these three together, so the last two decide."


def test_two_interests_and_one_are_asked_as_a_triple_whose_oldest_stands_twice(tmp_path: Path) -> None:
    planned = Planted(table=table_of({(4, 4): [0]}), triples={(0, 0, 1): [5], (2, 2, 2): [6]})
    bundle = planned.build(tmp_path)
    assert ask(bundle, "c0-0", "c1-2").cluster == NAMES[5]
    assert ask(bundle, "c0-0", "c1-2").interests == NAMES[:2]
    assert ask(bundle, "c2-0", "c2-2").cluster == NAMES[6]
    assert ask(bundle, "c4-0").cluster == NAMES[0]


def test_three_interests_are_drawn_from_those_met_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byway.transitions.draws.THREE_OF", 4)
    bundle = Planted(triples={}).build(tmp_path)
    history = [Seen(f"c{c}-0") for c in (2, 0, 1, 3, 5, 0)]
    found = {name for seed in range(60) for name in ask(bundle, *history, seed=seed).interests}
    assert found == {NAMES[c] for c in (0, 1, 3, 5)}
    assert {interest.cluster for interest in explain(bundle, history).interests} == found


def test_no_history_is_popular_items_one_a_cluster(planted: Planted, opened: Bundle) -> None:
    answer = ask(opened, k=4)
    best = [max(range(STARTS[c], STARTS[c + 1]), key=lambda p: planted.traffic[p]) for c in range(M)]
    best.sort(key=lambda p: -planted.traffic[p])
    assert names(answer) == [planted.ids[p] for p in best[:4]]
    assert [shown.score for shown in answer.items] == [planted.traffic[p] for p in best[:4]]
    assert (answer.strategy, answer.interests, answer.cluster, answer.rank) == ("popular_items", [], None, None)
    assert answer.reasons == ["There is no history to start from, so these are popular items, one an interest."]
    assert len(ask(opened, k=100).items) == M
    assert len({shown.cluster for shown in ask(opened, k=100).items}) == M


def test_unknown_items_only_are_no_history_and_it_is_said(opened: Bundle) -> None:
    answer = ask(opened, "c9-9", "", "🎬")
    assert answer.strategy == "popular_items"
    assert answer.reasons[0] == "3 of 3 items in the history are not in the catalog and are ignored."
    assert names(answer) == names(ask(opened))


def test_some_unknown_items_are_ignored_and_it_is_said(opened: Bundle) -> None:
    answer, without = ask(opened, "c0-0", "nobody", "c1-1"), ask(opened, "c0-0", "c1-1")
    assert answer.reasons == [
        "1 of 3 items in the history are not in the catalog and are ignored.",
        *without.reasons,
    ]
    assert answer.items == without.items


def test_the_next_in_the_ranking_where_the_first_is_known(tmp_path: Path) -> None:
    """Cluster 2 was seen long ago: it is not drawn, and not novel."""
    bundle = Planted(table=table_of({(0, 1): [2, 5, 3]})).build(tmp_path)
    recent = [Seen("c0-0", NOW - DAY), Seen("c1-0", NOW)]
    answer = ask(bundle, Seen("c2-0", NOW - 40 * DAY), *recent, now=NOW)
    assert (answer.strategy, answer.cluster, answer.rank) == ("table", NAMES[5], 2)
    assert answer.reasons[-1] == f"Only 7 of 10 items: “{NAMES[5]}” has no more to show."
    assert answer.reasons[-2] == (
        f"“{NAMES[5]}” is number 2 in the ranking of this pair; those before it are not new to this person or have "
        "no item left to show."
    )
    assert answer.interests == [NAMES[0], NAMES[1]]


def test_old_history_draws_no_interests_but_is_consumed_and_read(planted: Planted, tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(0, 0): [1, 2, 5]})).build(tmp_path)
    history = [Seen("c1-0", NOW - 31 * DAY), Seen("c2-0", NOW - 30 * DAY), Seen("c0-3", NOW - 30 * DAY + 1)]
    for seed in range(10):
        answer = ask(bundle, *history, now=NOW, seed=seed)
        assert answer.interests == [NAMES[0]]
        assert (answer.cluster, answer.rank) == (NAMES[5], 3)
    scores = scored(planted, bundle, [seen.item for seen in history])
    assert answer.items[0].item == max(items_of(5), key=lambda item: scores[item])


def test_days_are_a_setting(tmp_path: Path) -> None:
    bundle = Planted(settings=config.Bundle(days=60)).build(tmp_path)
    history = [Seen("c1-0", NOW - 31 * DAY), Seen("c0-3", NOW)]
    assert ask(bundle, *history, now=NOW).interests == [NAMES[1], NAMES[0]]


def test_old_history_alone_counts_as_recent_and_it_is_said(opened: Bundle) -> None:
    history = [Seen("c1-0", NOW - 90 * DAY), Seen("c0-3", NOW - 80 * DAY)]
    answer = ask(opened, *history, now=NOW)
    assert answer.interests == [NAMES[1], NAMES[0]]
    assert answer.reasons[0] == "Nothing in the last 30 days, so the whole history counts as recent."
    assert answer.strategy == "table"


@pytest.mark.parametrize(("time", "now"), [(None, NOW), (0, None), (None, None)])
def test_without_times_all_of_the_history_is_recent(opened: Bundle, time: int | None, now: int | None) -> None:
    answer = ask(opened, Seen("c1-0", time), Seen("c0-3", NOW), now=now)
    assert answer.interests == [NAMES[1], NAMES[0]]


def test_a_ranking_that_is_used_up_gives_the_popular_cluster(tmp_path: Path) -> None:
    bundle = Planted(table=table_of({(0, 3): [5]})).build(tmp_path)
    history = [Seen("c5-0", NOW - 40 * DAY), Seen("c0-0", NOW), Seen("c3-0", NOW)]
    answer = ask(bundle, *history, now=NOW)
    # People turn to 3, 5, 1, 6, 2, 4, 0; the first two are consumed.
    assert (answer.strategy, answer.cluster, answer.rank) == ("popular_cluster", NAMES[1], None)
    assert set(names(answer)) == set(items_of(1))
    assert answer.reasons[-3:] == [
        "Every interest in the ranking of this pair is known already or used up.",
        f"“{NAMES[1]}” is the interest most people turn to that is new to this person.",
        f"Only 4 of 10 items: “{NAMES[1]}” has no more to show.",
    ]


def test_an_empty_ranking_gives_the_popular_cluster(tmp_path: Path) -> None:
    bundle = Planted(table=table_of({})).build(tmp_path)
    assert ask(bundle, "c0-0", "c1-0").strategy == "popular_cluster"
    assert ask(bundle, "c0-0", "c1-0").cluster == NAMES[3]


def test_every_interest_consumed_gives_the_whole_catalog_without_what_was_seen(
    planted: Planted, opened: Bundle
) -> None:
    history = [f"c{c}-0" for c in range(M)]
    answer = ask(opened, *history, k=6)
    scores = scored(planted, opened, history)
    unseen = sorted(set(planted.ids) - set(history), key=lambda item: -scores[item])
    assert names(answer) == unseen[:6]
    assert (answer.strategy, answer.cluster, answer.rank) == ("unrestricted", None, None)
    assert answer.reasons[-1] == "No interest is left to discover, so these items come from the whole catalog."
    assert len(answer.interests) == 2
    assert all(shown.cluster == NAMES[int(shown.item[1])] for shown in answer.items)


def test_a_mix_shows_nothing_twice_where_every_interest_is_known(opened: Bundle) -> None:
    history = [Seen(f"c{c}-0") for c in range(M)]
    answer = recommend(opened, history, np.random.default_rng(0), 8, mix=0.5)
    assert answer.strategy == "unrestricted"
    assert len(set(names(answer))) == len(answer.items) == 8
    assert {shown.propensity for shown in answer.items} == {1.0}


def test_every_item_consumed_leaves_nothing_and_it_is_said(planted: Planted, opened: Bundle) -> None:
    answer = ask(opened, *planted.ids)
    assert (answer.strategy, answer.items) == ("unrestricted", [])
    assert answer.reasons[-1] == "No interest is left to discover, nor an item to show."


def test_more_items_than_the_cluster_has_are_all_of_it(opened: Bundle) -> None:
    answer = ask(opened, "c0-0", "c1-0", k=1000)
    assert answer.cluster == NAMES[2]
    assert sorted(names(answer)) == items_of(2)


def test_the_request_says_how_many_items(tmp_path: Path) -> None:
    bundle = Planted().build(tmp_path)
    assert len(ask(bundle, "c0-0", "c1-0", k=2).items) == 2
    assert len(ask(bundle).items) == len(NAMES) < ITEMS


def test_an_item_that_was_seen_twice_counts_once(opened: Bundle) -> None:
    answer = ask(opened, "c0-0", "c0-0", "c0-0")
    assert answer.interests == [NAMES[0]]
    assert answer.strategy == "table"


def test_ids_of_any_script_are_answered(tmp_path: Path) -> None:
    ids = [f"{c}{i}" for c, size in zip("🎬,عשé \u202e", SIZES, strict=True) for i in range(size)]
    bundle = Planted(ids=ids).build(tmp_path)
    answer = ask(bundle, "🎬0", ",1", k=2)
    assert len(answer.reasons) == 2
    assert all(item.startswith("ع") for item in names(answer))
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer


# The draw


def drawn(bundle: Bundle, weights: list[tuple[str, float]], rounds: int = 3000) -> dict[tuple[int, ...], float]:
    """How often each list of clusters comes out."""
    rng = np.random.default_rng(1)
    recent = [(Seen(item, None, weight), bundle.position(item) or 0) for item, weight in weights]
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(rounds):
        key = tuple(draw(bundle, recent, rng))
        counts[key] = counts.get(key, 0) + 1
    return {key: count / rounds for key, count in counts.items()}


def test_the_draw_is_by_satisfaction(opened: Bundle) -> None:
    """Clusters 0 to 2 with weight 0.2, 0.3 (in two items) and 0.5: the pair that comes out, in closed form."""
    share = {0: 0.2, 1: 0.3, 2: 0.5}
    found = drawn(opened, [("c0-0", 0.2), ("c1-0", 0.1), ("c1-1", 0.2), ("c2-0", 0.5)])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        expected = share[a] * share[b] / (1 - share[a]) + share[b] * share[a] / (1 - share[b])
        # Four standard deviations of 3,000 draws.
        assert found[a, b] == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 3000))
    assert set(found) == {(0, 1), (0, 2), (1, 2)}


def test_the_most_recent_interest_is_the_last(opened: Bundle) -> None:
    found = drawn(opened, [("c2-0", 0.5), ("c1-0", 0.5), ("c0-0", 0.5), ("c1-1", 0.0)], 300)
    assert set(found) == {(2, 1), (2, 0), (0, 1)}


def test_items_without_satisfaction_are_drawn_when_nothing_else_is_left(opened: Bundle) -> None:
    found = drawn(opened, [("c0-0", 0.0), ("c1-0", 1.0), ("c1-1", 1.0)], 300)
    assert set(found) == {(0, 1)}
    found = drawn(opened, [("c0-0", 0.0), ("c1-0", 0.0), ("c2-0", 0.0)], 300)
    assert set(found) == {(0, 1), (0, 2), (1, 2)}


def test_the_same_seed_gives_the_same_answer(opened: Bundle) -> None:
    history = ["c0-0", "c1-0", "c2-0", "c3-0", "c5-0"]
    assert ask(opened, *history, seed=3) == ask(opened, *history, seed=3)
    assert len({tuple(ask(opened, *history, seed=seed).interests) for seed in range(40)}) > 5


# Every answer


@st.composite
def persons(draw: st.DrawFn) -> list[Seen]:
    items = draw(st.lists(st.integers(0, N + 1), max_size=2 * N))
    ids = [f"c{c}-{i}" for c in range(M) for i in range(SIZES[c])] + ["unknown", "🎬"]
    times = sorted(draw(st.lists(st.integers(0, 60), min_size=len(items), max_size=len(items))), reverse=True)
    timed = draw(st.booleans())
    weights = draw(st.lists(st.floats(0, 1), min_size=len(items), max_size=len(items)))
    return [
        Seen(ids[item], NOW - days * DAY if timed else None, weight)
        for item, days, weight in zip(items, times, weights, strict=True)
    ]


@pytest.fixture(scope="module")
def random_table(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Rankings of two to four clusters for each pair, so that every strategy is met."""
    rng = np.random.default_rng(11)
    table = np.full((M, M, 4), -1, dtype=np.int32)
    for a in range(M):
        for b in range(M):
            others = rng.permutation([c for c in range(M) if c not in (a, b)])[: rng.integers(2, 5)]
            table[a, b, : len(others)] = others
    return Planted(table=table).build(tmp_path_factory.mktemp("random"))


@settings(deadline=None)
@given(persons(), st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([None, NOW]))
def test_every_answer_keeps_its_word(
    random_table: Bundle, person: list[Seen], seed: int, k: int, now: int | None
) -> None:
    bundle = random_table
    answer = recommend(bundle, person, np.random.default_rng(seed), k, now)
    known = [p for s in person if (p := bundle.position(s.item)) is not None]
    seen = {bundle.ids[p] for p in known}
    consumed = {bundle.cluster(p) for p in known}
    unseen = [SIZES[c] - sum(item.startswith(f"c{c}-") for item in seen) for c in range(M)]
    is_open = [c not in consumed and unseen[c] >= 1 for c in range(M)]
    assert not seen & set(names(answer))
    assert len(set(names(answer))) == len(answer.items) <= k
    scores = [shown.score for shown in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert answer.reasons
    assert all(shown.cluster == NAMES[int(shown.item[1])] for shown in answer.items)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer
    assert answer == recommend(bundle, person, np.random.default_rng(seed), k, now)
    liked = [NAMES.index(name) for name in answer.interests]
    assert (answer.strategy == "popular_items") == (not known)
    if not known:
        assert len(answer.items) == min(k, M)
        return
    assert 1 <= len(liked) == len(set(liked)) <= 2
    assert set(liked) <= consumed
    # Two where the recent history has two.
    recent = [s for s in person if now is None or s.time is None or s.time > now - 30 * DAY]
    recent = [s for s in recent if bundle.position(s.item) is not None] or [s for s in person if s.item in seen]
    assert len(liked) == min(2, len({s.item[:2] for s in recent}))
    last = {int(s.item[1]): at for at, s in enumerate(recent)}
    assert [last[c] for c in liked] == sorted(last[c] for c in liked)
    ranking = [c for c in bundle.table[liked[0], liked[-1]].tolist() if c >= 0]
    on_the_table = [c for c in ranking if is_open[c]]
    popular = [c for c in bundle.popularity.tolist() if is_open[c]]
    if on_the_table:
        assert (answer.strategy, answer.cluster) == ("table", NAMES[on_the_table[0]])
        assert answer.rank == ranking.index(on_the_table[0]) + 1
    elif popular:
        assert (answer.strategy, answer.cluster, answer.rank) == ("popular_cluster", NAMES[popular[0]], None)
    else:
        assert (answer.strategy, answer.cluster, answer.rank) == ("unrestricted", None, None)
        assert len(answer.items) == min(k, N - len(seen))
        return
    chosen = NAMES.index(answer.cluster or "")
    assert {shown.cluster for shown in answer.items} == {answer.cluster}
    assert len(answer.items) == min(k, unseen[chosen])


# Propensities


def frequencies(bundle: Bundle, history: list[Seen], rounds: int, **more: object) -> dict[str, tuple[float, float]]:
    """Of every item: how often it was shown, and the propensity that it carried."""
    rng = np.random.default_rng(3)
    counts: dict[str, int] = {}
    said: dict[str, set[float]] = {}
    for _ in range(rounds):
        for shown in recommend(bundle, history, rng, 3, None, **more).items:
            counts[shown.item] = counts.get(shown.item, 0) + 1
            said.setdefault(shown.item, set()).add(shown.propensity)
    # Whatever the draw, an item that can be shown carries the same number.
    assert all(len(found) == 1 for found in said.values())
    return {item: (count / rounds, *said[item]) for item, count in counts.items()}


@pytest.mark.parametrize("more", [{}, {"mix": 0.5}, {"context": "c1-3"}, {"exclude": ["c3-0", "c3-1", "c3-2"]}])
@pytest.mark.parametrize("interests", [2, 3])
def test_a_propensity_is_how_often_the_item_is_shown(
    tmp_path: Path, interests: int, more: dict[str, object]
) -> None:
    rng = np.random.default_rng(1)
    table = np.full((M, M, M), -1, dtype=np.int32)
    for a in range(M):
        for b in range(M):
            others = rng.permutation([c for c in range(M) if c not in (a, b)])[:3]
            table[a, b, : len(others)] = others
    triples = {(0, 2, 4): [6, 1], (1, 2, 3): [5], (0, 1, 3): [6], (0, 2, 1): [3], (4, 0, 1): [6]}
    bundle = Planted(table=table, triples=triples if interests == 3 else None).build(tmp_path)
    history = [Seen("c0-0", None, 0.9), Seen("c2-0", None, 0.2), Seen("c4-0", None, 0.5), Seen("c0-2", None, 0.1)]
    if interests == 3:
        history = [Seen("c3-3", None, 0.4), *history]
    rounds = 3000
    found = frequencies(bundle, history, rounds, **more)
    for item, (often, propensity) in found.items():
        # Four and a half standard deviations: one in 100,000.
        spread = 4.5 * np.sqrt(propensity * (1 - propensity) / rounds)
        assert often == pytest.approx(propensity, abs=max(spread, 1e-9)), item
    assert len({p for _, p in found.values()}) > 1 or "context" in more


def test_the_chances_of_an_explanation_are_those_of_the_answers(opened: Bundle) -> None:
    history = [Seen("c0-0", None, 0.9), Seen("c2-0", None, 0.2), Seen("c4-0", None, 0.5)]
    explained = explain(opened, history)
    assert sum(next.chance for next in explained.next) == pytest.approx(1, abs=1e-5)
    assert sum(interest.weight for interest in explained.interests) == pytest.approx(1, abs=1e-5)
    chance = {next.cluster: next.chance for next in explained.next}
    for seed in range(20):
        answer = ask(opened, *history, seed=seed)
        assert answer.items[0].propensity == pytest.approx(chance[answer.cluster or ""], abs=1e-5)
    assert explain(opened, []).next == []


def test_excluded_items_count_as_used_up_but_not_as_met(opened: Bundle) -> None:
    history = [Seen("c0-0"), Seen("c1-0")]
    first = recommend(opened, history, np.random.default_rng(0))
    assert first.cluster == NAMES[2]
    rng = np.random.default_rng(0)
    some = recommend(opened, history, rng, exclude=["c2-0", "c2-1", "c2-2", "nothing"])
    assert (some.cluster, names(some)) == (NAMES[2], ["c2-3"])
    none = recommend(opened, history, rng, exclude=items_of(2))
    assert (none.cluster, none.rank) == (NAMES[3], 2)


def test_items_that_are_not_good_enough_are_not_shown(tmp_path: Path) -> None:
    bundle = Planted().build(tmp_path)
    # Planted satisfaction is all the same: make the items differ.
    good = np.linspace(0, 1, N, dtype=np.float32)
    strict = Bundle(
        **{n: getattr(bundle, n) for n in Bundle.__slots__ if n not in ("quality", "settings", "eligible_at")},
        quality=good,
        settings=config.Bundle(mode="pair", min_quality=float(good[10])),
    )
    answer = ask(strict, "c0-0", "c1-0")
    assert set(names(answer)) == {"c2-2", "c2-3"}
    assert answer.cluster == NAMES[2]


def test_items_that_are_too_old_are_not_shown(tmp_path: Path) -> None:
    bundle = Planted().build(tmp_path)
    created = np.full(N, NOW - 100 * DAY)
    created[[12, 13]] = NOW - 5 * DAY
    fresh = Bundle(
        **{n: getattr(bundle, n) for n in Bundle.__slots__ if n not in ("created", "settings", "eligible_at")},
        created=created,
        settings=config.Bundle(mode="pair", max_age_days=30),
    )
    history = [Seen("c0-0", NOW - DAY), Seen("c1-0", NOW - DAY)]
    answer = recommend(fresh, history, np.random.default_rng(0), now=NOW)
    assert (answer.cluster, sorted(names(answer))) == (NAMES[3], ["c3-0", "c3-1"])
    # Without a clock nothing has an age.
    assert recommend(fresh, [Seen("c0-0"), Seen("c1-0")], np.random.default_rng(0)).cluster == NAMES[2]


def test_a_cluster_without_items_is_passed_over(tmp_path: Path) -> None:
    bundle = Planted().build(tmp_path)
    answer = recommend(bundle, [Seen("c0-0"), Seen("c1-0")], np.random.default_rng(0), exclude=items_of(2))
    assert answer.cluster == NAMES[3]
    assert answer.items
