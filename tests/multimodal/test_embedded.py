"""The embedded backend against the plain forward pass, one prompt at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from byway.base import config, models
from byway.language import head
from byway.multimodal import contexts, curate, embedded, model, prompts
from byway.multimodal.embedded import Embedded
from byway.multimodal.prompts import Kind
from tests.language.conftest import make_tiny
from tests.multimodal import planted

ITEMS = [0, 9, 17, 40]
LABELS = [1, 0, 3, 4]
KINDS: list[Kind] = ["text", "video", "both", "thought"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return models.load_tokenizer("smollm2-135m")


def new_embedded(settings: config.MultimodalModel, folder: Path) -> Embedded:
    """The embedded backend on the planted videos."""
    asked = contexts.contexts(
        settings,
        planted.pairs(),
        catalog=planted.catalog(),
        tree=planted.tree(),
        descriptions=planted.descriptions(),
        seen=planted.seen(folder),
    )
    pairs = planted.pairs()
    follows = curate.posterior(pairs, asked.cluster, asked.parent)
    opened = model.new_model(settings, asked, follows, "float32", np.random.default_rng(0))
    assert isinstance(opened, Embedded)
    return opened


@pytest.fixture
def made(tmp_path: Path, tokenizer: Any) -> tuple[PreTrainedModel, Embedded]:
    """The same weights twice: plain, and as the backend."""
    make_tiny().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    settings = config.MultimodalModel(model=str(tmp_path / "tiny"))
    opened = new_embedded(settings, tmp_path)
    return make_tiny(), opened


@torch.no_grad()
def log_p(plain: PreTrainedModel, opened: Embedded, kind: Kind, item: int, tail: list[int]) -> torch.Tensor:
    """[len(tail) + 1, vocabulary] of each token after the prompt, by one plain pass."""
    table: Any = plain.get_input_embeddings()
    embed = table.weight
    before = opened.ids(prompts.before(kind, opened.asked.item(item)))
    after = opened.ids(prompts.after(kind))
    parts = [embed[before]]
    if kind in prompts.SEES:
        pictures = torch.from_numpy(opened.asked.pictures(item))
        parts += opened.projector(pictures, [len(pictures)])
    parts.append(embed[after + tail])
    out = plain(inputs_embeds=torch.cat(parts)[None]).logits[0]
    return out[-len(tail) - 1 :].log_softmax(-1)


def said_before(opened: Embedded, kind: Kind, item: int) -> list[int]:
    """The taught thought and the cue, as tokens."""
    if kind != "thought":
        return []
    return [*opened.ids(prompts.thought(opened.asked.item(item))), *opened.policy.prompt.cue]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_each_sample_by_itself(made: tuple[PreTrainedModel, Embedded], kind: Kind) -> None:
    plain, opened = made
    target = np.random.default_rng(1).dirichlet(np.ones(6), len(ITEMS)).astype(np.float32)
    labels = LABELS[:3]
    spoken, choice = opened.loss(kind, ITEMS, target, labels)
    trie = opened.policy.trie
    assert trie.at_cue
    nats: list[float] = []
    first: list[float] = []
    below: list[float] = []
    for row, item in enumerate(ITEMS):
        before = said_before(opened, kind, item)
        answer = opened.policy.prompt.answers[labels[row]] if row < len(labels) else [0]
        found = log_p(plain, opened, kind, item, before + answer[:-1])
        start = len(before)
        options = zip(trie.nodes[0].tokens, trie.nodes[0].members, strict=True)
        first.append(sum(-float(target[row, members].sum()) * float(found[start, t]) for t, members in options))
        if row == len(labels):
            continue
        nats += [float(-found[start + t, token]) for t, token in enumerate(answer)]
        thought = before[: len(before) - len(opened.policy.prompt.cue)]
        nats += [float(-found[t, token]) for t, token in enumerate(thought)]
        for node, option in trie.steps[labels[row]][1:]:
            own = found[start + len(trie.nodes[node].path), trie.nodes[node].tokens].log_softmax(-1)
            below.append(float(-own[option]))
    assert below
    assert spoken.item() == pytest.approx(np.mean(nats), abs=2e-3)
    assert choice.item() == pytest.approx(np.mean(first) + sum(below) / len(labels), abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_thoughts_are_those_of_greedy_reading(
    made: tuple[PreTrainedModel, Embedded], kind: Kind
) -> None:
    plain, opened = made
    excluded = np.zeros((len(ITEMS), 6), np.bool_)
    excluded[0, 1] = True
    best = opened.best(kind, ITEMS, 6, excluded)
    for row, item in enumerate(ITEMS):
        before: list[int] = []
        if kind == "thought":
            for _ in range(contexts.LONGEST_THOUGHT):
                before.append(int(log_p(plain, opened, kind, item, before)[-1].argmax()))
                text = opened.tokenizer.decode(before)
                if text.count("\n") >= prompts.ENDS_THOUGHT or before[-1] == opened.policy.prompt.end:
                    break
            assert best.thoughts[row] == opened.tokenizer.decode(before).strip()
            before += opened.policy.prompt.cue
        score = np.zeros(6)
        for c, answer in enumerate(opened.policy.prompt.answers):
            found = log_p(plain, opened, kind, item, before + answer[:-1])[len(before) :]
            for node, option in opened.policy.trie.steps[c]:
                at = opened.policy.trie.nodes[node]
                score[c] += float(found[len(at.path), at.tokens].log_softmax(-1)[option])
        score[excluded[row]] = -np.inf
        order = np.argsort(-score, kind="stable")
        legal = 5 if row == 0 else 6
        assert best.clusters[row, :legal].tolist() == order[:legal].tolist()
        assert best.scores[row, :legal] == pytest.approx(score[order[:legal]], abs=2e-3)
        assert np.exp(best.scores[row, :legal]).sum() <= 1 + 1e-4
    assert best.clusters[0, 5] == -1


def test_what_is_saved_answers_the_same(made: tuple[PreTrainedModel, Embedded], tmp_path: Path) -> None:
    _, opened = made
    out = tmp_path / "out"
    out.mkdir()
    opened.save(out)
    again = model.open_model(out, opened.asked, "float32")
    none = np.zeros((4, 6), np.bool_)
    one, other = (model.best("both", ITEMS, 3, none) for model in (opened, again))
    assert one.clusters.tolist() == other.clusters.tolist()
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_adapters_and_projector_are_trained_and_nothing_else(tmp_path: Path, tokenizer: Any) -> None:
    make_tiny().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    settings = config.MultimodalModel(model=str(tmp_path / "tiny"))
    opened = new_embedded(settings, tmp_path)
    trained = {name for name, p in opened.trained().named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("1.") for name in trained)
    assert any("lora_" in name for name in trained)
    assert {name for name in trained if name.startswith("1.")} == {
        f"1.{name}" for name, _ in opened.projector.named_parameters()
    }


def test_of_a_fine_tuned_language_model_neither_table_nor_output_layer_is_trained(
    tmp_path: Path, tokenizer: Any
) -> None:
    begun = make_tiny()
    head.learn(begun, [[11, 7, 2], [40, 7, 2]])
    head.settle(begun)
    begun.save_pretrained(tmp_path / "begun")
    tokenizer.save_pretrained(tmp_path / "begun")
    settings = config.MultimodalModel(model=str(tmp_path / "begun"))
    opened = new_embedded(settings, tmp_path)
    trained = [name for name, p in opened.policy.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and "embed_tokens" not in name and "lm_head" not in name for name in trained)


def test_words_of_others_stay_in_their_place() -> None:
    item = prompts.Item("new\nline\n\nA surprise to follow: x", ("a\nb",), "ramen", "food")
    assert prompts.before("both", item).count("\n") == 3
    assert prompts.thought(item).count("\n") == prompts.ENDS_THOUGHT
    assert embedded.prompts.before("video", item) == prompts.OPENING + prompts.SHOWN
