"""Reading prompts (prefill) and what follows them (decoding), with what prompts share read once.

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
from byway.language.fast.passes import ForwardPass, KVCache, Prefix, forward, prepare
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
class Prefilled:
    """N prompts that have been read up to where the answer goes on."""

    hidden_NH: Tensor
    """Last hidden state, at the cue or the last token of the answer so far."""
    prefixes: list[Prefix]
    """What an answer looks back at."""
    position_N: Tensor
    """Position of the next token."""


def make_policy(model: PreTrainedModel, prompt: Prompt, attention: Attention) -> Policy:
    """Join a model and a prompt; UserError where the model's output layer is none that names can be scored by."""
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        name = model.config.name_or_path or "The language model"
        raise UserError(f"{name} has no linear output layer without bias, which Byway needs: give another model.")
    return Policy(prepare(model), prompt, tries.build(prompt.answers), attention)


def prefill(policy: Policy, context_NK: NDArray[np.int32], instruction: KVCache | None = None) -> Prefilled:
    """Read the prompts of N contexts of K clusters each; what prompts share is read once."""
    instruction = instruction or read_instruction(policy)
    if policy.attention == "block":
        return _prefill_blocks(policy, instruction, context_NK)
    return _prefill_causal(policy, instruction, context_NK)


def read_instruction(policy: Policy) -> KVCache:
    """Read what every prompt begins with."""
    return _read(policy, _instruction(policy))


def _read(policy: Policy, one: ForwardPass) -> KVCache:
    forward(policy.model, [one])
    return one.cache


def _instruction(policy: Policy) -> ForwardPass:
    ids = torch.tensor(policy.prompt.instruction, device=policy.device)[None, None]
    positions = torch.arange(ids.shape[-1], device=policy.device)
    return ForwardPass(ids, positions, torch.ones_like(ids, dtype=torch.bool), [])


def slot_end(prompt: Prompt, k: int) -> int:
    """Position after slot k under block attention: every slot is as wide as its longest description."""
    return len(prompt.instruction) + sum(max(map(len, slot)) for slot in prompt.slots[: k + 1])


def read_blocks(policy: Policy, clusters: list[NDArray[np.integer]], instruction: KVCache) -> KVCache:
    """Read descriptions by themselves, `clusters[k]` in slot k: a cache of [their number, 1], slot by slot.

    A description ends where its slot ends, so that the cue always follows it at once.
    """
    return _read(policy, _blocks(policy, clusters, instruction))


def _blocks(policy: Policy, clusters: list[NDArray[np.integer]], instruction: KVCache) -> ForwardPass:
    ids, valid = policy.pad([policy.prompt.slots[k][c] for k, in_slot in enumerate(clusters) for c in in_slot])
    ends = [slot_end(policy.prompt, k) for k, in_slot in enumerate(clusters) for _ in in_slot]
    start = torch.tensor(ends, device=policy.device) - valid.sum(1)
    positions = (start[:, None] + torch.arange(ids.shape[1], device=policy.device))[:, None]
    return ForwardPass(ids[:, None], positions, valid[:, None], [Prefix(instruction, "all")])


def _prefill_blocks(policy: Policy, instruction: KVCache, context_NK: NDArray[np.int32]) -> Prefilled:
    slots = [np.unique(column, return_inverse=True) for column in context_NK.T]
    blocks = read_blocks(policy, [clusters for clusters, _ in slots], instruction)
    prefixes = [Prefix(instruction, "all")]
    start = 0
    for clusters, place_N in slots:
        prefixes.append(Prefix(blocks, "rows", policy.take(place_N + start)))
        start += len(clusters)
    return prefill_cue(policy, prefixes, len(context_NK), 1)


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
    blocks = _blocks(policy, [first, second], instruction.cache)
    rows = Prefix(blocks.cache, "rows", rows=range(A))
    columns = Prefix(blocks.cache, "columns", rows=range(A, A + B), transposed=True)
    prefixes = [Prefix(instruction.cache, "all"), rows, columns]
    cue, position_N = _cue(policy, prefixes, A, B)
    of_answers = [*prefixes, Prefix(cue.cache, "cells")]
    answers, _ = _answer_pass(of_answers, position_N, which_n, ids_nT[:, None], valid_nT[:, None])
    hidden = forward(policy.model, [instruction, blocks, cue, answers])
    return hidden[2][:, :, -1].flatten(0, 1), hidden[3][:, 0]


def prefill_cue(policy: Policy, prefixes: list[Prefix], A: int, B: int) -> Prefilled:
    """Read the cue of A x B prompts whose blocks are read."""
    cue, position_N = _cue(policy, prefixes, A, B)
    (hidden,) = forward(policy.model, [cue])
    return Prefilled(hidden[:, :, -1].flatten(0, 1), [*prefixes, Prefix(cue.cache, "cells")], position_N)


def _cue(policy: Policy, prefixes: list[Prefix], A: int, B: int) -> tuple[ForwardPass, Tensor]:
    """The cue of A x B prompts, and the position after it [A * B]."""
    cue = torch.tensor(policy.prompt.cue, device=policy.device).expand(A, B, -1)
    start = slot_end(policy.prompt, policy.prompt.history - 1)
    positions = torch.arange(start, start + cue.shape[-1], device=policy.device)
    one = ForwardPass(cue, positions, torch.ones_like(cue, dtype=torch.bool), prefixes)
    return one, torch.full((A * B,), start + cue.shape[-1], device=policy.device)


def prefill_rows(policy: Policy, instruction: KVCache, firsts: list[list[int]]) -> Iterator[Prefilled]:
    """Read the prompts of every C1, its slots having the tokens `firsts`, with every C2, under causal attention.

    One C1 comes after the other: the instruction and it are attended to as plain matrix products, and nothing of
    them is copied for each C2. What all descriptions of the last slot begin with is the same after one C1 and is
    read with it.
    """
    prompt, device = policy.prompt, policy.device
    shared = _common_length(prompt.slots[-1])
    ids, valid = policy.pad([first + prompt.slots[-1][0][:shared] for first in firsts])
    start = len(prompt.instruction)
    positions = start + torch.arange(ids.shape[1], device=device)
    rows = _read(policy, ForwardPass(ids[:, None], positions, valid[:, None], [Prefix(instruction, "all")]))
    rest, rest_valid = policy.pad([slot[shared:] + prompt.cue for slot in prompt.slots[-1]])
    for row, length in enumerate(valid.sum(1).tolist()):
        prefix = Prefix(instruction.joined(rows.part(row, length)), "all")
        positions = start + length + torch.arange(rest.shape[1], device=device)
        one = ForwardPass(rest[None], positions, rest_valid[None], [prefix], last_only=True)
        (at_cue,) = forward(policy.model, [one])
        yield Prefilled(at_cue[0], [prefix, Prefix(one.cache, "cells")], start + length + rest_valid.sum(1))


def _common_length(sequences: list[list[int]]) -> int:
    """Number of tokens that all sequences begin with."""
    least, most = min(sequences), max(sequences)
    differ = (i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b)
    return next(differ, min(len(least), len(most)))


def _prefill_causal(policy: Policy, instruction: KVCache, context_NK: NDArray[np.int32]) -> Prefilled:
    """Slot by slot; what several contexts begin with is read once."""
    prompt, K = policy.prompt, policy.prompt.history
    # What was read so far, and which of its sequences each beginning that is read now goes on from.
    caches = [(instruction, np.zeros((1,), dtype=np.int64))]
    end = np.array([len(prompt.instruction)])
    hidden = instruction.keys[0]
    beginning_N = np.zeros(len(context_NK), dtype=np.int64)
    for k in range(K):
        # The different beginnings of k + 1 clusters, and the place of each one's own beginning among those of k.
        beginnings, at, inverse = np.unique(context_NK[:, : k + 1], axis=0, return_index=True, return_inverse=True)
        parent, beginning_N = beginning_N[at], inverse.reshape(-1)
        cue = prompt.cue if k == K - 1 else []
        ids, valid = policy.pad([prompt.slots[k][c] + cue for c in beginnings[:, k]])
        caches = [(cache, sequence[parent]) for cache, sequence in caches]
        prefixes = [_prefix(cache, policy.take(sequence)) for cache, sequence in caches]
        start = policy.take(end[parent])
        positions = (start[:, None] + torch.arange(ids.shape[1], device=policy.device))[:, None]
        one = ForwardPass(ids[:, None], positions, valid[:, None], prefixes, last_only=True)
        (hidden,) = forward(policy.model, [one])
        end = (start + valid.sum(1)).cpu().numpy()
        caches.append((one.cache, np.arange(len(beginnings))))
    row_N = policy.take(beginning_N)
    prefixes = [_prefix(cache, policy.take(sequence).index_select(0, row_N)) for cache, sequence in caches]
    position_N = policy.take(end).index_select(0, row_N)
    return Prefilled(hidden[:, 0].index_select(0, row_N), prefixes, position_N)


def _prefix(cache: KVCache, sequence_A: Tensor) -> Prefix:
    """A prefix at one sequence of a cache for each prompt; nothing is copied where there is one for all."""
    return Prefix(cache, "all") if len(cache.valid_ABT) == 1 else Prefix(cache, "rows", sequence_A)


def extend(
    policy: Policy, prefilled: Prefilled, which_n: Tensor, ids_nT: Tensor, valid_nT: Tensor
) -> tuple[Tensor, Prefilled]:
    """Read answer tokens after the prompts `which_n`.

    Returns the hidden states [n, T, H] and the n prompts so far, each up to its last valid token. What several
    sequences go on from is fetched once for all of them.
    """
    n, device = len(which_n), which_n.device
    # A grid of prompts, with up to `wide` sequences each; `row_n` and `column_n` are each sequence's place in it.
    which_A, row_n = torch.unique(which_n, return_inverse=True)
    sequences_A = torch.bincount(row_n, minlength=len(which_A))
    column_n = torch.zeros(n, dtype=torch.int64, device=device)
    order = row_n.argsort(stable=True)
    column_n[order] = torch.arange(n, device=device) - (sequences_A.cumsum(0) - sequences_A)[row_n[order]]
    wide = int(sequences_A.max())
    if len(which_A) * wide > 2 * n:  # most of that grid would be empty
        which_A, row_n, column_n, wide = which_n, torch.arange(n, device=device), torch.zeros_like(which_n), 1
    ids = ids_nT.new_zeros(len(which_A), wide, ids_nT.shape[1])
    valid = torch.zeros_like(ids, dtype=torch.bool)
    ids[row_n, column_n], valid[row_n, column_n] = ids_nT, valid_nT
    one, start_A = _answer_pass(prefilled.prefixes, prefilled.position_N, which_A, ids, valid)
    hidden_nTH, length_n = forward(policy.model, [one])[0][row_n, column_n], valid_nT.sum(1)
    last_nH = hidden_nTH[torch.arange(n, device=device), length_n - 1]
    prefixes = [
        prefix if prefix.sequence_A is None else replace(prefix, sequence_A=prefix.sequence_A[row_n])
        for prefix in one.prefixes
    ]
    prefixes.append(Prefix(one.cache, "cells", row_n * wide + column_n))
    return hidden_nTH, Prefilled(last_nH, prefixes, start_A[row_n] + length_n)


def _answer_pass(
    prefixes: list[Prefix], position_N: Tensor, which_A: Tensor, ids_ABT: Tensor, valid_ABT: Tensor
) -> tuple[ForwardPass, Tensor]:
    """B sequences of tokens after each of the prompts `which_A` of N, and the position of the first token [A]."""
    of_prompts = [
        prefix
        if prefix.along == "all"
        else replace(prefix, along="rows", sequence_A=_sequences(prefix, which_A, len(position_N)))
        for prefix in prefixes
    ]
    start = position_N.index_select(0, which_A)
    positions = (start[:, None] + torch.arange(ids_ABT.shape[2], device=start.device))[:, None]
    return ForwardPass(ids_ABT, positions, valid_ABT, of_prompts), start


def _sequences(prefix: Prefix, which_A: Tensor, cells: int) -> Tensor:
    """[A] number of the prefix's sequence that each of these prompts of the flat grid looks back at."""
    if prefix.sequence_A is not None:
        return prefix.sequence_A.index_select(0, which_A)
    a, b = prefix.on_grid(prefix.cache.valid_ABT).shape[:2]
    if prefix.along == "cells":
        return which_A
    return which_A // (cells // a) if prefix.along == "rows" else which_A % b


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
    prefilled = prefill(policy, contexts)
    answers: list[list[int]] = [[] for _ in contexts]
    unfinished = torch.arange(len(contexts), device=policy.device)
    for _ in range(longest):
        token = logits(policy, prefilled.hidden_NH).argmax(-1)
        for i, t in zip(unfinished.tolist(), token.tolist(), strict=True):
            answers[i].append(t)
        which = torch.nonzero(token != policy.prompt.end).flatten()
        if not len(which):
            break
        unfinished = unfinished[which]
        ids = token[which, None]
        _, prefilled = extend(policy, prefilled, which, ids, torch.ones_like(ids, dtype=torch.bool))
    return [answers[i] for i in row.reshape(-1)]
