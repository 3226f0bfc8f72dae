"""The embedded backend: vectors of pictures, a projector, soft tokens in a causal language model's prompt.

The picture encoder is that of 01-media and stays as it is; the projector is trained in full, the language model by
adapters. Prompts are read as one grid and answered by the same machinery as those of `language`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from byway.base import config, models
from byway.base.progress import say
from byway.language import adapters
from byway.language.fast.choices import by_model
from byway.language.fast.generate import Policy, Prefilled, extend, logits, make_policy
from byway.language.fast.passes import KVCache, Prefix, forward_one
from byway.language.tune import Examples, first_nats, later_nats
from byway.multimodal import prompts
from byway.multimodal.contexts import LONGEST_THOUGHT, Best, Contexts, Follows
from byway.multimodal.projector import Projector, teach
from byway.multimodal.prompts import Kind

LESSONS = 30
"""Passes over the items in the projector's first lesson: seconds, and the best pass is kept."""


@dataclass(slots=True)
class Embedded:
    """A language model that is shown pictures as soft tokens."""

    policy: Policy
    projector: Projector
    tokenizer: Any
    asked: Contexts
    newlines: dict[int, int]
    """Line breaks in each token that was met so far."""

    def trained(self) -> nn.Module:
        return nn.ModuleList([self.policy.model, self.projector])

    def loss(
        self, kind: Kind, items: list[int], target_NM: NDArray[np.float32], labels: list[int]
    ) -> tuple[Tensor, Tensor]:
        prompt, n = self.policy.prompt, len(labels)
        thoughts = [self.ids(prompts.thought(self.asked.item(i))) for i in items]
        thinks = kind == "thought"
        tails = [[*t, *prompt.cue] if thinks else [] for t in thoughts]
        hidden, prefilled = self._read(kind, items, tails)
        answers = [prompt.answers[c] for c in labels]
        ids, valid = self.policy.pad([answer[:-1] for answer in answers])
        hidden_later, _ = extend(self.policy, prefilled, torch.arange(n, device=self.policy.device), ids, valid)
        said = torch.cat([prefilled.hidden_NH[:n, None], hidden_later], dim=1)
        wanted, there = self.policy.pad(answers)
        predicted, targets = [said[:, : wanted.shape[1]][there]], [wanted[there]]
        if thinks:
            ends = prefilled.position_N.tolist()
            for row, (thought, end) in enumerate(zip(thoughts[:n], ends[:n], strict=True)):
                start = end - len(prompt.cue) - len(thought)
                predicted.append(hidden[row, start - 1 : start - 1 + len(thought)])
                targets.append(torch.tensor(thought, device=self.policy.device))
        nats = nn.functional.cross_entropy(logits(self.policy, torch.cat(predicted)), torch.cat(targets))
        alike = Examples(np.arange(n), np.asarray(labels), np.full(n, 1 / n, np.float32))
        later = later_nats(self.policy, alike, said)
        if not self.policy.trie.at_cue:
            return nats, later
        return nats, later + first_nats(self.policy, prefilled.hidden_NH, target_NM).mean()

    @torch.no_grad()
    def best(
        self, kind: Kind, items: list[int], n: int, excluded_NM: NDArray[np.bool_], free: bool = False
    ) -> Best:
        prefilled, thoughts = self._prefill(kind, items)
        clusters, scores = by_model(self.policy, prefilled, n, excluded_NM)
        return Best(clusters, scores, thoughts, self._speak(prefilled) if free else None)

    def _speak(self, prefilled: Prefilled) -> list[str]:
        longest = max(map(len, self.policy.prompt.answers)) + 2
        answers, _ = self._decode(prefilled, longest, ends=lambda ids: ids[-1] == self.policy.prompt.end)
        end = self.policy.prompt.end
        # Only a finished answer is an answer; one that runs on is nobody's name.
        return [self.tokenizer.decode(a[:-1]).strip() if a and a[-1] == end else "" for a in answers]

    def save(self, out: Path) -> None:
        at = self.policy.device
        self.trained().cpu()  # what is merged there has the same bytes whatever trained it
        self.policy.model.save_pretrained(out / "language", state_dict=adapters.merged(self.policy.model))
        self.tokenizer.save_pretrained(out / "language")
        save_file(self.projector.state_dict(), out / "projector.safetensors")
        (out / "backend.json").write_text(json.dumps({"backend": "embedded"}) + "\n", "utf-8")
        self.trained().to(at)

    def ids(self, text: str) -> list[int]:
        """Tokens of a piece of a prompt."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _read(self, kind: Kind, items: list[int], tails: list[list[int]]) -> tuple[Tensor, Prefilled]:
        """Read one prompt an item, and what follows it: hidden states [N, T, H], and where the answer goes on."""
        at, table = self.policy.device, self.policy.model.get_input_embeddings()
        assert table is not None
        embed = cast(nn.Embedding, table)
        after = self.ids(prompts.after(kind))
        before = [self.ids(prompts.before(kind, self.asked.item(i))) for i in items]
        rests = [after + tail for tail in tails]
        length = [len(b) + len(r) for b, r in zip(before, rests, strict=True)]
        tokens = embed(torch.tensor([t for b, r in zip(before, rests, strict=True) for t in b + r], device=at))
        shown: list[Tensor] = [tokens[:0]] * len(items)
        if kind in prompts.SEES:
            vectors = [self.policy.take(self.asked.pictures(i)) for i in items]
            soft = self.projector(torch.cat(vectors), [len(v) for v in vectors])
            shown = [own.to(tokens.dtype) for own in soft]
        rows: list[Tensor] = []
        for part, b, s in zip(tokens.split(length), before, shown, strict=True):
            rows.append(torch.cat([part[: len(b)], s, part[len(b) :]]))
        sizes = torch.tensor([len(row) for row in rows], device=at)
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        T = padded.shape[1]
        position = torch.arange(T, device=at)
        valid = (position < sizes[:, None])[:, None]
        hidden, cache = forward_one(self.policy.model, padded[:, None], position, valid, [])
        hidden = hidden[:, 0]
        at_last = hidden[torch.arange(len(rows), device=at), sizes - 1]
        return hidden, Prefilled(at_last, [Prefix(cache, "cells")], sizes)

    def _prefill(self, kind: Kind, items: list[int]) -> tuple[Prefilled, list[str]]:
        """Read the prompts, letting the model think where it shall, up to where the answer goes on."""
        _, prefilled = self._read(kind, items, [[] for _ in items])
        if kind != "thought":
            return prefilled, [""] * len(items)
        thoughts, prefilled = self._decode(
            prefilled, LONGEST_THOUGHT, self._thought_ends, then=self.policy.prompt.cue
        )
        return prefilled, [self.tokenizer.decode(t).strip() for t in thoughts]

    def _thought_ends(self, ids: list[int]) -> bool:
        for t in ids[-1:]:
            if t not in self.newlines:
                self.newlines[t] = self.tokenizer.decode([t]).count("\n")
        ends = sum(self.newlines.get(t, 0) for t in ids) >= prompts.ENDS_THOUGHT
        return ends or ids[-1] == self.policy.prompt.end

    def _decode(
        self, prefilled: Prefilled, longest: int, ends: Any, then: list[int] | None = None
    ) -> tuple[list[list[int]], Prefilled]:
        """Speak greedily from each prompt until `ends(tokens)` or `longest`, and then read `then`.

        All prompts keep their place in the grid, so that nothing is copied; who has finished reads padding. What
        was thought so far is one cache that grows, and not one a token: attention goes over two parts, not eighty.
        """
        N, at = len(prefilled.position_N), self.policy.device
        said: list[list[int]] = [[] for _ in range(N)]
        alive = torch.ones(N, dtype=torch.bool, device=at)
        hidden, position, prefixes = prefilled.hidden_NH, prefilled.position_N, prefilled.prefixes
        spoken: KVCache | None = None
        for _ in range(longest):
            token, were = logits(self.policy, hidden).argmax(-1), alive.clone()
            for i in were.nonzero().flatten().tolist():
                said[i].append(int(token[i]))
                alive[i] = not ends(said[i])
            # The token that ends a speech is read only where something follows it.
            reads = alive if then is None else were
            if not reads.any():
                break
            ids, positions, valid = (tensor[:, None, None] for tensor in (token, position, reads))
            out, cache = forward_one(self.policy.model, ids, positions, valid, prefixes)
            hidden, position = torch.where(reads[:, None], out[:, 0, 0], hidden), position + reads
            spoken = cache if spoken is None else spoken.joined(cache)
            prefixes = [*prefilled.prefixes, Prefix(spoken, "cells")]
            if not alive.any():
                break
        after = Prefilled(hidden, prefixes, position)
        if then is None:
            return said, after
        ids, every = torch.tensor(then, device=at).expand(N, -1), torch.arange(N, device=at)
        _, after = extend(self.policy, after, every, ids, torch.ones_like(ids, dtype=torch.bool))
        return said, after


def _build(model: Any, tokenizer: Any, asked: Contexts) -> Embedded:
    embedding = model.get_input_embeddings().weight
    embedding.requires_grad_(False)
    size = float(embedding.detach().float().pow(2).mean().sqrt())
    projector = Projector(asked.seen.pictures.shape[-1], embedding.shape[1], size).to(embedding.device)
    policy = make_policy(model, prompts.tokenise(asked.names, tokenizer), "causal")
    model.get_output_embeddings().requires_grad_(False)  # the fine-tuned model has one of its own
    return Embedded(policy, projector, tokenizer, asked, {})


def new(
    settings: config.MultimodalModel,
    asked: Contexts,
    follows: Follows,
    dtype: torch.dtype,
    rng: np.random.Generator,
) -> Embedded:
    """A language model by name with a new projector, ready to be trained; but for the paper's recipe the projector
    has had its first lesson."""
    model: Any = adapters.adapt(models.load(settings.model, dtype), rng)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        made = _build(model, models.load_tokenizer(settings.model), asked)
    items = np.setdiff1d(np.flatnonzero(asked.row >= 0), asked.fresh)
    if len(items) and set(prompts.SEES) & set(settings.prompts):
        means = np.stack([asked.pictures(i).mean(0) for i in items.tolist()])
        made.projector.look(means)
        if settings.target == "paper":
            return made
        table = model.get_input_embeddings().weight.detach()
        names = torch.stack([table[answer[:-1]].float().mean(0) for answer in made.policy.prompt.answers])
        own, then = teach(
            made.projector,
            means,
            asked.cluster[items],
            follows(items.astype(np.int32)),
            names,
            passes=LESSONS,
            rng=rng,
        )
        say(f"  by looks alone {own:.1%} of videos held back are of their own cluster, {then:.1%} lead to the next")
    return made


def open_saved(path: Path, asked: Contexts, dtype: torch.dtype) -> Embedded:
    """What `save` wrote."""
    folder = str(path / "language")
    with torch.random.fork_rng():
        opened = _build(models.load(folder, dtype), models.load_tokenizer(folder), asked)
    opened.projector.load_state_dict(load_file(path / "projector.safetensors"))
    return opened
