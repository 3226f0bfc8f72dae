"""Fine-tuning against plain arithmetic, and over a kill."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.base import config, models
from byway.base.artifact import Work
from byway.interests import tree as trees
from byway.interests.describe import Descriptions
from byway.language import lesson, prompts, training, tune
from byway.language.fast import bulk
from byway.language.fast.generate import Attention, Policy, make_policy
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples, Transitions, spread_out
from byway.transitions.signals import Scorer
from tests.language.conftest import HOSTILE, make_tiny
from tests.language.test_choices import brute_force
from tests.language.test_generate import make, reference

M = len(HOSTILE)


def samples(n: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    context = np.array([rng.choice(M, 2, replace=False) for _ in range(n)], dtype=np.int32)
    return Samples(context, rng.integers(0, M, n).astype(np.int32), np.ones(n, dtype=np.int32))


def batch_of(policy: Policy, some: Samples, weight: np.ndarray, spoken: list[int]) -> tune.Batch:
    """Samples as a batch, with these weights and these spoken."""
    contexts, row = np.unique(some.context, axis=0, return_inverse=True)
    row = row.reshape(-1)
    target = np.zeros((len(contexts), M), dtype=np.float32)
    np.add.at(target, (row, some.label), weight)
    said = tune.Examples(row[spoken], some.label[spoken].astype(np.int64), weight[spoken])
    rows, labels = np.nonzero(target * policy.trie.goes_on())
    return tune.Batch(contexts, target, said, None, tune.Examples(rows, labels, target[rows, labels]))


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_the_loss_is_that_of_each_sample_by_itself(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    policy = make(tiny, tokenizer, attention)
    some = samples(6)
    weight = np.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.1], dtype=np.float32)
    batch = batch_of(policy, some, weight, [0, 3])
    spoken, choice = tune.loss(policy, batch, 1.0, further_weight=3.0)
    tokens = [
        float(-log_p[t, token]) * (3 if t else 1)
        for e in (0, 3)
        for answer in [policy.prompt.answers[some.label[e]]]
        for log_p in [reference(tiny, policy, some.context[e].tolist(), answer)]
        for t, token in enumerate(answer)
    ]
    assert spoken.item() == pytest.approx(np.mean(tokens), abs=2e-3)
    # Among the legal names; and the first token among all there are.
    first = policy.trie.nodes[0].tokens
    chosen = [
        brute_force(tiny, policy, c.tolist())[label]
        + float(reference(tiny, policy, c.tolist(), policy.prompt.answers[label])[0, first].logsumexp(-1))
        for c, label in zip(some.context, some.label, strict=True)
    ]
    assert choice.item() == pytest.approx(-float(weight @ chosen), abs=2e-3)


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_where_all_names_begin_alike_the_choice_is_made_after_what_they_share(
    tiny: PreTrainedModel, tokenizer: Any, attention: Attention
) -> None:
    alike = [f"the {name}" for name in HOSTILE]
    policy = make_policy(tiny, prompts.tokenise(alike, 2, tokenizer, prompts.ENDINGS[attention]), attention)
    assert policy.trie.nodes[0].path
    some, weight = samples(4), np.array([0.3, 0.1, 0.2, 0.4], dtype=np.float32)
    _, choice = tune.loss(policy, batch_of(policy, some, weight, [0]), 1.0)
    found = [
        brute_force(tiny, policy, c.tolist())[label] for c, label in zip(some.context, some.label, strict=True)
    ]
    assert choice.item() == pytest.approx(-float(weight @ found), abs=2e-3)


def transitions_of(some: Samples, whole_log: bool) -> Transitions:
    return Transitions(2, M, whole_log, some, some, some, some)


def test_a_batch_of_curated_samples_is_drawn_by_count() -> None:
    some = samples(400)
    successors = Successors.count(some, M)
    settings, deep = config.LanguageModel(batch=4000), np.zeros(M, dtype=bool)
    batch = tune.draw(
        transitions_of(some, False), Scorer.from_counts(successors), deep, settings, np.random.default_rng(0)
    )
    assert batch.grid is None
    asked = {(*c, label) for c, label in zip(some.context.tolist(), some.label.tolist(), strict=True)}
    row, label = np.nonzero(batch.target)
    assert {(*c, n) for c, n in zip(batch.context[row].tolist(), label.tolist(), strict=True)} == asked
    # But for chance in 4,000 draws.
    often = np.bincount(some.label, some.count, M) / some.count.sum()
    np.testing.assert_allclose(batch.target.sum(axis=0), often, rtol=0.25)


def test_the_whole_log_teaches_what_is_special_about_a_pair_and_never_the_pair_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lesson, "SHARPNESS", 3.0)
    some = samples(400)
    successors = Successors.count(some, M)
    settings = config.LanguageModel(block_clusters=5)
    deep = np.arange(M) < 4
    alike = np.random.default_rng(8).random((M, M))
    evidence = Scorer.from_counts(successors, alike).weighed(similarity=2.0)
    batch = tune.draw(transitions_of(some, True), evidence, deep, settings, np.random.default_rng(0))
    assert len(batch.context) == 25
    assert batch.target.sum() == pytest.approx(1, abs=1e-5)
    assert np.take_along_axis(batch.target, batch.context.astype(np.int64), axis=1).max() == 0
    likened = np.exp(2 * alike[batch.context].mean(axis=1))
    free = (successors.probability(batch.context) * likened / successors.popularity_M) ** 3
    np.put_along_axis(free, batch.context.astype(np.int64), 0, axis=1)
    np.testing.assert_allclose(batch.target, free / free.sum(axis=1, keepdims=True) / 25, rtol=1e-5)
    assert batch.branching.weight.sum() == pytest.approx(batch.target[:, :4].sum(), abs=1e-6)


@dataclass
class Season:
    """A signal of the wider world, which no context changes."""

    name: str = "season"
    tried: tuple[float, ...] = (0.0, 1.0)
    default: float = 0.0

    def scores(self, context_NK: np.ndarray) -> np.ndarray:
        return np.tile(np.arange(float(M)), (len(context_NK), 1))


@pytest.mark.parametrize("K", [2, 3])
def test_what_says_the_same_in_every_context_is_not_taught(K: int) -> None:
    """Popularity by its name, and any other signal of this kind."""
    some = samples(400)
    some = Samples(np.pad(some.context, ((0, 0), (K - 2, 0)), mode="edge"), some.label, some.count)
    alike = np.random.default_rng(8).random((M, M))
    weighed = Scorer.from_counts(Successors.count(some, M), alike, Season()).weighed(
        similarity=2.0, popularity=-0.5, season=1.0
    )
    taught = lesson.contextual(weighed, K, M).all_weights()
    assert taught == {"counts": 1.0, "similarity": 2.0, "popularity": 0.0, "season": 0.0}


def stage(path: Path, settings: config.LanguageModel, processes: int = 1) -> Any:
    """Run the stage on planted transitions: after (a, b) comes the name that follows b."""
    context = np.array([[a, b] for a in range(M) for b in range(M) if a != b], dtype=np.int32)
    label = ((context[:, 1] + 1) % M).astype(np.int32)
    keep = label != context[:, 0]
    planted = Samples(context[keep], label[keep], np.ones(int(keep.sum()), dtype=np.int32))
    transitions = Transitions(2, M, False, planted, planted, planted, planted)
    path.mkdir(exist_ok=True)
    (path / "scratch").mkdir(exist_ok=True)
    work = Work(path, path / "scratch", np.random.default_rng(3))
    names: tuple[list[str], ...] = ([], HOSTILE, [], [])
    tree = trees.from_labels([np.zeros(M, np.int64), *[np.arange(M)] * 3])
    return tune.build(
        work,
        settings,
        transitions,
        Descriptions(names),
        tree.similarity(np.eye(M, dtype=np.float32), 2),
        arithmetic="float32",
        processes=processes,
    )


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Any) -> str:
    """The tiny model as a folder that has a name."""
    make_tiny().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_is_cut_ends_in_the_same_weights(
    tmp_path: Path, folder: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.LanguageModel(
        model=folder,
        steps=7,
        block_clusters=6,
        method=method,  # pyright: ignore[reportArgumentType]
    )
    monkeypatch.setattr(tune, "EVALUATE_EVERY", 3)
    monkeypatch.setattr(tune, "CHECKPOINT_EVERY", 2)
    stage(tmp_path / "whole", settings)
    loss, calls = tune.loss, 0

    def cut(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(tune, "loss", cut)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "cut", settings)
    stage(tmp_path / "cut", settings)
    for name in ("model.safetensors", "curve.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_saved_answers_as_what_was_looked_at(
    tmp_path: Path, folder: str, method: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "EVALUATE_EVERY", 20)
    settings = config.LanguageModel(
        model=folder,
        steps=20,
        learning_rate=2e-2,
        method=method,  # pyright: ignore[reportArgumentType]
    )
    outcome = stage(tmp_path / "run", settings)
    prompt = prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS["block"])
    again = make_policy(models.load(str(tmp_path / "run")), prompt, "block")
    context = np.array([[a, b] for a in range(M) for b in range(M) if a not in (b, (b + 1) % M)], dtype=np.int32)
    hit = bulk.first(again, context, 10) == ((context[:, 1:] + 1) % M)
    seen = outcome.metrics["language.curve"]
    assert seen[-1]["recall_at_1.validation"] != seen[0]["recall_at_1.validation"]
    assert seen[-1]["recall_at_1.validation"] == round(float(hit[:, 0].mean()), 4)
    assert seen[-1]["recall_at_10.validation"] == round(float(hit.any(axis=1).mean()), 4)


@pytest.mark.parametrize("processes", [1, 2])
def test_it_learns_a_planted_rule_and_reads_back(
    tmp_path: Path, folder: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "EVALUATE_EVERY", 50)
    settings = config.LanguageModel(
        model=folder,
        steps={1: 100, 2: 75}[processes],
        block_clusters=8,
        learning_rate=2e-2,
    )
    outcome = stage(tmp_path / "run", settings, processes)
    curve = outcome.metrics["language.curve"]
    assert curve[-1]["recall_at_1.validation"] > 0.9
    assert curve[0]["recall_at_1.validation"] < 0.4
    read = tune.load(tmp_path / "run")
    assert read.attention == "block"
    assert [point["step"] for point in read.curve] == [0, 50, {1: 100, 2: 75}[processes]]
    again = models.load(str(tmp_path / "run"))
    of = {name for name, _ in again.named_parameters()}
    assert of == {name for name, _ in make_tiny().named_parameters()} | {"lm_head.weight"}


def test_the_embedding_table_stays(tmp_path: Path, folder: str) -> None:
    settings = config.LanguageModel(
        model=folder,
        steps=2,
        block_clusters=6,
    )
    stage(tmp_path / "run", settings)
    before, after = models.load(folder), models.load(str(tmp_path / "run"))
    assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    changed = copy.deepcopy(before.state_dict())
    assert any(not torch.equal(changed[k], v) for k, v in after.state_dict().items())


def test_a_look_asks_all_over_the_tree() -> None:
    context = np.array([[a, b] for a in range(30) for b in range(30) if a != b], dtype=np.int32)
    some = spread_out(context, 100)
    assert len(np.unique(some, axis=0)) == 100
    assert set(some[:, 0].tolist()) == set(range(30))
    assert spread_out(context[:7], 100).tolist() == context[:7].tolist()
    assert len(spread_out(context[:0], 100)) == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_frozen_layers_stay_and_the_others_learn(share: float) -> None:
    """The tiny model has two layers."""
    model = make_tiny()
    before = [copy.deepcopy(layer.state_dict()) for layer in model.base_model.layers]
    tune.freeze(model, share)
    optimiser = training.Optimiser(model)
    model(input_ids=torch.arange(9)[None], labels=torch.arange(9)[None]).loss.backward()
    optimiser.step(1e-2)
    for i, (layer, old) in enumerate(zip(model.base_model.layers, before, strict=True)):
        changed = any(not torch.equal(old[name], now) for name, now in layer.state_dict().items())
        assert changed == (i >= round(2 * share))
