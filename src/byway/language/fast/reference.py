"""The slow way to ask: float32, one prompt at a time, no cache, the library's own attention.

What the bulk planner has to agree with. Nothing here is shared with it but the prompt's pieces and the trie: block
attention is written out as a mask.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from byway.language.fast.generate import Attention, slot_end
from byway.language.prompts import Prompt
from byway.language.trie import Trie


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a table's first answers compare with the slow way's."""

    same: float
    """Share of the contexts with the same first answer."""
    largest_gap: float
    """Where they differ: how much better the slow way finds its own answer, in nats, at the most. Small: a tie."""


@torch.no_grad()
def log_p(
    model: PreTrainedModel,
    prompt: Prompt,
    attention: Attention,
    context: list[int],
    path: list[int],
    legal: list[int],
) -> NDArray[np.float64]:
    """Log-probabilities of the `legal` tokens after a prompt and `path`, from one forward pass over all of it."""
    slots = [slot[c] for slot, c in zip(prompt.slots, context, strict=True)]
    pieces = [prompt.instruction, *slots, prompt.cue + path]
    ids, at = torch.tensor([[token for piece in pieces for token in piece]]), model.device
    n = ids.shape[1]
    sees, positions = torch.ones(n, n, dtype=torch.bool).tril(), torch.arange(n)
    if attention == "block":
        # A description sees the instruction and itself, and ends where its slot ends; the cue sees everything.
        start = len(prompt.instruction)
        for k, slot in enumerate(slots):
            stop = start + len(slot)
            sees[start:stop, len(prompt.instruction) : start] = False
            end = slot_end(prompt, k)
            positions[start:stop] = torch.arange(end - len(slot), end)
            start = stop
        last = slot_end(prompt, len(slots) - 1)
        positions[start:] = torch.arange(last, last + n - start)
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(n, n, dtype=dtype).masked_fill(~sees, float("-inf"))[None, None].to(at)
    body: Any = model
    ids, positions = ids.to(at), positions[None].to(at)
    scores = body(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return scores[0, -1].cpu()[legal].double().log_softmax(-1).numpy()


def best(
    model: PreTrainedModel, prompt: Prompt, trie: Trie, attention: Attention, context: list[int], other: int = -1
) -> tuple[int, float, float]:
    """The most probable legal name outside the context, its log-probability and that of the name `other`.

    Best first: a branching node is read only if no complete name is better than its own probability.
    """
    queue: list[tuple[float, int, int]] = []  # (-log p, name or -1, node); a complete name comes before a node
    known: dict[int, NDArray[np.float64]] = {}

    def options(node: int) -> NDArray[np.float64]:
        if node not in known:
            at = trie.nodes[node]
            known[node] = log_p(model, prompt, attention, context, at.path, at.tokens)
        return known[node]

    def expand(node: int, so_far: float) -> None:
        at = trie.nodes[node]
        for option, value in enumerate(options(node).tolist()):
            leads_to, names = at.leads_to[option], at.members[option]
            if leads_to >= 0:
                heapq.heappush(queue, (-(so_far + value), -1, leads_to))
            elif names[0] not in context:
                heapq.heappush(queue, (-(so_far + value), names[0], -1))

    expand(0, 0.0)
    while True:
        cost, name, node = heapq.heappop(queue)
        if name >= 0:
            break
        expand(node, -cost)
    of_other = sum(float(options(n)[o]) for n, o in trie.steps[other]) if other >= 0 else float("nan")
    return name, -cost, of_other


def agreement(
    model: PreTrainedModel,
    prompt: Prompt,
    trie: Trie,
    attention: Attention,
    context_NK: NDArray[np.integer],
    first_N: NDArray[np.integer],
) -> Agreement:
    """Compare the first answers of a table with the slow way's; `model` is in float32, as the library loads it."""
    same, largest = 0, 0.0
    for context, first in zip(context_NK.tolist(), first_N.tolist(), strict=True):
        name, value, of_first = best(model, prompt, trie, attention, context, first)
        if name == first:
            same += 1
        else:
            largest = max(largest, value - of_first)
    return Agreement(same / max(1, len(context_NK)), largest)
