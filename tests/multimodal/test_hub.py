"""The hub backend: real architectures in small, made on the spot, with their own processors and chat templates."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    ProcessorMixin,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from byway.base import config, models
from byway.multimodal import contexts, hub, prompts
from byway.multimodal.hub import Hub
from byway.multimodal.prompts import Kind
from tests.multimodal import planted
from tests.pretended import gpu

TEXT = {
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "bos_token_id": 1,
}
# The templates of the three families, for a user's turn of pictures and words.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_with(**tokens: str) -> Any:
    """The real tokenizer with an architecture's special tokens, known to it by name."""
    tokenizer = models.load_tokenizer("smollm2-135m")
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens.values())})
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    return tokenizer


def gemma() -> tuple[Any, Any]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

    tokenizer = tokenizer_with(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft>")
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer,
        chat_template=CHATML.replace("IMAGE", "<start_of_image>"),
        image_seq_length=4,
    )
    made = Gemma3Config(
        text_config={**TEXT, "sliding_window": 512, "query_pre_attn_scalar": 8},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    return Gemma3ForConditionalGeneration(made), processor


def smolvlm() -> tuple[Any, Any]:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor

    tokenizer = tokenizer_with(
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    pictures = SmolVLMImageProcessorPil(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    processor = SmolVLMProcessor(
        pictures, tokenizer, None, image_seq_len=4, chat_template=CHATML.replace("IMAGE", "<image>")
    )
    # The template's code asks it how many frames a whole video would have.
    processor.video_processor = SimpleNamespace(num_frames=1, fps=1, video_sampling={})
    made = SmolVLMConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        scale_factor=2,
        image_token_id=tokenizer.image_token_id,
    )
    return SmolVLMForConditionalGeneration(made), processor


def qwen() -> tuple[Any, Any]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    tokenizer = tokenizer_with(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    pictures = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 1024, "longest_edge": 1024}
    )
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen3VLProcessor(pictures, tokenizer, None, chat_template=template)
    made = Qwen3VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        vision_start_token_id=tokenizer.vision_start_token_id,
        vision_end_token_id=tokenizer.vision_end_token_id,
    )
    return Qwen3VLForConditionalGeneration(made), processor


def shown(item: int) -> list[Image.Image]:
    """Two pictures in the colour of the item's cluster."""
    colour = np.random.default_rng(item // 8).integers(0, 255, 3).astype(np.uint8)
    return [Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()) for _ in range(2)]


@pytest.fixture(params=[gemma, smolvlm, qwen], ids=["gemma3", "smolvlm", "qwen3-vl"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    # The processors' half for whole videos needs torchvision, which is not installed; we show them pictures.
    check = ProcessorMixin.check_argument_for_proper_class

    def pictures_only(self: Any, name: str, argument: Any) -> Any:
        return None if name == "video_processor" else check(self, name, argument)

    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", pictures_only)
    torch.manual_seed(0)
    made, processor = request.param()
    with torch.no_grad():
        for weight in made.parameters():
            # Some projectors begin at zero, where no picture would matter.
            if weight.ndim > 1 and not weight.any():
                weight.normal_(0, 0.3)
    settings = config.MultimodalModel()
    asked = contexts.contexts(
        settings,
        planted.pairs(),
        catalog=planted.catalog(),
        tree=planted.tree(),
        descriptions=planted.descriptions(),
        seen=planted.seen(tmp_path),
    )
    ready = hub.prepare(made.eval(), np.random.default_rng(0))
    return hub.wrap(ready, processor, asked, shown)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_are_scored_as_by_reading_each_whole(opened: Hub) -> None:
    kind: Kind = "both"
    none = np.zeros((2, 6), np.bool_)
    best = opened.best(kind, [0, 9], 6, none)
    for row, item in enumerate([0, 9]):
        text = opened._inputs(kind, item)  # pyright: ignore[reportPrivateUsage]
        score = np.zeros(6)
        for c, answer in enumerate(opened.prompt.answers):
            with torch.no_grad():
                found = opened._scores(text, answer[:-1])  # pyright: ignore[reportPrivateUsage]
            for node, option in opened.trie.steps[c]:
                at = opened.trie.nodes[node]
                score[c] += float(found[len(at.path), at.tokens].log_softmax(-1)[option])
        assert best.clusters[row].tolist() == np.argsort(-score, kind="stable").tolist()
        assert best.scores[row] == pytest.approx(np.sort(score)[::-1], abs=2e-3)
        assert np.exp(best.scores[row]).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pictures_matter_and_training_changes_adapters_and_projector_only(opened: Hub) -> None:
    a, b = (opened._inputs("video", item) for item in (0, 9))  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():
        one, other = (opened._scores(inputs, []) for inputs in (a, b))  # pyright: ignore[reportPrivateUsage]
    assert not torch.allclose(one, other, atol=1e-4)
    target = np.full((3, 6), 1 / 6, np.float32)
    spoken, choice = opened.loss("thought", [0, 9, 17], target, [1, 0])
    (spoken + choice).backward()
    moved = {name for name, p in opened.model.named_parameters() if p.grad is not None}
    assert moved
    assert all("lora_" in name or any(part in name for part in hub.PROJECTORS) for name in moved)
    assert any("lora_" in name for name in moved)
    assert any(part in name for name in moved for part in hub.PROJECTORS)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_thinks_and_speaks_within_bounds(opened: Hub) -> None:
    best = opened.best("thought", [0], 2, np.zeros((1, 6), np.bool_), free=True)
    assert best.free is not None
    assert len(best.free) == 1
    assert best.thoughts[0].count("\n") < prompts.ENDS_THOUGHT


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_on_a_gpu_it_says_the_same(opened: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss and its gradient, answers after a thought, and what is saved in between."""
    monkeypatch.setattr(hub, "LONGEST_THOUGHT", 3)
    target, none = np.full((2, 6), 1 / 6, np.float32), np.zeros((1, 6), np.bool_)

    def run() -> list[Any]:
        said, choice = opened.loss("thought", [0, 9], target, [1])
        (said + choice).backward()
        trained = [p for p in opened.model.parameters() if p.grad is not None]
        norms = [float(p.grad.norm()) for p in trained if p.grad is not None]
        opened.model.zero_grad()
        best = opened.best("thought", [0], 2, none, free=True)
        return [said.item(), choice.item(), *norms, *best.clusters.ravel(), *best.scores.ravel(), best.thoughts]

    # In the plain way: how torch attends follows the device.
    opened.model.set_attn_implementation("eager")
    here = run()
    with gpu() as at:
        opened.model.to(at)
        there = run()
        # Of the processor half is missing, which has nothing to do with the device.
        monkeypatch.setattr(type(opened.processor), "save_pretrained", lambda *_: None)
        (tmp_path / "out").mkdir()
        opened.save(tmp_path / "out")
        assert opened.model.device == at
    assert there[-1] == here[-1]
    assert there[:-1] == pytest.approx(here[:-1], rel=1e-2, abs=2e-3)
