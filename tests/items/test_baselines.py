"""Each baseline against its source's formulas, written out naively."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from byway.base import config
from byway.items import sequence
from byway.serving import recommend
from byway.serving.person import Seen
from byway.simulation import neural
from byway.simulation.neural_linear import NeuralLinear
from byway.simulation.planned import Keywords, Planned, RandomCluster, Tabled, Watching, draw_interests
from byway.simulation.source import NONE, Asked, Known, Logged, best, first_meetings, open_clusters
from byway.transitions.triples import look_up
from tests.serving.planted import NAMES, Planted
from tests.serving.planted import M as CLUSTERS

RNG = np.random.default_rng(0)
N, M = 24, 6
KNOWN = Known(
    (RNG.normal(size=(N, 5)) / np.sqrt(5)).astype(np.float32), np.arange(N) % M, (np.array([0, 0, 0, 1, 1, 1]),)
)
SETTINGS = config.ItemPolicy(dim=8, history=6)


def asked(history: list[list[int]], n: int = N, known: Known = KNOWN) -> Asked:
    """Users with these items, all liked, all yesterday."""
    length = max(map(len, history))
    padded = np.array([[0] * (length - len(h)) + [i + 1 for i in h] for h in history])
    seen, met = np.zeros((len(history), n), np.bool_), np.zeros((len(history), known.n_clusters), np.bool_)
    for row, items in enumerate(history):
        seen[row, items] = True
        met[row, known.cluster[items]] = True
    there = padded > 0
    return Asked(np.arange(len(history)), padded, there.astype(np.float32), -there.astype(np.int64), 0, seen, met)


def a_log(events: int = 120, users: int = 5) -> Logged:
    rng = np.random.default_rng(1)
    return Logged(
        rng.integers(users, size=events),
        rng.integers(N, size=events),
        rng.random(events).astype(np.float32),
        np.sort(rng.integers(-20, 0, size=events)),
        users,
    )


def encoder(kind: str = "restricted", log: Logged | None = None, folder: Path | None = None) -> neural.Encoded:
    parts = neural.begin(kind, KNOWN, neural.settings_of(kind, SETTINGS, 1), 0).eval()
    return neural.encoded(kind, KNOWN, parts, SETTINGS, 0, every=3)


def test_the_neural_linear_bandit_is_bayesian_regression() -> None:
    log = a_log(400, 40)
    bandit = NeuralLinear(KNOWN, encoder(), ridge=1e-3)
    bandit.learn(log, 0)
    rows, phi = np.flatnonzero(first_meetings(KNOWN, log)), []
    for row in rows:
        before = np.flatnonzero(log.user[:row] == log.user[row])[-20:]
        history = np.zeros((1, 20), np.int64)
        history[0, 20 - len(before) :] = log.item[before] + 1
        state = bandit.encoder.states(history)[0] / np.sqrt(8)
        centre = bandit.centre[KNOWN.cluster[log.item[row]]]
        phi.append(np.concatenate([state * centre, centre, [1]]))
    x = np.array(phi)
    np.testing.assert_allclose(bandit.precision, 1e-3 * np.eye(17) + x.T @ x, atol=1e-4)
    np.testing.assert_allclose(bandit.moment, x.T @ log.satisfaction[rows], atol=1e-4)


def test_the_neural_linear_bandit_finds_the_cluster_that_pleases() -> None:
    log = a_log(4000, 900)
    good = np.where(KNOWN.cluster[log.item] == 2, 0.95, 0.1).astype(np.float32)
    bandit = NeuralLinear(KNOWN, encoder())
    bandit.learn(Logged(log.user, log.item, good, log.day, log.n_users), 0)
    chosen = bandit.choose(asked([[0]] * 50), np.ones((50, M), np.bool_), np.random.default_rng(0))
    assert (chosen == 2).mean() > 0.8


def test_novelty_rewards_are_four_times_where_the_week_had_none() -> None:
    user, item = np.array([0, 0, 0, 1, 0]), np.array([0, 6, 0, 0, 1])
    log = Logged(user, item, np.array([1, 0.8, 1, 1, 0.2], np.float32), np.array([0, 3, 11, 11, 11]), 2)
    # Items 0 and 6 share a cluster: new, then known, then eight days apart, then another user; the last disliked.
    assert neural.novelty(KNOWN, log).tolist() == pytest.approx([4, 0.8, 4, 4, 0])


def test_novelty_has_the_correction_that_it_builds_on_and_a_bonus_for_spreading() -> None:
    """[9] is [8] with another reward: the same two heads; with the bonus the same log makes a flatter policy."""
    settings = neural.settings_of("novelty", SETTINGS, 25)
    assert settings.top_k == neural.settings_of("sequence", SETTINGS, 10).top_k == 16
    assert "behaviour" in neural.begin("novelty", KNOWN, settings, 0)
    log = a_log(300, 30)
    log = replace(log, item=log.item % 4)
    history, spread = asked([[1, 2], [3, 4, 5]]).history, []
    for entropy in (0.0, 30.0):
        parts = neural.begin("novelty", KNOWN, settings, 0)
        sequence.fit(parts, neural.KINDS["novelty"].sequences(KNOWN, log), settings, 0, peak=0.02, entropy=entropy)
        found = neural.encoded("novelty", KNOWN, parts, SETTINGS, 0, every=0)
        scores = torch.from_numpy(found.states(history) @ found.vectors().T)
        spread.append(float(torch.distributions.Categorical(logits=scores).entropy().mean()))
    assert neural.KINDS["novelty"].entropy > 0
    assert spread[0] < spread[1] - 0.1


def test_novelty_reads_what_was_a_surprise() -> None:
    """Items 0 and 6, of one cluster: where the week between had none, 1 follows, else 2. Only the mark tells."""
    pairs = 80
    long_ago = np.arange(pairs) % 2 == 0
    item = np.column_stack([np.zeros(pairs, np.int64), np.full(pairs, 6), np.where(long_ago, 1, 2)]).ravel()
    day = np.column_stack([np.where(long_ago, -20, -3), np.full(pairs, -2), np.full(pairs, -1)]).ravel()
    log = Logged(np.arange(pairs).repeat(3), item, np.ones(3 * pairs, np.float32), day, pairs)
    # Without the correction, under which two answers of one half each are both as good as wanted.
    settings = replace(neural.settings_of("novelty", SETTINGS, 150), top_k=0)
    parts = neural.begin("novelty", KNOWN, settings, 0)
    sequence.fit(parts, neural.KINDS["novelty"].sequences(KNOWN, log), settings, 0, peak=0.02)
    found = neural.encoded("novelty", KNOWN, parts, SETTINGS, 0, every=0)
    question = asked([[0, 6], [0, 6], [0, 6]])
    liked = question.satisfaction.copy()
    liked[2, 1] = 0.2  # what was new and did not please is no surprise
    days = np.array([[-20, -2], [-3, -2], [-20, -2]])
    question = Asked(question.user, question.history, liked, days, 0, question.seen, question.met)
    assert neural.surprising(KNOWN, question).tolist() == [[True, True], [True, False], [True, False]]
    scores = found.scores(question, np.full(3, NONE))
    assert (scores[:, 1] > scores[:, 2]).tolist() == [True, False, False]


@pytest.mark.parametrize("kind", ["restricted", "sequence", "novelty", "context", "two_tower"])
def test_every_encoder_learns_what_comes_next(kind: str) -> None:
    """Item i is followed by i + 1: after training it is named first, where a random guess has 1 of 24."""
    user = np.arange(150).repeat(6)
    start = np.random.default_rng(2).integers(N, size=150).repeat(6)
    item = (start + np.tile(np.arange(6), 150)) % N
    log = Logged(user, item, np.ones(900, np.float32), np.tile(np.arange(-6, 0), 150), 150)
    settings = neural.settings_of(kind, SETTINGS, 1)
    parts = neural.begin(kind, KNOWN, settings, 0)
    sequence.fit(
        parts, neural.KINDS["restricted"].sequences(KNOWN, log), replace(settings, epochs=25), 0, peak=0.02
    )
    found = neural.encoded(kind, KNOWN, parts, SETTINGS, 0, every=0)
    found.kind = replace(found.kind, nearest=0)
    scores = found.scores(asked([[i - 2, i - 1, i] for i in range(2, N - 1)]), np.full(N - 3, NONE))
    hit = (best(scores, 3) == np.arange(3, N)[:, None]).any(1).mean()
    assert hit > 0.6


def test_context_scores_only_what_is_near_the_last_item() -> None:
    found = encoder("context")
    found.kind = replace(found.kind, nearest=5)
    scores = found.scores(asked([[3, 7]]), np.array([NONE]))[0]
    similarity = KNOWN.vectors @ KNOWN.vectors[7]
    similarity[[3, 7]] = -np.inf
    assert set(np.flatnonzero(scores > -np.inf)) == set(np.argsort(-similarity)[:5])


def test_arms_train_apart_and_only_on_their_days() -> None:
    log = a_log(300, 20)
    parts = neural.begin("restricted", KNOWN, neural.settings_of("restricted", SETTINGS, 1), 0)
    one, other = (neural.encoded("restricted", KNOWN, parts, SETTINGS, 0, every=3) for _ in range(2))
    before = other.vectors().copy()
    live = Logged(log.user, log.item, log.satisfaction, log.day + 15, log.n_users)
    one.learn(live, 2)
    np.testing.assert_array_equal(one.vectors(), before)
    one.learn(live, 3)
    assert not np.array_equal(one.vectors(), before)
    np.testing.assert_array_equal(other.vectors(), before)


def test_a_trained_encoder_is_taken_from_its_checkpoint(tmp_path: Path) -> None:
    log, path = a_log(), tmp_path / "c.safetensors"
    first = neural.trained("two_tower", KNOWN, log, SETTINGS, 0, 1, checkpoint=path)
    again = neural.trained("two_tower", KNOWN, log, SETTINGS, 99, 50, checkpoint=path)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_the_user_tower_reads_no_later_item() -> None:
    torch.manual_seed(0)
    tower = neural.TwoTower(KNOWN.vectors, 8, 0.0).eval()
    whole = tower(torch.tensor([[0, 3, 5, 9]]))
    torch.testing.assert_close(whole[:, :3], tower(torch.tensor([[0, 3, 5]])))
    torch.testing.assert_close(whole[:, 2:3], tower(torch.tensor([[3, 5]]))[:, 1:])


def test_the_table_is_read_as_the_service_reads_it(tmp_path: Path) -> None:
    """The same histories through `serving.recommend` and through the arm: the same clusters, as often."""
    planted = Planted()
    bundle = planted.build(tmp_path)
    cluster = np.array([bundle.cluster(p) for p in range(len(planted.ids))])
    known = Known(planted.vectors[planted.order], cluster, (np.zeros(CLUSTERS, np.int64),))
    table = np.roll(planted.rankings(), 1, axis=0)[:, :, :2].copy()
    planted_again = Planted(table=table)
    bundle = planted_again.build(tmp_path / "again")
    plan = Tabled(known, partial(look_up, table, None), np.asarray(bundle.popularity))
    for history in (["c0-0", "c1-0", "c0-1"], ["c2-0"], ["c5-0", "c6-0", "c3-0", "c5-1"]):
        positions = [planted.ids.index(name) for name in history]
        question = asked([positions] * 400, len(planted.ids), known)
        found = plan.choose(question, open_clusters(known, question, True), np.random.default_rng(0))
        arm = np.bincount(found, minlength=CLUSTERS) / 400
        served = np.zeros(CLUSTERS)
        for seed in range(400):
            answer = recommend.recommend(bundle, [Seen(name) for name in history], np.random.default_rng(seed))
            served[NAMES.index(str(answer.cluster))] += 1 / 400
        np.testing.assert_allclose(arm, served, atol=0.1)


def test_three_interests_are_planned_from_as_the_service_does(tmp_path: Path) -> None:
    table = np.roll(Planted().rankings(), 1, axis=0)
    triples = {(5, 6, 3): [1, 2], (5, 3, 0): [4], (6, 3, 0): [2, 1], (5, 6, 0): [4]}
    planted = Planted(table=table, triples=triples)
    bundle = planted.build(tmp_path)
    known = Known(
        planted.vectors[planted.order],
        np.array([bundle.cluster(p) for p in range(len(planted.ids))]),
        (np.zeros(CLUSTERS, np.int64),),
    )
    plan = Tabled(known, bundle.ranking, np.asarray(bundle.popularity), interests=3)
    for history in (["c5-0", "c6-0", "c3-0", "c0-1"], ["c5-0", "c6-0", "c3-0"], ["c1-0", "c2-0"], ["c2-1"]):
        question = asked([[planted.ids.index(name) for name in history]] * 600, len(planted.ids), known)
        found = plan.choose(question, open_clusters(known, question, True), np.random.default_rng(0))
        served = np.zeros(CLUSTERS)
        for seed in range(600):
            answer = recommend.recommend(bundle, [Seen(name) for name in history], np.random.default_rng(seed))
            served[NAMES.index(str(answer.cluster))] += 1 / 600
        np.testing.assert_allclose(np.bincount(found, minlength=CLUSTERS) / 600, served, atol=0.1)


def test_three_interests_stand_in_order_and_the_oldest_fills_up() -> None:
    """Items 0, 1, 2 and 6 are of clusters 0, 1, 2 and 0; nobody has NONE."""
    question = asked([[0, 1, 2], [0, 1, 6], [4], []])
    drawn = draw_interests(KNOWN, question, np.random.default_rng(0), 3)
    assert drawn.tolist() == [[0, 1, 2], [1, 1, 0], [4, 4, 4], [-1, -1, -1]]


def test_the_watching_plan_takes_the_first_open_cluster_of_what_was_watched_last() -> None:
    ranking = np.tile(np.array([1, 2, -1], np.int32), (len(KNOWN.cluster), 1))
    ranking[0] = [4, 1, 2]
    plan = Watching(ranking)
    question = asked([[1, 0], [0, 6], [0], []])
    every = np.ones((4, M), np.bool_)
    rng = np.random.default_rng(0)
    assert plan.choose(question, every, rng).tolist() == [4, 1, 4, -1]
    some = every.copy()
    some[:, [1, 4]] = False
    assert plan.choose(question, some, rng).tolist()[:3] == [2, 2, 2]
    some[:, 2] = False
    assert plan.choose(question, some, rng).tolist()[:3] == [-1] * 3
    assert plan.choose(question, ~every, rng).tolist() == [-1] * 4


def test_interests_are_drawn_by_satisfaction_and_the_recent_one_is_second() -> None:
    question = asked([[0, 1, 2, 6]] * 3000)
    weight = np.tile([0.9, 0.1, 0.0, 0.0], (3000, 1)).astype(np.float32)
    question = Asked(question.user, question.history, weight, question.day, 0, question.seen, question.met)
    one, two = draw_interests(KNOWN, question, np.random.default_rng(0)).T
    # Items 0 and 6 are of cluster 0, the last watched: it comes second whenever it is drawn.
    assert set(zip(one.tolist(), two.tolist(), strict=True)) == {(1, 0)}


def drawn_by(question: Asked, seed: int) -> tuple[int, int]:
    one, two = draw_interests(KNOWN, question, np.random.default_rng(seed))[0].tolist()
    return one, two


def test_old_interests_count_only_where_there_are_no_recent_ones() -> None:
    question = asked([[0, 1, 2]])
    days = np.array([[-50, -2, -1]])
    recent = Asked(question.user, question.history, question.satisfaction, days, 0, question.seen, question.met)
    drawn = {drawn_by(recent, s) for s in range(30)}
    assert drawn == {(1, 2)}
    old = Asked(question.user, question.history, question.satisfaction, days - 90, 0, question.seen, question.met)
    drawn = {drawn_by(old, s) for s in range(60)}
    assert drawn == {(0, 1), (0, 2), (1, 2)}


def test_chance_is_even_over_open_clusters() -> None:
    free = np.tile([True, False, True, True, False, True], (8000, 1))
    share = (
        np.bincount(RandomCluster().choose(asked([[0]] * 8000), free, np.random.default_rng(0)), minlength=M) / 8000
    )
    np.testing.assert_allclose(share, [0.25, 0, 0.25, 0.25, 0, 0.25], atol=0.02)


def test_keywords_find_words_wherever_they_stand() -> None:
    titles = [f"thing {i}" for i in range(N)]
    titles[9], titles[4] = "Jazz piano for beginners", "piano keys"
    words = Keywords(titles, ["jazz, piano", *["nothing"] * (M - 1)])
    plan = Tabled(KNOWN, lambda context: np.zeros((len(context), 1), np.int32), np.arange(M, dtype=np.int32))
    source = Planned(KNOWN, plan, words, inside=False)
    found = source.nominate(asked([[1]]), 4, np.random.default_rng(0))
    # Neither is of cluster 0, which was meant: that is what the restriction is for.
    assert found.tolist() == [[9, 4, NONE, NONE]]
