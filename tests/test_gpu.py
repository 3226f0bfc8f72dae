"""Everything that torch computes, on a GPU that is not there: no tensors of two places meet, and what comes out is
what the processor says, but for rounding. Image-text-to-text models have theirs in `multimodal/test_hub.py`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from byway.base import config, device, models
from byway.base.artifact import Work
from byway.evaluation import baselines
from byway.interests import encoders, write
from byway.items import sequence
from byway.language import prompts, tune
from byway.language.fast import bulk, half, reference
from byway.language.fast.generate import Policy, decode_freely, make_policy
from byway.multimodal import model as multimodal
from byway.simulation import neural
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.signals import Scorer
from byway.workflow import arrays
from tests.items import test_baselines as simulated
from tests.items import test_sequence as logs
from tests.language import test_tune
from tests.language.conftest import HOSTILE, make_tiny
from tests.multimodal import test_embedded
from tests.pretended import gpu

M = len(HOSTILE)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return models.load_tokenizer("smollm2-135m")


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Any) -> str:
    """The tiny model as a folder that has a name."""
    make_tiny().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def same_weights(here: Path, there: Path) -> None:
    """Files of weights within rounding."""
    assert sorted(p.name for p in here.iterdir()) == sorted(p.name for p in there.iterdir())
    for path in here.rglob("*.safetensors"):
        one, other = (load_file(p) for p in (path, there / path.relative_to(here)))
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-3, err_msg=name)


def same(one: Any, other: Any) -> None:
    """Arrays, numbers and what is made of them, within rounding."""
    if isinstance(one, np.ndarray) and one.dtype.names:
        for name in one.dtype.names:
            same(one[name], other[name])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, str):
        assert one == other
    else:
        assert not isinstance(other, torch.Tensor)
        np.testing.assert_allclose(other, one, atol=2e-3)


def as_here(run: Callable[[], Any]) -> None:
    """That the GPU gives what the processor gives."""
    here = run()
    with gpu():
        same(here, run())


@pytest.mark.parametrize(("attention", "method"), [("block", "full"), ("causal", "full"), ("block", "lora")])
def test_fine_tuning(
    tmp_path: Path, folder: str, attention: Any, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, figures, checkpoints, the run that goes on from one, and the artifact."""
    settings = config.LanguageModel(
        model=folder,
        steps=4,
        block_clusters=6,
        batch=4,
        method=method,
        attention=attention,
    )
    monkeypatch.setattr(tune, "EVALUATE_EVERY", 3)
    monkeypatch.setattr(tune, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(tune, "decode_freely", lambda policy, context, _: decode_freely(policy, context, 3))
    test_tune.stage(tmp_path / "here", settings)
    loss, calls = tune.loss, 0

    def cut(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return loss(*arguments)

    with gpu():
        monkeypatch.setattr(tune, "loss", cut)
        with pytest.raises(KeyboardInterrupt):
            test_tune.stage(tmp_path / "there", settings)
        outcome = test_tune.stage(tmp_path / "there", settings)
    assert outcome.counts["steps"] == 4
    for parts in ("here", "there"):
        for path in (tmp_path / parts / "scratch").iterdir():
            path.unlink()
    same_weights(tmp_path / "here", tmp_path / "there")


@pytest.mark.parametrize("attention", ["block", "causal"])
def test_asking(tokenizer: Any, attention: Any) -> None:
    """The table's rows, single contexts, near ties asked again, the fit of the weights, and free answers."""
    rng = np.random.default_rng(0)
    drawn = np.array([rng.choice(M, 3, replace=False) for _ in range(30)], dtype=np.int32)
    some = Samples(drawn[:, :2], drawn[:, 2], np.ones(30, np.int32))
    evidence = Scorer.from_counts(Successors.count(some, M))

    def opened(seed: int) -> Policy:
        made: Any = make_tiny(seed).to(device.chosen())
        return make_policy(made, prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS[attention]), attention)

    def run() -> Any:
        policy, other = opened(0), opened(1)
        rows = bulk.row_answerer(policy, evidence, 0.3, 5, 3, bulk.rechecker(other, 0.5))(range(4, 6))
        few = drawn[:6, :2]
        best = bulk.answer_some(policy, few, evidence, 0.3, 5, 3)
        first = bulk.first(policy, few, 3)
        near = bulk.rounding(policy, other, 6, np.random.default_rng(1))
        _, weight = bulk.fit(policy, replace(some), evidence, np.random.default_rng(1))
        free = decode_freely(policy, few, 3)
        plain: Any = make_tiny().to(device.chosen())
        found = reference.agreement(plain, policy.prompt, policy.trie, attention, few[:2], first[:2, 0])
        return [rows, best, first, near, weight, free, [found.same, found.largest_gap]]

    as_here(run)


def test_float16_needs_no_library_on_a_gpu() -> None:
    """What is done for processors in it is left alone."""
    with gpu() as at:
        assert half.resolved("float16") == "float16"
        model: Any = make_tiny().to(at)
        before = [type(layer) for layer in model.modules()]
        assert [type(layer) for layer in half.put(model).modules()] == before


@pytest.mark.parametrize("settings", [{}, {"top_k": 16, "negatives": 30}])
def test_the_item_policy(tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, which is drawn on the processor; the run is cut, and goes on."""
    monkeypatch.setattr(sequence, "LAYERS", 1)
    monkeypatch.setattr(sequence, "CHECKPOINT_EVERY", 2)
    if "negatives" in settings:
        monkeypatch.setattr(sequence, "NEGATIVES", settings.pop("negatives"))
    own = replace(logs.SMALL, epochs=1, dim=8, **settings)
    events, vectors = logs.circle(150, 40), logs.vectors_of(40)
    work_in: Callable[[Path], Work] = logs.work_in
    sequence.build(work_in(tmp_path / "here"), own, events, vectors)
    loss, calls = sequence.loss, 0

    def cut(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return loss(*arguments, **named)

    with gpu():
        monkeypatch.setattr(sequence, "loss", cut)
        with pytest.raises(KeyboardInterrupt):
            sequence.build(work_in(tmp_path / "there"), own, events, vectors)
        (tmp_path / "there" / "out").rmdir()
        sequence.build(work_in(tmp_path / "there"), own, events, vectors)
    assert calls > 5
    for name in ("items.npy", "content.npy", "heldout.npy"):
        same(*(np.load(tmp_path / place / "out" / name) for place in ("here", "there")))
    asked = {"history": np.array([[0, 3, 5, 9]])}
    served = [
        onnxruntime.InferenceSession(tmp_path / place / "out" / "policy.onnx").run(["vector"], asked)[0]
        for place in ("here", "there")
    ]
    same(*served)


def test_an_item_policy_of_one_s_own() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(20, size=200), rng.integers(12, size=200)

    def run() -> Any:
        made = arrays.train_item_policy(
            user, item, np.arange(200), np.ones(200), logs.vectors_of(12), rng=0, epochs=1, dim=8
        )
        return [made.items, made.encode([1, 2, 3])]

    as_here(run)


@pytest.mark.parametrize("kind", ["novelty", "context", "two_tower"])
def test_trained_sources(kind: str, tmp_path: Path) -> None:
    log = simulated.a_log()

    def run() -> Any:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        for _ in range(2):  # trained, and read back
            parts = neural.trained(kind, simulated.KNOWN, log, simulated.SETTINGS, 0, 1, checkpoint=path)
        made = neural.encoded(kind, simulated.KNOWN, parts, simulated.SETTINGS, 0, every=3)
        made.learn(simulated.a_log(), 3)
        return [made.scores(simulated.asked([[1, 2], [3, 4, 5]]), np.zeros(2, np.int64))]

    as_here(run)


def test_the_small_neural_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "ROUND", 3)
    monkeypatch.setattr(baselines, "PATIENCE", 1)
    some = test_tune.samples(60)
    transitions = test_tune.transitions_of(some, True)
    as_here(lambda: baselines.neural(transitions, Successors.of(transitions), 0)(some.context[:5]))


def test_the_embedded_model_that_sees(tmp_path: Path, folder: str) -> None:
    """Its projector's first lesson, the loss of each kind of prompt and its gradient, answers, what is saved."""
    settings = config.MultimodalModel(model=folder)
    items, none = test_embedded.ITEMS[:2], np.zeros((2, 6), np.bool_)
    target = np.random.default_rng(1).dirichlet(np.ones(6), 2).astype(np.float32)

    def run() -> Any:
        opened = test_embedded.new_embedded(settings, tmp_path)
        found: list[Any] = []
        for kind in test_embedded.KINDS:
            said, choice = opened.loss(kind, items, target, [1])
            (said + choice).backward()
            found += [said.item(), choice.item()]
        trained = [p for p in opened.trained().parameters() if p.requires_grad]
        found += [float(p.grad.norm()) for p in trained if p.grad is not None]
        best = opened.best("video", items, 3, none, free=True)
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        opened.save(out)
        again = multimodal.open_model(out, opened.asked, "float32").best("both", items, 3, none)
        own = opened.best("both", items, 3, none)
        return [*found, best.clusters, best.scores, again.clusters, own.clusters, again.scores, own.scores]

    as_here(run)


def test_thinking(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byway.multimodal.embedded.LONGEST_THOUGHT", 4)
    settings = config.MultimodalModel(model=folder, target="paper")

    def run() -> Any:
        opened = test_embedded.new_embedded(settings, tmp_path)
        best = opened.best("thought", [0, 9], 3, np.zeros((2, 6), np.bool_))
        return [best.clusters, best.scores, best.thoughts]

    as_here(run)


def test_texts() -> None:
    texts = ["jazz night", "ramen and udon", "a much longer title about nothing in particular"]
    as_here(lambda: encoders.sentence_encoder(config.Embeddings(model="minilm"))(texts))


def test_written_descriptions(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "LONGEST", 3)
    as_here(lambda: write._answers(folder, [write._prompt([t], ["k"]) for t in ("jazz night", "ramen")]))


def test_a_planted_mix_is_found(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """Where one line of the planner forgets the device, or a baseline brings nothing back, the test above fails."""
    policy = make_policy(make_tiny(), prompts.tokenise(HOSTILE, 2, tokenizer, prompts.ENDINGS["block"]), "block")
    context = np.array([[0, 1], [2, 3]], np.int32)
    with gpu() as at:
        policy.model.to(at)
        bulk.first(policy, context, 2)
        monkeypatch.setattr(Policy, "take", lambda self, array: torch.from_numpy(array))
        with pytest.raises(RuntimeError, match="same device"):
            bulk.first(policy, context, 2)
