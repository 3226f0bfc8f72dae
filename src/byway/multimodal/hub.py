"""The hub backend: any image-text-to-text model that transformers loads by name, with its own processor.

The pictures themselves are shown, as the model's chat template lays them out; prompts and answers are those of the
embedded backend. Nothing is assumed of the architecture but its forward pass: names are scored by reading them
after the prompt, so that an answer costs a few passes over the whole prompt and no cache is shared. Adapters go on
the language model, the projector is trained in full, the picture tower stays.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, StoppingCriteria

from byway.base import config, device, known_models, precision
from byway.base.errors import UserError
from byway.data.decoding import Decoder
from byway.language import adapters
from byway.language import trie as tries
from byway.language.prompts import Prompt
from byway.language.trie import Trie
from byway.multimodal import prompts
from byway.multimodal.contexts import LONGEST_THOUGHT, Best, Contexts
from byway.multimodal.prompts import Kind

PROJECTORS = ("connector", "projector", "merger")
"""What the weights between picture tower and language model are called in the architectures known so far."""
Pictures = Callable[[int], list[Image.Image]]


@dataclass(slots=True)
class Hub:
    """An image-text-to-text model that is shown pictures."""

    model: Any
    processor: Any
    asked: Contexts
    prompt: Prompt
    trie: Trie
    pictures: Pictures

    def trained(self) -> nn.Module:
        return self.model

    def loss(
        self, kind: Kind, items: list[int], target_NM: NDArray[np.float32], labels: list[int]
    ) -> tuple[Tensor, Tensor]:
        nats: list[Tensor] = []
        at = self.model.device
        first, below = torch.zeros((), device=at), torch.zeros((), device=at)
        target = torch.from_numpy(tries.first_choice(self.trie, target_NM)).to(at)
        for row, item in enumerate(items):
            speaks = row < len(labels)
            thought = ""
            if kind == "thought":
                thought = prompts.thought(self.asked.item(item))
            thinks = self._ids(thought) if thought else []
            tail = [*thinks, *(self.prompt.cue if thinks else [])]
            answer = self.prompt.answers[labels[row]] if speaks else []
            scores = self._scores(self._inputs(kind, item), tail + answer[:-1])
            said = scores[len(tail) :]
            if self.trie.at_cue:
                first = first - target[row] @ said[0].log_softmax(-1)[self.trie.nodes[0].tokens]
            if not speaks:
                continue
            nats.append(nn.functional.cross_entropy(said, torch.tensor(answer, device=at), reduction="none"))
            if thinks:
                said_before = scores[: len(thinks)]
                thought_ids = torch.tensor(thinks, device=at)
                nats.append(nn.functional.cross_entropy(said_before, thought_ids, reduction="none"))
            for node, option in self.trie.steps[labels[row]][self.trie.at_cue :]:
                own = said[len(self.trie.nodes[node].path), self.trie.nodes[node].tokens]
                below = below - own.log_softmax(-1)[option]
        return torch.cat(nats).mean(), first / len(items) + below / len(labels)

    @torch.no_grad()
    def best(
        self, kind: Kind, items: list[int], n: int, excluded_NM: NDArray[np.bool_], free: bool = False
    ) -> Best:
        clusters, scores, thoughts, said = [], [], [], []
        for item, excluded in zip(items, excluded_NM, strict=True):
            inputs = self._inputs(kind, item)
            thought: list[int] = []
            if kind == "thought":
                thought = self._generate(inputs, LONGEST_THOUGHT, prompts.ENDS_THOUGHT)
            before = [*thought, *self.prompt.cue] if kind == "thought" else []
            found, score = self._top(inputs, before, n, excluded)
            clusters.append(found)
            scores.append(score)
            thoughts.append(self.processor.tokenizer.decode(thought).strip())
            if free:
                said.append(self._speak(_longer(inputs, before)))
        return Best(np.stack(clusters), np.stack(scores), thoughts, said if free else None)

    def _speak(self, inputs: dict[str, Tensor]) -> str:
        answer = self._generate(inputs, max(map(len, self.prompt.answers)) + 2, None)
        finished = answer and answer[-1] == self.prompt.end
        return self.processor.tokenizer.decode(answer[:-1]).strip() if finished else ""

    def save(self, out: Path) -> None:
        at = self.model.device
        self.model.cpu()  # what is merged there has the same bytes whatever trained it
        self.model.save_pretrained(out / "model", state_dict=adapters.merged(self.model))
        self.processor.save_pretrained(out / "model")
        (out / "backend.json").write_text(json.dumps({"backend": "hub"}) + "\n", "utf-8")
        self.model.to(at)

    def _ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False).input_ids

    def _inputs(self, kind: Kind, item: int) -> dict[str, Tensor]:
        """The processor's tensors for one prompt: pictures, then words, then what the answer begins with."""
        shown = self.pictures(item) if kind in prompts.SEES else []
        text = prompts.OPENING + prompts.words(kind, self.asked.item(item))
        tail = prompts.after(kind).lstrip("\n")
        return _ask(self.model, self.processor, shown, text, tail)

    def _scores(self, inputs: dict[str, Tensor], tail: list[int]) -> Tensor:
        """[len(tail) + 1, vocabulary] scores of the token after the prompt and after each token of `tail`."""
        found = self.model(**_longer(inputs, tail), use_cache=False, logits_to_keep=len(tail) + 1)
        return found.logits[0, -len(tail) - 1 :].float()

    def _top(
        self, inputs: dict[str, Tensor], before: list[int], n: int, excluded: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The n best names: those that share a beginning are told apart only where it matters, as in `generate`."""
        M = len(self.prompt.answers)
        log_p, waits = np.zeros(M, np.float32), np.zeros(M, np.int32)
        todo = {0}
        while True:
            for number in sorted(todo):
                node = self.trie.nodes[number]
                scores = self._scores(inputs, [*before, *node.path])[-1, node.tokens]
                for share, leads_to, members in zip(
                    scores.log_softmax(-1).tolist(), node.leads_to, node.members, strict=True
                ):
                    log_p[members] += share
                    waits[members] = max(leads_to, -1)
            score = np.where(excluded, -np.inf, log_p)
            best = np.argsort(-score, kind="stable")[:n]
            todo = {int(waits[c]) for c in best if np.isfinite(score[c]) and waits[c] >= 0}
            if not todo:
                return np.where(np.isfinite(score[best]), best, -1).astype(np.int32), score[best].astype(np.float32)

    def _generate(self, inputs: dict[str, Tensor], longest: int, breaks: int | None) -> list[int]:
        """Greedy tokens after the prompt, up to the end token, so many line breaks, or `longest`."""
        stops = [] if breaks is None else [_Breaks(self.processor.tokenizer, inputs["input_ids"].shape[1], breaks)]
        end = self.prompt.end
        out = self.model.generate(
            **inputs,
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
            stopping_criteria=stops,
        )
        return out[0, inputs["input_ids"].shape[1] :].tolist()


class _Breaks(StoppingCriteria):
    """Stops after so many line breaks."""

    def __init__(self, tokenizer: Any, start: int, breaks: int):
        self.tokenizer, self.start, self.breaks = tokenizer, start, breaks

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        done = self.tokenizer.decode(input_ids[0, self.start :]).count("\n") >= self.breaks
        return torch.tensor([done] * len(input_ids), device=input_ids.device)


def _ask(model: Any, processor: Any, shown: list[Image.Image], text: str, tail: str) -> dict[str, Tensor]:
    """A user's turn of pictures and words by the model's own template, and the beginning of its answer, where the
    model is."""
    content = [*({"type": "image"} for _ in shown), {"type": "text", "text": text}]
    said = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    made = processor(text=[said + tail], images=[shown] if shown else None, return_tensors="pt")
    return {name: tensor.to(model.device) for name, tensor in made.items()}


def _longer(inputs: dict[str, Tensor], tail: list[int]) -> dict[str, Tensor]:
    """The same prompt with tokens after it: whatever has a column a token grows along."""
    if not tail:
        return inputs
    length = inputs["input_ids"].shape[1]
    out = dict[str, Tensor]()
    for name, value in inputs.items():
        if value.ndim == 2 and value.shape[1] == length and not value.is_floating_point():
            more = tail if name == "input_ids" else [int(name == "attention_mask")] * len(tail)
            value = torch.cat([value, torch.tensor([more], dtype=value.dtype, device=value.device)], dim=1)
        out[name] = value
    return out


def shower(asked: Contexts) -> Pictures:
    """How to get an item's pictures themselves: its files are opened anew, since 01-media keeps vectors only."""
    files, frames = asked.seen.files(), asked.seen.frames
    decoder = Decoder()

    def pictures(item: int) -> list[Image.Image]:
        row = int(asked.row[item])
        chosen = asked.picks[row][asked.there[row]]
        media, thumbnail = (Path(name) if name else None for name in files[item])
        shown: list[Image.Image] = []
        for path, wanted, places in (
            (media, frames, chosen[chosen < frames]),
            (thumbnail, 0, chosen[chosen == frames]),
        ):
            if path is None or not len(places):
                continue
            decoded = decoder.decode(path, wanted)
            if decoded.reason:
                raise UserError(f"{path} could be opened before and is now refused ({decoded.reason}); run again.")
            whole = decoded.frames()
            shown += [Image.fromarray(whole[int(p) if wanted else 0]) for p in places]
        return shown

    return pictures


def wrap(model: Any, processor: Any, asked: Contexts, pictures: Pictures) -> Hub:
    """Join a model, its processor and the legal names."""
    prompt = prompts.tokenise(asked.names, processor.tokenizer)
    return Hub(model, processor, asked, prompt, tries.build(prompt.answers), pictures)


def prepare(model: Any, rng: np.random.Generator) -> Any:
    """Freeze the picture tower, put adapters on the language model, free the projector."""
    model.requires_grad_(False)
    adapters.adapt(model.get_decoder(), rng)
    model.get_input_embeddings().weight.requires_grad_(False)
    for name, weight in model.named_parameters():
        if any(part in name for part in PROJECTORS):
            weight.requires_grad_(True)
    return model


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    folder, revision = known_models.split(name)
    pinned = revision or "main"
    try:
        processor = AutoProcessor.from_pretrained(folder, revision=pinned, trust_remote_code=False)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, revision=pinned, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except ImportError as error:
        wanted = str(error).strip().splitlines()[0]
        raise UserError(f"The processor of {name} needs another package ({wanted}).") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name!r} cannot be loaded ({str(error).splitlines()[0]}).") from error
    return model.eval().to(device.chosen()), processor


def new(settings: config.MultimodalModel, asked: Contexts, dtype: torch.dtype, rng: np.random.Generator) -> Hub:
    """The model called `settings.model`, ready to be trained."""
    model, processor = _load(settings.model, dtype)
    return wrap(prepare(model, rng), processor, asked, shower(asked))


def open_saved(path: Path, asked: Contexts, dtype: torch.dtype) -> Hub:
    """What `save` wrote."""
    model, processor = _load(str(path / "model"), dtype)
    return wrap(model, processor, asked, shower(asked))


def open_captioner(name: str) -> Callable[[Image.Image], str]:
    """A larger model that says what it sees in a picture."""
    model, processor = _load(name, precision.dtype("auto"))

    @torch.no_grad()
    def say(picture: Image.Image) -> str:
        inputs = _ask(model, processor, [picture], prompts.ASKED_OF_A_PICTURE, "")
        out = model.generate(**inputs, max_new_tokens=prompts.CAPTION_TOKENS, do_sample=False)
        said = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return prompts.one_line(said)

    return say
