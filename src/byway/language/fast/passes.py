"""Forward passes with shared prefixes: each token is read once, and its keys and values serve all that follow it.

A pass reads a grid of A x B sequences, such as every C1 with every C2. Its prefixes are KV caches of earlier
passes, each laid along the grid: one for all sequences, one a row, one a column, or one a cell. Keys and values are
never copied to each cell: attention to a prefix for all is one plain matrix product, to one a row or column a
product a row or column. That makes training on every pair among some clusters, and inference over all pairs, cheap.
Several passes, of which each may look back at those before it, run together as one batch of tokens (`forward`).

This module knows attention; it does not know prompts, clusters or losses. It works for every transformers model
whose attention goes through the library's attention interface.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

Along = Literal["all", "rows", "columns", "cells"]
"""How many sequences a prefix has: one for the grid, A, B, or A * B."""
IMPLEMENTATION = "byway_grid"
ALIKE = 16
"""Sequences of one length, on average, from which on those of each length are attended to by themselves."""


@dataclass(slots=True)
class KVCache:
    """Keys and values of a grid of sequences: `keys[layer]` and `values[layer]` are [A, B, T, heads, d].

    `valid_ABT` is False where a sequence was padded.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid_ABT: Tensor

    def part(self, row: int, length: int) -> "KVCache":
        """One row of the grid; of each sequence the first `length` tokens."""
        cut = (slice(row, row + 1), slice(None), slice(length))
        return KVCache([k[cut] for k in self.keys], [v[cut] for v in self.values], self.valid_ABT[cut])

    def joined(self, later: "KVCache") -> "KVCache":
        """This cache and, of the same grid, one that follows it."""
        keys, values = (
            [torch.cat(both, dim=2) for both in zip(*each, strict=True)]
            for each in ((self.keys, later.keys), (self.values, later.values))
        )
        return KVCache(keys, values, torch.cat([self.valid_ABT, later.valid_ABT], dim=2))


@dataclass(slots=True)
class Prefix:
    """The KV cache of an earlier pass, as a later one looks back at it."""

    cache: KVCache
    along: Along
    sequence_A: Tensor | None = None
    """For rows: the sequence of the cache, counted along its grid, that each row of this pass looks back at."""
    rows: range | None = None
    """Only these rows of the cache's grid."""
    transposed: bool = False
    """Rows and columns of that grid exchanged."""

    def on_grid(self, tensor: Tensor) -> Tensor:
        """One layer's keys or values [a, b, T, heads, d], or the mask [a, b, T], where a is 1 or A and b 1 or B."""
        if self.rows is not None:
            tensor = tensor[self.rows.start : self.rows.stop]
        if self.transposed:
            tensor = tensor.transpose(0, 1)
        if self.sequence_A is None:
            return tensor
        return tensor.flatten(0, 1).index_select(0, self.sequence_A).unsqueeze(1)


class ForwardPass:
    """A grid of A x B sequences to be read, each causal in itself and looking back at the `prefixes`.

    Only real tokens are read: `forward` takes them as one flat sequence of n, without the grid's padding.
    """

    def __init__(
        self,
        ids_ABT: Tensor,
        positions_ABT: Tensor,
        valid_ABT: Tensor,
        prefixes: list[Prefix],
        last_only: bool = False,
    ):
        """In the place of token ids there may be their embeddings [A, B, T, H], for what is no token.

        Padding, where `valid_ABT` is False, stands at the right end of a sequence. With `last_only` only the hidden
        state of each sequence's last token is wanted; none may be empty then.
        """
        self.A, self.B, self.T = ids_ABT.shape[:3]
        self.cells = self.A * self.B * self.T
        self.by_length, self.real_n = _by_length(valid_ABT, prefixes)
        """Sequences of one length; and the place of each real token in the flat grid, in the order of reading."""
        self.ids = ids_ABT.reshape(self.cells, *ids_ABT.shape[3:]).index_select(0, self.real_n)
        positions = positions_ABT.expand(self.A, self.B, self.T).reshape(-1)
        self.positions = positions.index_select(0, self.real_n)
        self.prefixes = prefixes
        valid = [prefix.on_grid(prefix.cache.valid_ABT) for prefix in prefixes]
        self.prefix_valid = [(valid_abT, bool(valid_abT.all())) for valid_abT in valid]
        """Which tokens of each prefix are real, and whether all are: asked once, not a layer, since a GPU has to
        stop for the answer."""
        self.kept: Tensor | None = None
        """[A * B] which of the n tokens end a sequence; None where all hidden states are wanted."""
        if last_only:
            device = valid_ABT.device
            place = torch.zeros(self.cells, dtype=torch.int64, device=device)
            place[self.real_n] = torch.arange(len(self.real_n), device=device)
            last = valid_ABT.sum(-1).flatten() - 1
            self.kept = place.index_select(0, torch.arange(self.A * self.B, device=device) * self.T + last)
        self.cache = KVCache([], [], valid_ABT)
        """Filled layer by layer as the pass is read."""

    def on_grid(self, tensor_n: Tensor) -> Tensor:
        """[A, B, T, ...] the rows of the real tokens [n, ...] in their places; padding is zero."""
        if len(self.real_n) != self.cells:
            padded = tensor_n.new_zeros(self.cells, *tensor_n.shape[1:])
            tensor_n = padded.index_copy(0, self.real_n, tensor_n)
        return tensor_n.view(self.A, self.B, self.T, *tensor_n.shape[1:])


def _by_length(valid_ABT: Tensor, prefixes: list[Prefix]) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Numbers of the sequences of each length, shortest first, with the length, and where their tokens stand [n].

    Attention over sequences of one length pads nothing. There are no groups where they would be small, which costs
    more than padding, and where a product is shared by a row or a column of the grid.
    """
    B, T = valid_ABT.shape[1:]
    alongs = {prefix.along for prefix in prefixes}
    if alongs <= {"all"} or (B == 1 and "columns" not in alongs):
        length_N = valid_ABT.sum(-1).flatten()
        order = length_N.argsort(stable=True)
        lengths, several = length_N.index_select(0, order).unique_consecutive(return_counts=True)
        if 1 < len(lengths) <= len(order) / ALIKE:
            groups = [one for one in zip(order.split(several.tolist()), lengths.tolist(), strict=True) if one[1]]
            upto = torch.arange(T, device=order.device)
            return groups, torch.cat([(cells[:, None] * T + upto[:n]).flatten() for cells, n in groups])
    return [], valid_ABT.flatten().nonzero().flatten()


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Route the model's attention through the grid."""
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def forward_one(
    model: PreTrainedModel,
    ids_ABT: Tensor,
    positions_ABT: Tensor,
    valid_ABT: Tensor,
    prefixes: list[Prefix],
) -> tuple[Tensor, KVCache]:
    """Run the model's body over one `ForwardPass`.

    Returns the last hidden states [A, B, T, H] and the cache, which later passes may look back at. The hidden
    states of padding mean nothing.
    """
    one = ForwardPass(ids_ABT, positions_ABT, valid_ABT, prefixes)
    (hidden,) = forward(model, [one])
    return hidden, one.cache


def forward(model: PreTrainedModel, passes: list[ForwardPass]) -> list[Tensor]:
    """Run the model's body over several passes at once, of which each may look back at those before it.

    In a layer only attention tells tokens apart: everything else is one product over the real tokens of all passes.
    The gradient of a weight then costs one product a layer too, which for ten tokens takes as long as for a
    thousand. Returns the last hidden states [A, B, T, H] of each pass; [A, B, H] where only the last are wanted.
    """
    body: Any = model.base_model
    inputs = torch.cat([one.ids for one in passes])[None]
    hidden = body(
        **{"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs},
        position_ids=torch.cat([one.positions for one in passes])[None],
        use_cache=False,
        passes=passes,
    ).last_hidden_state[0]
    kept = kept_tokens(passes)
    if kept is not None and len(hidden) != len(kept):  # else the last layer has left out the others
        hidden = hidden.index_select(0, kept)
    parts = hidden.split([len(one.real_n if one.kept is None else one.kept) for one in passes])
    return [
        one.on_grid(part) if one.kept is None else part.view(one.A, one.B, -1)
        for part, one in zip(parts, passes, strict=True)
    ]


def kept_tokens(passes: list[ForwardPass]) -> Tensor | None:
    """Which of the tokens of all passes have a hidden state that is wanted; None where all have."""
    if all(one.kept is None for one in passes):
        return None
    starts = accumulate((len(one.real_n) for one in passes), initial=0)
    return torch.cat(
        [
            start + (torch.arange(len(one.real_n), device=one.real_n.device) if one.kept is None else one.kept)
            for start, one in zip(starts, passes, strict=False)
        ]
    )


class LayerPrefix(NamedTuple):
    """A prefix in one layer, on the grid of the pass that looks back at it."""

    along: Along
    keys_abTGd: Tensor
    values_abTGd: Tensor
    valid_abT: Tensor
    all_valid: bool

    def of_rows(self, rows_n: Tensor) -> "LayerPrefix":
        """The same for some rows of the grid."""
        if self.along == "all":
            return self
        several = (self.keys_abTGd, self.values_abTGd, self.valid_abT)
        keys, values, valid = (tensor.index_select(0, rows_n) for tensor in several)
        return LayerPrefix(self.along, keys, values, valid, self.all_valid)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    passes: list[ForwardPass],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention to the prefixes and to the sequence itself, in one softmax; transformers calls it in every layer.

    The real tokens of all passes come as one sequence: `query` is [1, heads, n, d], `key` and `value`
    [1, kv heads, n, d], as the attention interface has them. Returns [1, n, heads, d].
    """
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    sizes = [len(one.real_n) for one in passes]
    parts = zip(*(tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)), strict=True)
    attended = [_attend_one(one, layer, scaling, *part) for one, part in zip(passes, parts, strict=True)]
    return torch.cat(attended)[None], None


def _attend_one(
    one: ForwardPass, layer: int, scaling: float, query_nhd: Tensor, key_nGd: Tensor, value_nGd: Tensor
) -> Tensor:
    """[n, heads, d] of the real tokens of one pass; their keys and values go into its cache."""
    one.cache.keys.append(one.on_grid(key_nGd))
    one.cache.values.append(one.on_grid(value_nGd))
    query_nhd = query_nhd if scaling == 1 else query_nhd * scaling
    prefixes = [
        LayerPrefix(
            prefix.along,
            prefix.on_grid(prefix.cache.keys[layer]),
            prefix.on_grid(prefix.cache.values[layer]),
            valid_abT,
            all_valid,
        )
        for prefix, (valid_abT, all_valid) in zip(one.prefixes, one.prefix_valid, strict=True)
    ]
    if not one.by_length:
        keys, values = one.cache.keys[-1], one.cache.values[-1]
        attended = _attention(one.on_grid(query_nhd), keys, values, prefixes).flatten(0, 2)
        return attended if len(one.real_n) == one.cells else attended.index_select(0, one.real_n)
    several: list[Tensor] = []
    sizes = [len(sequences) * T for sequences, T in one.by_length]
    parts = zip(one.by_length, *(t.split(sizes) for t in (query_nhd, key_nGd, value_nGd)), strict=True)
    for (sequences, T), *tensors in parts:
        query, key, value = (tensor.view(len(sequences), 1, T, *tensor.shape[1:]) for tensor in tensors)
        here = [prefix.of_rows(sequences) for prefix in prefixes]
        several.append(_attention(query, key, value, here).flatten(0, 2))
    return torch.cat(several)


def _attention(query_ABThd: Tensor, key_ABTGd: Tensor, value_ABTGd: Tensor, prefixes: list[LayerPrefix]) -> Tensor:
    """[A, B, T, h, d] of a grid of sequences, each causal in itself; G heads of keys serve h of queries.

    Groups of heads come first, so that what all cells or those of a row look back at is one product as it lies.
    """
    A, B, T, heads, d = query_ABThd.shape
    G = key_ABTGd.shape[3]
    # Q is (heads of a group) * T.
    query_GABQd = query_ABThd.view(A, B, T, G, heads // G, d).permute(3, 0, 1, 4, 2, 5).reshape(G, A, B, -1, d)
    own = _shared_product(query_GABQd, _heads_first(key_ABTGd).transpose(-1, -2), "cells")
    if T > 1:
        later = torch.ones(T, T, dtype=torch.bool, device=query_GABQd.device).triu(1)
        own = own.view(G, A, B, -1, T, T).masked_fill(later, float("-inf")).view(G, A, B, -1, T)
    scores = [_prefix_scores(query_GABQd, prefix) for prefix in prefixes]
    widths = [part.shape[-1] for part in scores]
    weights = torch.cat([*scores, own], dim=-1).softmax(-1, dtype=torch.float32).to(query_GABQd.dtype)
    *parts, last = weights.split([*widths, T], dim=-1)
    out = _shared_product(last, _heads_first(value_ABTGd), "cells")
    for part, prefix in zip(parts, prefixes, strict=True):
        out = out + _shared_product(part, _heads_first(prefix.values_abTGd), prefix.along)
    return out.view(G, A, B, -1, T, d).permute(1, 2, 4, 0, 3, 5).reshape(A, B, T, heads, d)


def _heads_first(tensor_abTGd: Tensor) -> Tensor:
    """[G, a, b, T, d], contiguous."""
    return tensor_abTGd.permute(3, 0, 1, 2, 4).contiguous()


def _prefix_scores(query_GABQd: Tensor, prefix: LayerPrefix) -> Tensor:
    """[G, A, B, Q, T] attention scores of every query against what its cell looks back at."""
    scores = _shared_product(query_GABQd, _heads_first(prefix.keys_abTGd).transpose(-1, -2), prefix.along)
    if prefix.all_valid:
        return scores
    return scores.masked_fill(~prefix.valid_abT[:, :, None, :], float("-inf"))


def _shared_product(left_GABQx: Tensor, right_Gabxy: Tensor, along: Along) -> Tensor:
    """[G, A, B, Q, y] `left @ right`, where `right` is shared along the grid, in few large products."""
    G, A, B, Q, x = left_GABQx.shape
    y = right_Gabxy.shape[-1]
    if along == "columns":
        flat = left_GABQx.transpose(1, 2).reshape(G * B, A * Q, x) @ right_Gabxy[:, 0].flatten(0, 1)
        return flat.view(G, B, A, Q, y).transpose(1, 2)
    several = {"all": 1, "rows": A, "cells": A * B}[along]
    flat = left_GABQx.reshape(G * several, -1, x) @ right_Gabxy.flatten(0, 2)
    return flat.view(G, A, B, Q, y)


AttentionInterface.register(IMPLEMENTATION, attend)
