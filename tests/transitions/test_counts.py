"""Counting: back-off from what is seen together to what is seen alone, with weights that the data choose."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from byway.base.errors import UserError
from byway.base.ranking import ndcg_at
from byway.transitions import signals
from byway.transitions.counts import WEIGHTS, Successors, ranks_of
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Scorer

M = 12


def test_counts_back_off_from_the_pair_to_each_interest_to_popularity() -> None:
    context = np.array([[0, 1]] * 2 + [[2, 1]], dtype=np.int32)
    some = Samples(context, np.array([3, 4, 4], np.int32), np.array([900, 100, 10], np.int32))
    successors = Successors.count(some, 6)
    seen, half, new = successors.probability(np.array([[0, 1], [2, 0], [5, 5]], dtype=np.int32))
    np.testing.assert_allclose([seen.sum(), half.sum(), new.sum()], 1)
    assert seen[3] == pytest.approx(0.9, abs=0.05)
    assert half[4] > new[4]
    np.testing.assert_allclose(new, successors.popularity_M)
    assert successors.seen(np.array([[0, 1], [1, 0]], dtype=np.int32)).tolist() == [True, False]


def test_noise_is_shrunk_to_popularity_and_a_rule_is_not() -> None:
    rng = np.random.default_rng(0)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(2000)], dtype=np.int32)
    noise = np.where(rng.random(2000) < 0.5, 0, rng.integers(0, M, 2000)).astype(np.int32)
    rule = ((context[:, 1] + 1) % M).astype(np.int32)
    weights: list[float] = []
    for label in (noise, rule):
        parts = [Samples(context[i::2], label[i::2], np.ones(1000, dtype=np.int32)) for i in range(2)]
        successors = Successors.of(Transitions(2, M, True, parts[0], parts[1], parts[1], parts[0]))
        weights.append(successors.alone_weight)
    assert weights[0] >= 1000
    assert weights[1] <= 20


def test_the_weights_are_those_under_which_the_validation_part_is_likeliest() -> None:
    rng = np.random.default_rng(1)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(900)], dtype=np.int32)
    label = np.where(rng.random(900) < 0.3, (context[:, 1] + 1) % M, rng.integers(0, M, 900)).astype(np.int32)
    parts = [Samples(context[i::2], label[i::2], rng.integers(1, 4, 450).astype(np.int32)) for i in range(2)]
    found = Successors.of(Transitions(2, M, True, parts[0], parts[1], parts[1], parts[0]))

    def likelihood(alone: float, together: float) -> float:
        tried = replace(found, alone_weight=alone, together_weight=together)
        return float(parts[1].count @ np.log(tried.probability(parts[1].context)[np.arange(450), parts[1].label]))

    likeliest = max(product(WEIGHTS, WEIGHTS), key=lambda pair: likelihood(*pair))
    assert (found.alone_weight, found.together_weight) == likeliest
    assert likelihood(*likeliest) > likelihood(WEIGHTS[0], WEIGHTS[-1])


def test_weights_are_those_that_rank_the_labels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tried by the scorer itself, in one piece; the fit goes through parts of seven."""
    rng = np.random.default_rng(2)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(400)], dtype=np.int32)
    alike = rng.random((M, M))
    pulled = np.exp(3 * alike[context].mean(axis=1))
    pulled[np.arange(400)[:, None], context] = 0
    label = np.array([rng.choice(M, p=p / p.sum()) for p in pulled], dtype=np.int32)
    parts = [Samples(context[i::2], label[i::2], rng.integers(1, 4, 200).astype(np.int32)) for i in range(2)]
    scorer = Scorer.from_counts(Successors.count(parts[0], M), alike)

    def gain(weights: dict[str, float]) -> float:
        ranks = ranks_of(scorer.weighed(**weights)(parts[1].context), parts[1])
        return ndcg_at(ranks, M, parts[1].count)

    monkeypatch.setattr(signals, "PART", 7)
    _, similar, popular = scorer.signals
    found = scorer.fitted_by_ndcg(parts[1], rng).all_weights()
    every = [{"similarity": s, "popularity": p} for s, p in product(similar.tried, popular.tried)]
    assert gain(found) == pytest.approx(max(map(gain, every)), abs=1e-6)
    assert found["similarity"] > 0
    nothing = Samples(context[:0], label[:0], label[:0])
    assert scorer.fitted_by_ndcg(nothing, rng).all_weights() == {"counts": 1, "similarity": 0, "popularity": 0}


def test_a_score_is_the_sum_of_its_parts() -> None:
    rng = np.random.default_rng(3)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(50)], dtype=np.int32)
    some = Samples(context, rng.integers(0, M, 50).astype(np.int32), np.ones(50, np.int32))
    scorer = Scorer.from_counts(Successors.count(some, M), rng.random((M, M))).weighed(
        similarity=2.0, popularity=-0.5
    )
    parts = scorer.parts(context)
    assert list(parts) == ["counts", "similarity", "popularity"]
    np.testing.assert_allclose(sum(parts.values()), scorer(context), rtol=1e-6)
    # One alone is a score of every cluster in every context too, also what is the same in all of them.
    alone = scorer.weighed(counts=0.0, similarity=0.0)(context)
    np.testing.assert_allclose(alone, parts["popularity"], rtol=1e-6)
    assert alone.shape == (50, M)
    left = scorer.weighed(similarity=0.0)(context)
    np.testing.assert_allclose(left, parts["counts"] + parts["popularity"], rtol=1e-6)


def test_a_signal_of_ones_own_is_weighed_with_the_others() -> None:
    """It knows the answer, and the counts know nothing."""
    rng = np.random.default_rng(4)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(300)], dtype=np.int32)
    label = ((context[:, 1] + 1) % M).astype(np.int32)
    flat = Successors.count(Samples(context, rng.permutation(label), np.ones(300, np.int32)), M)

    class Oracle:
        name, tried, default = "oracle", (0.0, 1.0, 5.0), 0.0

        def scores(self, context_NK: np.ndarray) -> np.ndarray:
            return np.eye(M)[(context_NK[:, 1] + 1) % M]

    scorer = Scorer.from_counts(flat)
    scorer = replace(scorer, signals=(*scorer.signals, Oracle()))
    fitted = scorer.fitted_by_ndcg(Samples(context, label, np.ones(300, np.int32)), rng)
    assert fitted.all_weights()["oracle"] == 5
    keep = label != context[:, 0]
    assert (fitted(context).argmax(axis=1) == label)[keep].mean() > 0.9


def test_a_signal_that_is_missing_where_it_had_a_weight_is_an_error_and_not_another_ranking() -> None:
    rng = np.random.default_rng(3)
    some = Samples(
        rng.integers(0, 6, (9, 2)).astype(np.int32), np.arange(9, dtype=np.int32) % 6, np.ones(9, np.int32)
    )
    scorer = Scorer.from_counts(Successors.count(some, 6))
    assert scorer.weighed(counts=2.0, language_model=1.0, recency=0.0).weights == {"counts": 2.0}
    with pytest.raises(UserError, match="weighed with recency, which nobody computes here"):
        scorer.weighed(counts=2.0, recency=1.0)
