"""Asking in bulk: rows are what their pairs say one by one, and the weights of model and evidence are found."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from byway.base.ranking import best_first
from byway.language import prompts
from byway.language.fast import bulk
from byway.language.fast.choices import TrieSearch
from byway.language.fast.generate import Attention, Policy, make_policy, prefill
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.signals import Scorer
from tests.language.conftest import HOSTILE, make_tiny, resolved

M = len(HOSTILE)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_a_row_of_the_table_is_what_its_pairs_say_one_by_one(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make_policy(tiny, prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention]), attention)
    ready = bulk.row_prefiller(policy)
    for rows in [range(2), range(4, 8)]:
        context = np.array([[a, b] for a in rows for b in range(M)], dtype=np.int32)
        with torch.no_grad():
            in_bulk = np.concatenate([resolved(TrieSearch(policy, asked)) for asked in ready(rows)])
            by_pair = resolved(TrieSearch(policy, prefill(policy, context)))
        np.testing.assert_allclose(in_bulk, by_pair, atol=1e-4)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_counts_alone_and_the_model_alone_are_both_there(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make_policy(tiny, prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention]), attention)
    rng = np.random.default_rng(0)
    drawn = np.array([rng.choice(M, 3, replace=False) for _ in range(300)], dtype=np.int32)
    successors = Successors.count(Samples(drawn[:, :2], drawn[:, 2], np.ones(300, np.int32)), M)
    counted = bulk.row_answerer(policy, Scorer.from_counts(successors), 0.0, 5, 2)(range(4, 8))
    both = bulk.row_answerer(policy, Scorer.from_counts(successors), 1e-3, 5, 5)(range(4, 8))
    context = np.array([[a, b] for a in range(4, 8) for b in range(M)], dtype=np.int32)
    score = successors.probability(context)
    np.put_along_axis(score, context.astype(np.int64), 0, axis=1)
    best = np.sort(score, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(counted["score"].reshape(-1, 5), np.log(best), rtol=1e-4)
    assert counted["model"].shape == (4, M, 2)
    np.testing.assert_array_equal(counted["model"], both["model"][..., :2])


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_the_first_answer_of_a_near_tie_is_the_other_models(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention])
    policy, other = make_policy(tiny, prompt, attention), make_policy(make_tiny(1), prompt, attention)
    rng = np.random.default_rng(0)
    drawn = np.array([rng.choice(M, 3, replace=False) for _ in range(300)], dtype=np.int32)
    evidence = Scorer.from_counts(Successors.count(Samples(drawn[:, :2], drawn[:, 2], np.ones(300, np.int32)), M))

    def rows(of: Policy, recheck: bulk.Recheck | None) -> NDArray[Any]:
        return bulk.row_answerer(of, evidence, 0.5, 5, 4, recheck)(range(4)).reshape(-1)

    own = rows(policy, None)
    all_again = rows(policy, bulk.rechecker(other, np.inf))
    # The other model chooses among those that the first one has listed.
    context = np.array([[a, b] for a in range(4) for b in range(M)])
    with torch.no_grad():
        scores = resolved(TrieSearch(other, prefill(other, context)))
    chosen = np.where(own["model"] < 0, -np.inf, np.take_along_axis(scores, own["model"], 1)).argmax(axis=1)
    np.testing.assert_array_equal(all_again["model"][:, 0], own["model"][np.arange(len(own)), chosen])
    assert (all_again["model"][:, 0] != own["model"][:, 0]).any()
    for mixed, before in zip(all_again["model"], own["model"], strict=True):
        assert mixed[1:].tolist() == [c for c in before.tolist() if c != mixed[0]][:3]
    np.testing.assert_array_equal(rows(policy, bulk.rechecker(other, -1.0)), own)
    np.testing.assert_array_equal(all_again["cluster"], own["cluster"])


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_how_near_a_tie_is_follows_from_how_differences_change(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    """Against scores of all names, read to their end."""
    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention])
    policy, other = make_policy(tiny, prompt, attention), make_policy(make_tiny(1), prompt, attention)
    with torch.no_grad():
        nudged = make_policy(moved := make_tiny(), prompt, attention)
        for weight in moved.parameters():
            weight.mul_(1.02)
    rng = np.random.default_rng(3)
    pairs = np.array([rng.choice(M, 2, replace=False) for _ in range(20)])
    for finer in (nudged, other):
        with torch.no_grad():
            both = [resolved(TrieSearch(of, prefill(of, pairs))) for of in (policy, finer)]
        for scores in both:
            np.put_along_axis(scores, pairs, -np.inf, axis=1)
        two, ten = best_first(both[0], 2), best_first(both[1], 10)
        gap, change = np.empty(20), np.empty(20)
        for i, (a, b, c, t) in enumerate(zip(*both, two, ten, strict=True)):
            gap[i] = a[c[0]] - a[c[1]]
            change[i] = abs(gap[i] - (max(b[c[0]], b[t[-1]]) - max(b[c[1]], b[t[-1]])))
        found = bulk.rounding(policy, finer, 20, np.random.default_rng(3))
        assert found > 0
        np.testing.assert_allclose(found, bulk.nearness(gap, change), rtol=1e-3)
    assert bulk.rounding(policy, policy, 20, rng) == 0
    assert bulk.rounding(policy, other, 0, rng) == 0


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_similarity_weighs_where_the_later_log_follows_it(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    """Each cluster has one that is alike; only the validation part goes there, so that counts cannot know it."""
    rng, clusters = np.random.default_rng(5), 40
    context = np.array([rng.choice(clusters, 2, replace=False) for _ in range(300)], dtype=np.int32)
    once = np.ones(300, np.int32)
    before = Samples(context, rng.integers(0, clusters, 300).astype(np.int32), once)
    after = Samples(context, (context[:, 1] ^ 1).astype(np.int32), once)
    names = [f"name {chr(97 + i // 6)}{chr(97 + i % 6)}" for i in range(clusters)]
    policy = make_policy(tiny, prompts.tokenise(names, 2, tokenizer, prompts.ENDINGS[attention]), attention)
    planted = Scorer.from_counts(Successors.count(before, clusters), np.eye(clusters)[np.arange(clusters) ^ 1])
    assert bulk.fit(policy, after, planted, rng)[0].weights["similarity"] > 0
    scorer, weight = bulk.fit(policy, Samples(context[:0], once[:0], once[:0]), planted, rng)
    unweighed = scorer.all_weights(), weight
    assert unweighed == ({"counts": 1, "similarity": 0, "popularity": 0}, 0)
    nothing = Scorer.from_counts(Successors.count(before, clusters), np.zeros((clusters, clusters)))
    assert bulk.fit(policy, after, nothing, rng)[0].weights["similarity"] == 0
    gained = planted.weighed(similarity=2.0)(context[:1]) - planted(context[:1])
    paired = np.eye(clusters)[np.arange(clusters) ^ 1]
    np.testing.assert_allclose(gained[0], 2 * paired[context[0]].mean(axis=0), atol=1e-5)
