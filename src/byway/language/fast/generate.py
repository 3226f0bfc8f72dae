"""Asking the language policy: prompts read once, and what can be read on after them.

`Policy` joins a model, the prompt's pieces and the trie. Under causal attention a prompt is read from left to
right; under block attention each description is read by itself, right after the instruction, and only the cue
looks at all of them, so that a description's keys and values serve every prompt in which it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from byway.base.errors import UserError
from byway.language import trie as tries
from byway.language.fast.passes import Cache, ForwardPass, Prefix, prepare, read_together
from byway.language.head import NamesHead
from byway.language.prompts import Prompt
from byway.language.trie import Trie

Attention = Literal["block", "causal"]


@dataclass(slots=True)
class Policy:
    """A model that answers prompts over one set of clusters."""

    model: PreTrainedModel
    prompt: Prompt
    trie: Trie
    attention: Attention

    @property
    def clusters(self) -> int:
        return len(self.prompt.answers)

    @property
    def device(self) -> torch.device:
        """Where the model is, and with it all that is read."""
        return self.model.device

    def pad(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids [N, T] where the model is, padded at the right with the end token, and where they are real."""
        length = torch.tensor([len(s) for s in sequences])
        T = int(length.max())
        ids = torch.tensor([s + [self.prompt.end] * (T - len(s)) for s in sequences])
        return ids.to(self.device), (torch.arange(T) < length[:, None]).to(self.device)

    def take(self, array: NDArray[Any]) -> Tensor:
        """A tensor where the model is."""
        return torch.from_numpy(array).to(self.device)


@dataclass(slots=True)
class Prompted:
    """Prompts that have been read up to the cue."""

    hidden_NH: Tensor
    """Last hidden state at the cue."""
    context: list[Prefix]
    """What an answer looks back at."""
    position_N: Tensor
    """Position of the answer's first token."""


def policy(model: PreTrainedModel, prompt: Prompt, attention: Attention) -> Policy:
    """Join a model and a prompt; UserError where the model's output layer is none that names can be scored by."""
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        name = model.config.name_or_path or "The language model"
        raise UserError(f"{name} has no linear output layer without bias, which Byway needs: give another model.")
    return Policy(prepare(model), prompt, tries.build(prompt.answers), attention)


def ask(policy: Policy, context_NK: NDArray[np.int32], instruction: Cache | None = None) -> Prompted:
    """Read the prompts of N contexts of K clusters each; what prompts share is read once."""
    instruction = instruction or read_instruction(policy)
    if policy.attention == "block":
        return _ask_blocks(policy, instruction, context_NK)
    return _ask_causal(policy, instruction, context_NK)


def read_instruction(policy: Policy) -> Cache:
    """Read what every prompt begins with."""
    return _read(policy, _instruction(policy))


def _read(policy: Policy, one: ForwardPass) -> Cache:
    read_together(policy.model, [one])
    return one.made


def _instruction(policy: Policy) -> ForwardPass:
    ids = torch.tensor(policy.prompt.instruction, device=policy.device)[None, None]
    positions = torch.arange(ids.shape[-1], device=policy.device)
    return ForwardPass(ids, positions, torch.ones_like(ids, dtype=torch.bool), [])


def slot_end(prompt: Prompt, k: int) -> int:
    """Position after slot k under block attention: every slot is as wide as its longest description."""
    return len(prompt.instruction) + sum(max(map(len, slot)) for slot in prompt.slots[: k + 1])


def read_blocks(policy: Policy, clusters: list[NDArray[np.integer]], instruction: Cache) -> Cache:
    """Read descriptions by themselves, `clusters[k]` in slot k: a cache of [their number, 1], slot by slot.

    A description ends where its slot ends, so that the cue always follows it at once.
    """
    return _read(policy, _blocks(policy, clusters, instruction))


def _blocks(policy: Policy, clusters: list[NDArray[np.integer]], instruction: Cache) -> ForwardPass:
    sequences = [policy.prompt.slots[k][c] for k, cs in enumerate(clusters) for c in cs]
    ids, valid = policy.pad(sequences)
    at = policy.device
    ends = torch.tensor([slot_end(policy.prompt, k) for k, cs in enumerate(clusters) for _ in cs], device=at)
    positions = ((ends - valid.sum(1))[:, None] + torch.arange(ids.shape[1], device=at))[:, None]
    return ForwardPass(ids[:, None], positions, valid[:, None], [Prefix(instruction, "all")])


def _ask_blocks(policy: Policy, instruction: Cache, context_NK: NDArray[np.int32]) -> Prompted:
    parts = [np.unique(column, return_inverse=True) for column in context_NK.T]
    blocks = read_blocks(policy, [clusters for clusters, _ in parts], instruction)
    context = [Prefix(instruction, "all")]
    start = 0
    for clusters, pick in parts:
        context.append(Prefix(blocks, "rows", policy.take(pick + start)))
        start += len(clusters)
    return ask_cue(policy, context, len(context_NK), 1)


def read_grid(
    policy: Policy,
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    which_n: Tensor,
    ids_nT: Tensor,
    valid_nT: Tensor,
) -> tuple[Tensor, Tensor]:
    """Read the prompts of every pair (a of `first`, b of `second`), in that order, under block attention, and
    answer tokens after the prompts `which_n`: a training step's tokens in one pass.

    Returns the hidden states at the cue [A * B, H] and those of the answer tokens [n, T, H].
    """
    A, B = len(first), len(second)
    instruction = _instruction(policy)
    blocks = _blocks(policy, [first, second], instruction.made)
    rows = Prefix(blocks.made, "rows", part=range(A))
    columns = Prefix(blocks.made, "columns", part=range(A, A + B), turned=True)
    back = [Prefix(instruction.made, "all"), rows, columns]
    cue, position_N = _cue(policy, back, A, B)
    answers, _ = _further(
        [*back, Prefix(cue.made, "cells")], position_N, which_n, ids_nT[:, None], valid_nT[:, None]
    )
    hidden = read_together(policy.model, [instruction, blocks, cue, answers])
    return hidden[2][:, :, -1].flatten(0, 1), hidden[3][:, 0]


def ask_cue(policy: Policy, context: list[Prefix], A: int, B: int) -> Prompted:
    """Read the cue of A x B prompts whose blocks are ready."""
    cue, position_N = _cue(policy, context, A, B)
    (hidden,) = read_together(policy.model, [cue])
    return Prompted(hidden[:, :, -1].flatten(0, 1), [*context, Prefix(cue.made, "cells")], position_N)


def _cue(policy: Policy, context: list[Prefix], A: int, B: int) -> tuple[ForwardPass, Tensor]:
    """The cue of A x B prompts, and the position after it."""
    cue = torch.tensor(policy.prompt.cue, device=policy.device).expand(A, B, -1)
    start = slot_end(policy.prompt, policy.prompt.history - 1)
    positions = torch.arange(start, start + cue.shape[-1], device=policy.device)
    one = ForwardPass(cue, positions, torch.ones_like(cue, dtype=torch.bool), context)
    return one, torch.full((A * B,), start + cue.shape[-1], device=policy.device)


def ask_rows(policy: Policy, instruction: Cache, firsts: list[list[int]]) -> Iterator[Prompted]:
    """Read the prompts of every C1, its slots having the tokens `firsts`, with every C2, under causal attention.

    One C1 comes after the other: the instruction and it are attended to as plain matrix products, and nothing of
    them is copied for each C2. What all descriptions of the last slot begin with is the same after one C1 and is
    read with it.
    """
    prompt = policy.prompt
    same = _common(prompt.slots[-1])
    ids, valid = policy.pad([first + prompt.slots[-1][0][:same] for first in firsts])
    start = len(prompt.instruction)
    positions = start + torch.arange(ids.shape[1], device=policy.device)
    before = _read(policy, ForwardPass(ids[:, None], positions, valid[:, None], [Prefix(instruction, "all")]))
    ids, each = policy.pad([slot[same:] + prompt.cue for slot in prompt.slots[-1]])
    for row, length in enumerate(valid.sum(1).tolist()):
        back = [Prefix(instruction.joined(before.part(row, length)), "all")]
        positions = start + length + torch.arange(ids.shape[1], device=policy.device)
        one = ForwardPass(ids[None], positions, each[None], back, ends=True)
        (at_cue,) = read_together(policy.model, [one])
        yield Prompted(at_cue[0], [*back, Prefix(one.made, "cells")], start + length + each.sum(1))


def _common(sequences: list[list[int]]) -> int:
    """Number of tokens that all sequences begin with."""
    least, most = min(sequences), max(sequences)
    differ = (i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b)
    return next(differ, min(len(least), len(most)))


def _ask_causal(policy: Policy, instruction: Cache, context_NK: NDArray[np.int32]) -> Prompted:
    prompt, K = policy.prompt, policy.prompt.history
    N = len(context_NK)
    caches = [(instruction, np.zeros((1,), dtype=np.int64))]
    end = np.array([len(prompt.instruction)])
    hidden = instruction.keys[0]
    row_of = np.zeros(N, dtype=np.int64)
    for k in range(K):
        # The different beginnings of k + 1 clusters, and the place of each one's own beginning among those of k.
        beginnings, at, row = np.unique(context_NK[:, : k + 1], axis=0, return_index=True, return_inverse=True)
        parent, row_of = row_of[at], row.reshape(-1)
        cue = prompt.cue if k == K - 1 else []
        ids, valid = policy.pad([prompt.slots[k][c] + cue for c in beginnings[:, k]])
        caches = [(cache, index[parent]) for cache, index in caches]
        back = [_along(cache, policy.take(index)) for cache, index in caches]
        start = policy.take(end[parent])
        positions = (start[:, None] + torch.arange(ids.shape[1], device=policy.device))[:, None]
        one = ForwardPass(ids[:, None], positions, valid[:, None], back, ends=True)
        (hidden,) = read_together(policy.model, [one])
        end = (start + valid.sum(1)).cpu().numpy()
        caches.append((one.made, np.arange(len(beginnings))))
    rows = policy.take(row_of)
    back = [_along(cache, policy.take(index).index_select(0, rows)) for cache, index in caches]
    return Prompted(hidden[:, 0].index_select(0, rows), back, policy.take(end).index_select(0, rows))


def _along(cache: Cache, pick_A: Tensor) -> Prefix:
    """A prefix at one sequence of a cache for each prompt; nothing is copied where there is one for all."""
    return Prefix(cache, "all") if len(cache.valid_ABT) == 1 else Prefix(cache, "rows", pick_A)


def go_on(
    policy: Policy, asked: Prompted, which_n: Tensor, ids_nT: Tensor, valid_nT: Tensor
) -> tuple[Tensor, Prompted]:
    """Read answer tokens after the prompts `which_n`.

    Returns the hidden states [n, T, H] and the prompts so far, each up to its last valid token. What several
    sequences go on from is fetched once for all of them.
    """
    n, at = len(which_n), which_n.device
    which_A, row_n = torch.unique(which_n, return_inverse=True)
    several_A = torch.bincount(row_n, minlength=len(which_A))
    column_n = torch.zeros(n, dtype=torch.int64, device=at)
    order = row_n.argsort(stable=True)
    column_n[order] = torch.arange(n, device=at) - (several_A.cumsum(0) - several_A)[row_n[order]]
    wide = int(several_A.max())
    if len(which_A) * wide > 2 * n:  # most of that grid would be empty
        which_A, row_n, column_n, wide = which_n, torch.arange(n, device=at), torch.zeros_like(which_n), 1
    ids = ids_nT.new_zeros(len(which_A), wide, ids_nT.shape[1])
    valid = torch.zeros_like(ids, dtype=torch.bool)
    ids[row_n, column_n], valid[row_n, column_n] = ids_nT, valid_nT
    one, start_A = _further(asked.context, asked.position_N, which_A, ids, valid)
    hidden, length = read_together(policy.model, [one])[0][row_n, column_n], valid_nT.sum(1)
    at_last = hidden[torch.arange(n, device=at), length - 1]
    before = [b if b.pick_A is None else replace(b, pick_A=b.pick_A[row_n]) for b in one.context]
    made = Prefix(one.made, "cells", row_n * wide + column_n)
    return hidden, Prompted(at_last, [*before, made], start_A[row_n] + length)


def _further(
    context: list[Prefix], position_N: Tensor, which_A: Tensor, ids_ABT: Tensor, valid_ABT: Tensor
) -> tuple[ForwardPass, Tensor]:
    """B sequences of tokens after each of the prompts `which_A`, and the position of the first [A]."""
    back: list[Prefix] = []
    for b in context:
        if b.along == "all":
            back.append(b)
            continue
        # Where a cache is laid along a grid of [A, B]: find each prompt's own sequence.
        own = _own(b, which_A, len(position_N)) if b.pick_A is None else b.pick_A.index_select(0, which_A)
        back.append(replace(b, along="rows", pick_A=own))
    start = position_N.index_select(0, which_A)
    positions = (start[:, None] + torch.arange(ids_ABT.shape[2], device=start.device))[:, None]
    return ForwardPass(ids_ABT, positions, valid_ABT, back), start


def _own(back: Prefix, which_n: Tensor, cells: int) -> Tensor:
    """Number of the sequence of `back` that each prompt of the flat grid looks back at."""
    a, b = back.of(back.cache.valid_ABT).shape[:2]
    if back.along == "cells":
        return which_n
    return which_n // (cells // a) if back.along == "rows" else which_n % b


def logits(policy: Policy, hidden: Tensor, tokens: list[int] | None = None) -> Tensor:
    """Scores of `tokens` (all where None) given hidden states [..., H], in float32.

    Those of some tokens are computed in float32 too: bfloat16 tells scores near 16 apart in steps of an eighth.
    """
    head: Any = policy.model.get_output_embeddings()
    if tokens is None:
        return head(hidden).float()
    chosen = torch.tensor(tokens, device=hidden.device)
    weight = head.of(chosen) if isinstance(head, NamesHead) else head.weight[chosen]
    return torch.nn.functional.linear(hidden.float(), weight.float())


@torch.no_grad()
def decode_freely(policy: Policy, context_NK: NDArray[np.int32], longest: int) -> list[list[int]]:
    """Greedy answers over the whole vocabulary, without the trie, up to the end token or `longest` tokens."""
    contexts, row = np.unique(context_NK, axis=0, return_inverse=True)
    asked = ask(policy, contexts)
    answers: list[list[int]] = [[] for _ in contexts]
    alive = torch.arange(len(contexts), device=policy.device)
    for _ in range(longest):
        token = logits(policy, asked.hidden_NH).argmax(-1)
        for i, t in zip(alive.tolist(), token.tolist(), strict=True):
            answers[i].append(t)
        going = torch.nonzero(token != policy.prompt.end).flatten()
        if not len(going):
            break
        alive = alive[going]
        ids = token[going, None]
        _, asked = go_on(policy, asked, going, ids, torch.ones_like(ids, dtype=torch.bool))
    return [answers[i] for i in row.reshape(-1)]
