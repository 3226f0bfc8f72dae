"""Asking the language policy: prompts read once, answers decoded freely or under the trie of legal names.

`Policy` joins a model, the prompt's pieces and the trie. Under causal attention a prompt is read from left to
right; under block attention each description is read by itself, right after the instruction, and only the cue
looks at all of them, so that a description's keys and values serve every prompt in which it stands.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from byway.language import trie as tries
from byway.language.prompts import Prompt
from byway.language.reading import Back, Reading, prepare, read
from byway.language.trie import Trie

Attention = Literal["block", "causal"]


@dataclass(slots=True)
class Policy:
    """A model that answers prompts over one set of clusters."""

    model: PreTrainedModel
    prompt: Prompt
    trie: Trie
    attention: Attention
    precision: torch.dtype

    @property
    def clusters(self) -> int:
        return len(self.prompt.answers)

    def autocast(self) -> torch.autocast:
        """Matrix products in the policy's precision."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16)


@dataclass(slots=True)
class Asked:
    """Prompts that have been read up to the cue."""

    hidden_NH: Tensor
    """Last hidden state at the cue."""
    context: list[Back]
    """What an answer looks back at."""
    position_N: Tensor
    """Position of the answer's first token."""


def policy(
    model: PreTrainedModel, prompt: Prompt, attention: Attention, precision: torch.dtype = torch.float32
) -> Policy:
    """Join a model and a prompt."""
    return Policy(prepare(model), prompt, tries.build(prompt.answers), attention, precision)


def pad(sequences: list[list[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Token ids [N, T], padded at the right with `fill`, and where they are real."""
    length = torch.tensor([len(s) for s in sequences])
    T = int(length.max())
    ids = torch.tensor([s + [fill] * (T - len(s)) for s in sequences])
    return ids, torch.arange(T) < length[:, None]


def ask(policy: Policy, context_NK: NDArray[np.int32]) -> Asked:
    """Read the prompts of N contexts of K clusters each; what prompts share is read once."""
    instruction = _instruction(policy)
    if policy.attention == "block":
        return _ask_blocks(policy, instruction, context_NK)
    return _ask_causal(policy, instruction, context_NK)


def _instruction(policy: Policy) -> Reading:
    ids = torch.tensor(policy.prompt.instruction)[None, None]
    _, reading = read(policy.model, ids, torch.arange(ids.shape[-1]), torch.ones_like(ids, dtype=torch.bool), [])
    return reading


def slot_end(prompt: Prompt, k: int) -> int:
    """Position after slot k under block attention: every slot is as wide as its longest description."""
    return len(prompt.instruction) + sum(max(map(len, slot)) for slot in prompt.slots[: k + 1])


def read_blocks(policy: Policy, k: int, clusters: NDArray[np.int64], instruction: Reading) -> Reading:
    """Read each cluster's description in slot k by itself: a reading of [clusters, 1].

    A description ends where its slot ends, so that the cue always follows it at once.
    """
    sequences = [policy.prompt.slots[k][c] for c in clusters]
    ids, valid = pad(sequences, policy.prompt.end)
    start = slot_end(policy.prompt, k) - valid.sum(1)
    positions = (start[:, None] + torch.arange(ids.shape[1]))[:, None]
    _, reading = read(policy.model, ids[:, None], positions, valid[:, None], [Back(instruction, "all")])
    return reading


def _ask_blocks(policy: Policy, instruction: Reading, context_NK: NDArray[np.int32]) -> Asked:
    context = [Back(instruction, "all")]
    for k in range(policy.prompt.history):
        clusters, pick = np.unique(context_NK[:, k], return_inverse=True)
        blocks = read_blocks(policy, k, clusters, instruction)
        context.append(Back(blocks, "rows", torch.from_numpy(pick)))
    return ask_cue(policy, context, len(context_NK), 1)


def ask_cue(policy: Policy, context: list[Back], A: int, B: int) -> Asked:
    """Read the cue of A x B prompts whose blocks are ready."""
    cue = torch.tensor(policy.prompt.cue).expand(A, B, -1)
    start = slot_end(policy.prompt, policy.prompt.history - 1)
    positions = torch.arange(start, start + cue.shape[-1])
    hidden, reading = read(policy.model, cue, positions, torch.ones_like(cue, dtype=torch.bool), context)
    position = torch.full((A * B,), start + cue.shape[-1])
    return Asked(hidden[:, :, -1].flatten(0, 1), [*context, Back(reading, "cells")], position)


def _ask_causal(policy: Policy, instruction: Reading, context_NK: NDArray[np.int32]) -> Asked:
    prompt, K = policy.prompt, policy.prompt.history
    N = len(context_NK)
    above = np.zeros((1, 0), dtype=np.int32)  # the different beginnings read so far
    readings = [(instruction, np.zeros((1,), dtype=np.int64))]
    end = np.array([len(prompt.instruction)])
    hidden = instruction.keys[0]
    last = torch.zeros(1, dtype=torch.int64)
    row_of = np.zeros(N, dtype=np.int64)
    for k in range(K):
        beginnings, row_of = np.unique(context_NK[:, : k + 1], axis=0, return_inverse=True)
        row_of = row_of.reshape(-1)
        parent = _rows_of(beginnings[:, :k], above)
        cue = prompt.cue if k == K - 1 else []
        ids, valid = pad([prompt.slots[k][c] + cue for c in beginnings[:, k]], prompt.end)
        readings = [(reading, index[parent]) for reading, index in readings]
        back = [
            Back(reading, "all") if reading is instruction else Back(reading, "rows", torch.from_numpy(index))
            for reading, index in readings
        ]
        start = torch.from_numpy(end[parent])
        positions = (start[:, None] + torch.arange(ids.shape[1]))[:, None]
        hidden, reading = read(policy.model, ids[:, None], positions, valid[:, None], back)
        last = valid.sum(1) - 1
        end = (start + last + 1).numpy()
        readings.append((reading, np.arange(len(beginnings))))
        above = beginnings
    rows = torch.from_numpy(row_of)
    back = [
        Back(reading, "all")
        if reading is instruction
        else Back(reading, "rows", torch.from_numpy(index).index_select(0, rows))
        for reading, index in readings
    ]
    at_cue = hidden[torch.arange(len(last)), 0, last].index_select(0, rows)
    return Asked(at_cue, back, torch.from_numpy(end).index_select(0, rows))


def _rows_of(keys: NDArray[np.int32], table: NDArray[np.int32]) -> NDArray[np.int64]:
    """Row of `table` that equals each row of `keys`."""
    index = {tuple(row): i for i, row in enumerate(table.tolist())}
    return np.array([index[tuple(key)] for key in keys.tolist()], dtype=np.int64)


def go_on(
    policy: Policy, asked: Asked, which_n: Tensor, ids_nT: Tensor, valid_nT: Tensor
) -> tuple[Tensor, Reading]:
    """Read answer tokens after the prompts `which_n`; returns hidden states [n, T, H] and their reading."""
    back: list[Back] = []
    for b in asked.context:
        if b.along == "all":
            back.append(b)
        elif b.pick_A is None:  # laid along a grid of [A, B]: find each prompt's own sequence
            back.append(Back(b.reading, "rows", _own(b, which_n, asked)))
        else:
            back.append(Back(b.reading, "rows", b.pick_A.index_select(0, which_n)))
    positions = (asked.position_N.index_select(0, which_n)[:, None] + torch.arange(ids_nT.shape[1]))[:, None]
    hidden, reading = read(policy.model, ids_nT[:, None], positions, valid_nT[:, None], back)
    return hidden[:, 0], reading


def _own(back: Back, which_n: Tensor, asked: Asked) -> Tensor:
    """Number of the sequence of `back` that each prompt of the flat grid looks back at."""
    a, b = back.reading.valid_ABT.shape[:2]
    if back.along == "cells":
        return which_n
    cells = len(asked.position_N)
    return which_n // (cells // a) if back.along == "rows" else which_n % b


def logits(policy: Policy, hidden: Tensor, tokens: list[int] | None = None) -> Tensor:
    """Scores of `tokens` (all where None) given hidden states [..., H], in float32."""
    head: Any = policy.model.get_output_embeddings()
    if tokens is None:
        return head(hidden).float()
    weight = head.weight[torch.tensor(tokens)]
    return torch.nn.functional.linear(hidden, weight).float()
