"""Offline figures against figures worked by hand."""

import numpy as np
import pytest

from byway.base.ranking import recall_at
from byway.evaluation import baselines, offline
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Scorer


def test_ranks_in_the_table() -> None:
    ranking = np.zeros((3, 3, 2), dtype=np.int32)
    ranking[0, 1] = [2, 4]
    samples = Samples(np.array([[0, 1]] * 3, np.int32), np.array([2, 4, 3], np.int32), np.ones(3, np.int32))
    rank = offline.ranks_in_table(ranking, samples)
    assert rank.tolist()[:2] == [0, 1]
    # The third is in no list, and no k is large enough to reach it.
    assert recall_at(rank, 10, samples.count) == round(2 / 3, 6)


def test_ranks_leave_out_the_context_and_count_ties_against_the_label() -> None:
    score = np.array([[9.0, 8.0, 5.0, 5.0, 1.0]])
    for label, rank in ((2, 1), (3, 1), (4, 2)):
        samples = Samples(np.array([[0, 1]], np.int32), np.array([label], np.int32), np.ones(1, np.int32))
        assert baselines.ranks_of(score, samples).tolist() == [rank]


def test_an_even_spread_has_no_gini_and_full_entropy() -> None:
    even = np.arange(16, dtype=np.int32).reshape(4, 4, 1) % 4
    found = offline.labels(even, "x")
    assert found["x.gini"] == pytest.approx(0)
    assert found["x.entropy"] == pytest.approx(1)
    assert found["x.rare_share"] == 0


def test_pairs_without_an_answer_are_left_out() -> None:
    ranking = np.array([[[1], [-1]], [[0], [-1]]], dtype=np.int32)
    found = offline.labels(ranking, "x")
    assert (found["x.gini"], found["x.histogram"]) == (0, [1, 1])
    assert offline.labels(np.full_like(ranking, -1), "x")["x.histogram"] == [0, 0]


def test_one_answer_for_everybody_has_all_of_it() -> None:
    found = offline.labels(np.zeros((4, 4, 1), dtype=np.int32), "x")
    assert found["x.gini"] == pytest.approx(0.75)
    assert found["x.entropy"] == pytest.approx(0)
    assert found["x.top1pct_share"] == 1
    assert found["x.rare_share"] == 0.75


def test_the_neural_guess_finds_a_planted_rule_in_pairs_it_never_saw() -> None:
    """After (a, b) comes what stands two places after b; half of the pairs are never seen."""
    context = np.array([[a, b] for a in range(40) for b in range(40) if a not in (b, (b + 2) % 40)], dtype=np.int32)
    every = Samples(context, ((context[:, 1] + 2) % 40).astype(np.int32), np.full(len(context), 20, dtype=np.int32))
    train, heldout = (Samples(every.context[i::2], every.label[i::2], every.count[i::2]) for i in range(2))
    successors = Successors.count(train, 40)
    transitions = Transitions(2, 40, True, train, heldout, heldout, train)
    guess = baselines.neural(transitions, successors, 0)
    assert baselines.found(guess(heldout.context), heldout, k=2) > 0.9
    assert baselines.found(baselines.popularity(successors)(heldout.context), heldout, k=2) < 0.2


def test_the_neural_guess_of_a_young_log_learns_from_single_interests() -> None:
    """Nobody had two interests before a third: the prompts say one twice."""
    context = np.array([[0, 0], [1, 1]], dtype=np.int32)
    train = Samples(context, np.array([2, 3], np.int32), np.full(2, 30, np.int32))
    later = Samples(np.array([[0, 1]], np.int32), np.array([3], np.int32), np.ones(1, np.int32))
    guess = baselines.neural(Transitions(2, 4, True, train, later, later, train), Successors.count(train, 4), 0)
    assert guess(context).argmax(axis=1).tolist() == [2, 3]


def planted_similarity(n: int, seed: int) -> tuple[Samples, np.ndarray, np.ndarray]:
    """Transitions drawn by e_cᵀ (A₁ e_c₁ + A₂ e_c₂) + popularity; the vectors and the score of every pair."""
    rng = np.random.default_rng(0)
    e = rng.normal(size=(40, 4)) / 2
    A, usual = rng.normal(size=(2, 4, 4)), rng.normal(size=40)
    score = usual + (e @ A[0] @ e.T)[:, None] + (e @ A[1] @ e.T)[None]
    rng = np.random.default_rng(seed)
    context = rng.random((n, 40)).argsort(axis=1)[:, :2].astype(np.int32)
    drawn = score[context[:, 0], context[:, 1]] + rng.gumbel(size=(n, 40))
    np.put_along_axis(drawn, context.astype(np.int64), -np.inf, axis=1)
    turned = np.linalg.qr(rng.normal(size=(9, 9)))[0][:4]  # as any four of nine dimensions
    return Samples(context, drawn.argmax(axis=1).astype(np.int32), np.ones(n, np.int32)), e @ turned, usual


def test_similarity_that_was_planted_is_learned_beside_an_offset_and_nothing_where_there_is_none() -> None:
    """Popularity, which the vectors do not tell, is the offset."""
    train, vectors, usual = planted_similarity(6000, 1)
    later, _, _ = planted_similarity(2000, 2)
    transitions = Transitions(2, 40, True, train, later, later, train)
    rng = np.random.default_rng(0)

    def nats(guess: baselines.Guess) -> float:
        score = np.array(guess(later.context), np.float64)
        np.put_along_axis(score, later.context.astype(np.int64), -np.inf, axis=1)
        own = score[np.arange(len(later)), later.label]
        return float((own - np.logaddexp.reduce(score, axis=1)).mean())

    def popular(context: np.ndarray) -> np.ndarray:
        return np.tile(usual, (len(context), 1))

    beside, alone = (nats(baselines.bilinear(transitions, vectors, o, rng)) for o in (popular, None))
    others = nats(baselines.bilinear(transitions, vectors[rng.permutation(40)], popular, rng))
    assert beside > nats(popular) + 0.5
    assert alone > nats(lambda context: np.zeros((len(context), 40))) + 0.5
    assert nats(popular) - 0.01 < others < nats(popular) + 0.05, "the vectors of other clusters"


def test_what_is_alike_counts_only_where_it_helps() -> None:
    """Forty clusters in a ring; the pair is (a, a + 1), and the counts say nothing."""
    places = np.arange(40)
    ring = np.cos(2 * np.pi * (places[:, None] - places) / 40)
    rng = np.random.default_rng(0)
    pairs = np.column_stack([places, (places + 1) % 40]).astype(np.int32)
    beside, far = (
        Samples(pairs, ((places + d) % 40).astype(np.int32), np.ones(40, dtype=np.int32)) for d in (2, 20)
    )
    every = np.tile(places, 40).astype(np.int32)
    flat = Successors.count(Samples(np.repeat(pairs, 40, axis=0), every, np.ones(1600, np.int32)), 40)
    assert baselines.found(baselines.nearest(ring)(pairs), beside, k=2) == 1
    assert baselines.found(Scorer.from_counts(flat, ring).fitted_by_ndcg(beside, rng)(pairs), beside, k=2) == 1
    even = Scorer.from_counts(flat, ring).fitted_by_ndcg(far, rng)(pairs)
    np.testing.assert_allclose(even, even[0, 0], rtol=1e-6)


def test_popularity_is_divided_out_where_the_later_log_turns_from_it() -> None:
    """After everything, clusters 0 to 9 came; later it is cluster 20 and above, less popular the higher."""
    rng = np.random.default_rng(0)
    context = np.array([rng.choice(40, 2, replace=False) for _ in range(2000)], dtype=np.int32)
    share = np.exp(-np.arange(40) / 8)
    label = rng.choice(40, 2000, p=share / share.sum()).astype(np.int32)
    before = Successors.count(Samples(context, label, np.ones(2000, np.int32)), 40)
    later = Samples(context, rng.integers(20, 40, 2000).astype(np.int32), np.ones(2000, np.int32))
    assert Scorer.from_counts(before).fitted_by_ndcg(later, rng).weights["popularity"] == -1
    alike = rng.choice(40, 2000, p=share / share.sum()).astype(np.int32)
    as_before = Samples(context[::-1], alike, np.ones(2000, np.int32))
    assert Scorer.from_counts(before).fitted_by_ndcg(as_before, rng).weights["popularity"] == 0
