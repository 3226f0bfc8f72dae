"""Reading tokens once: a causal model runs over a batch that looks back at what was read before.

A batch is a grid of A x B sequences. What it looks back at are caches of earlier passes, each laid along the grid:
one for all, one a row, one a column, or one a cell. Keys and values are never copied per cell: a cache for all is
attended to as one plain matrix product, one a row or column as one product a row or column. The grid is what makes
training on every pair among some clusters, and bulk inference over all of them, cheap.

This module knows attention; it does not know prompts, clusters or losses. It works for every transformers model
whose attention goes through the library's attention interface.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from byway.base.errors import UserError

Along = Literal["all", "rows", "columns", "cells"]
IMPLEMENTATION = "byway_grid"
TOLERANCE, ROUNDED = 0.05, 0.5
"""Root mean square, in standard deviations of the scores, by which two ways of reading may lie apart in float32 and
with 16 bits. float32 rounds by 1e-5 of one; bfloat16 by 0.01 to 0.1, by tokens and processor. What is read wrongly
lies 1 apart."""
SHORTEST_WINDOW = 256
"""Tokens: a prompt of three long descriptions, and its answer."""
ALIKE = 16
"""Sequences of one length, on average, from which on those of each length are attended to by themselves."""


@dataclass(slots=True)
class Cache:
    """Keys and values of a grid of sequences: `keys[layer]` and `values[layer]` are [A, B, T, heads, d].

    `valid_ABT` is False where a sequence was padded.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid_ABT: Tensor

    def part(self, row: int, length: int) -> "Cache":
        """One row of the grid; of each sequence the first `length` tokens."""
        cut = (slice(row, row + 1), slice(None), slice(length))
        return Cache([k[cut] for k in self.keys], [v[cut] for v in self.values], self.valid_ABT[cut])

    def joined(self, later: "Cache") -> "Cache":
        """This cache and, of the same grid, one that follows it."""
        keys, values = (
            [torch.cat(both, dim=2) for both in zip(*each, strict=True)]
            for each in ((self.keys, later.keys), (self.values, later.values))
        )
        return Cache(keys, values, torch.cat([self.valid_ABT, later.valid_ABT], dim=2))


@dataclass(slots=True)
class Prefix:
    """The cache of an earlier pass, as a later one looks back at it."""

    cache: Cache
    along: Along
    pick_A: Tensor | None = None
    """For rows: which sequence of the cache (counted along its grid) each row of this pass looks back at."""
    part: range | None = None
    """Only these rows of the cache's grid."""
    turned: bool = False
    """Rows and columns of that grid exchanged."""

    def of(self, tensor: Tensor) -> Tensor:
        """One layer's keys or values, or the mask, laid along this pass's grid."""
        if self.part is not None:
            tensor = tensor[self.part.start : self.part.stop]
        if self.turned:
            tensor = tensor.transpose(0, 1)
        if self.pick_A is None:
            return tensor
        return tensor.flatten(0, 1).index_select(0, self.pick_A).unsqueeze(1)


class ForwardPass:
    """A grid of A x B sequences to be read, each causal in itself and looking back at `context`."""

    def __init__(
        self, ids_ABT: Tensor, positions_ABT: Tensor, valid_ABT: Tensor, context: list[Prefix], ends: bool = False
    ):
        """In the place of token ids there may be their embeddings [A, B, T, H], for what is no token.

        Padding, where `valid_ABT` is False, stands at the right end of a sequence. With `ends` only the hidden
        state of each sequence's last token is wanted; none may be empty then.
        """
        self.A, self.B, self.T = ids_ABT.shape[:3]
        self.cells = self.A * self.B * self.T
        self.groups, self.real = _by_length(valid_ABT, context)
        """Sequences of one length, and the places of all tokens that are not padding in the flat grid, in the order
        in which they are read."""
        self.ids = ids_ABT.reshape(self.cells, *ids_ABT.shape[3:]).index_select(0, self.real)
        positions = positions_ABT.expand(self.A, self.B, self.T).reshape(-1)
        self.positions = positions.index_select(0, self.real)
        self.context = context
        valid = [back.of(back.cache.valid_ABT) for back in context]
        self.seen = [(each, bool(each.all())) for each in valid]
        """Which tokens of the context are real, laid along this grid, and whether all are: asked once, not a layer,
        since a GPU has to stop for the answer."""
        self.wanted: Tensor | None = None
        """Which of the tokens read are the last of their sequences, sequence by sequence; None where all count."""
        if ends:
            at = valid_ABT.device
            rank = torch.zeros(self.cells, dtype=torch.int64, device=at)
            rank[self.real] = torch.arange(len(self.real), device=at)
            last = valid_ABT.sum(-1).flatten() - 1
            self.wanted = rank.index_select(0, torch.arange(self.A * self.B, device=at) * self.T + last)
        self.made = Cache([], [], valid_ABT)
        """Filled as it is read."""


def _by_length(valid_ABT: Tensor, context: list[Prefix]) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Numbers of the sequences of each length, shortest first, with the length, and where their tokens stand.

    Attention over sequences of one length pads nothing. There are no groups where they would be small, which costs
    more than padding, and where a product is shared by a row or a column of the grid.
    """
    B, T = valid_ABT.shape[1:]
    alongs = {back.along for back in context}
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


@torch.no_grad()
def require_readable(model: PreTrainedModel) -> None:
    """UserError, with the reason, where the grid would not read a model as it reads itself.

    Hybrids (Qwen3.5, LFM2, Jamba, Mamba) have layers that carry a state from token to token: what two prompts share
    cannot be read once and looked back at. Others bend the scores that come from the last hidden state. Both are
    seen by reading a few tokens in two parts. Call it before the model's attention is routed through the grid.
    """
    name, why = model.config.name_or_path or type(model).__name__, ""
    text: Any = model.config.get_text_config()
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    at = torch.arange(12, device=model.device)
    # From the middle of the vocabulary: at its beginning stand special tokens, where rounding alone moves scores.
    ids = (at + text.vocab_size // 2)[None]
    expected = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    usual: Any = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    try:
        grid = ids[None]
        there = torch.ones_like(grid, dtype=torch.bool)
        prepare(model)
        _, first = read(model, grid[..., :8], at[:8], there[..., :8], [])
        if len(first.keys) < text.num_hidden_layers:
            why = f"{text.num_hidden_layers - len(first.keys)} of its {text.num_hidden_layers} layers do not attend"
        else:
            hidden, _ = read(model, grid[..., 8:], at[8:], there[..., 8:], [Prefix(first, "all")])
            head: Any = model.get_output_embeddings()
            apart = (head(hidden[0, 0, -1]).float() - expected).square().mean().sqrt() / expected.std()
            most = TOLERANCE if model.dtype == torch.float32 else ROUNDED
            why = "read in parts it answers otherwise than read at once" if apart > most else ""
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        why = f"it does not read through the library's attention interface: {str(error).splitlines()[0]}"
    finally:
        model.set_attn_implementation(usual)
    if window is not None and window < SHORTEST_WINDOW:
        why = f"it looks back {window} tokens at the most, and a prompt can be longer"
    if why:
        raise UserError(
            f"{name} cannot be read in bulk ({why}): take one whose layers all attend, as SmolLM2 or Qwen3, or ask "
            'it behind a server: language_model.answers = "server".'
        )


def read(
    model: PreTrainedModel,
    ids_ABT: Tensor,
    positions_ABT: Tensor,
    valid_ABT: Tensor,
    context: list[Prefix],
) -> tuple[Tensor, Cache]:
    """Run the model's body over one `ForwardPass`.

    Returns the last hidden states [A, B, T, H] and the cache, which later passes may look back at. The hidden
    states of padding mean nothing.
    """
    one = ForwardPass(ids_ABT, positions_ABT, valid_ABT, context)
    (hidden,) = read_together(model, [one])
    return hidden, one.made


def read_together(model: PreTrainedModel, passes: list[ForwardPass]) -> list[Tensor]:
    """Run the model's body over several passes at once, of which each may look back at those before it.

    In a layer only attention tells tokens apart: everything else is one product over the real tokens of all passes.
    The gradient of a weight then costs one product a layer too, which for ten tokens takes as long as for a
    thousand. Returns the last hidden states [A, B, T, H] of each pass; [A, B, H] of one read for its ends.
    """
    body: Any = model.base_model
    given = torch.cat([one.ids for one in passes])[None]
    hidden = body(
        **{"inputs_embeds" if given.is_floating_point() else "input_ids": given},
        position_ids=torch.cat([one.positions for one in passes])[None],
        use_cache=False,
        passes=passes,
    ).last_hidden_state[0]
    keep = wanted(passes)
    if keep is not None and len(hidden) != len(keep):  # else the last layer has left out the others
        hidden = hidden.index_select(0, keep)
    parts = hidden.split([len(one.real if one.wanted is None else one.wanted) for one in passes])
    return [
        _spread(part, one.real, one.cells).view(one.A, one.B, one.T, -1)
        if one.wanted is None
        else part.view(one.A, one.B, -1)
        for part, one in zip(parts, passes, strict=True)
    ]


def wanted(passes: list[ForwardPass]) -> Tensor | None:
    """Which of the tokens of all passes are wanted; None where all are."""
    if all(one.wanted is None for one in passes):
        return None
    starts = accumulate((len(one.real) for one in passes), initial=0)
    each = zip(starts, passes, strict=False)
    return torch.cat(
        [
            start + (torch.arange(len(one.real), device=one.real.device) if one.wanted is None else one.wanted)
            for start, one in each
        ]
    )


def _spread(tensor: Tensor, real: Tensor, size: int) -> Tensor:
    """Put the rows of the real tokens back into their places among `size`; padding is zero."""
    if len(real) == size:
        return tensor
    return tensor.new_zeros(size, *tensor.shape[1:]).index_copy(0, real, tensor)


class Before(NamedTuple):
    """What a grid looks back at in one layer."""

    along: Along
    keys_abTGd: Tensor
    values_abTGd: Tensor
    valid_abT: Tensor
    whole: bool
    """Whether all of it is known to be valid."""

    def of(self, rows_n: Tensor) -> "Before":
        """The same for some rows of the grid."""
        if self.along == "all":
            return self
        several = (self.keys_abTGd, self.values_abTGd, self.valid_abT)
        keys, values, valid = (tensor.index_select(0, rows_n) for tensor in several)
        return Before(self.along, keys, values, valid, self.whole)


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
    """Attention over the caches of earlier passes and over the sequence itself, in one softmax.

    The real tokens of all passes come as one sequence: `query` is [1, heads, n, d], `key` and `value`
    [1, kv heads, n, d], as the attention interface has them.
    """
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    sizes = [len(one.real) for one in passes]
    parts = zip(*(tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)), strict=True)
    found = [_attend_one(one, layer, scaling, *part) for one, part in zip(passes, parts, strict=True)]
    return torch.cat(found)[None], None


def _attend_one(one: ForwardPass, layer: int, scaling: float, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same for the real tokens of one pass, each [n, heads, d]."""

    def grid(tensor: Tensor) -> Tensor:
        return _spread(tensor, one.real, one.cells).view(one.A, one.B, one.T, *tensor.shape[1:])

    one.made.keys.append(grid(key))
    one.made.values.append(grid(value))
    query = query if scaling == 1 else query * scaling
    before = [
        Before(back.along, back.of(back.cache.keys[layer]), back.of(back.cache.values[layer]), valid, whole)
        for back, (valid, whole) in zip(one.context, one.seen, strict=True)
    ]
    if not one.groups:
        out = _attention(grid(query), one.made.keys[-1], one.made.values[-1], before).flatten(0, 2)
        return out if len(one.real) == one.cells else out.index_select(0, one.real)
    found: list[Tensor] = []
    several = [len(cells) * T for cells, T in one.groups]
    for (cells, T), *parts in zip(one.groups, *(t.split(several) for t in (query, key, value)), strict=True):
        q, k, v = (part.view(len(cells), 1, T, *part.shape[1:]) for part in parts)
        found.append(_attention(q, k, v, [each.of(cells) for each in before]).flatten(0, 2))
    return torch.cat(found)


def _attention(query_ABThd: Tensor, key_ABTGd: Tensor, value_ABTGd: Tensor, before: list[Before]) -> Tensor:
    """[A, B, T, h, d] of a grid of sequences, each causal in itself.

    Groups of heads come first, so that what all cells or those of a row look back at is one product as it lies.
    """
    A, B, T, heads, d = query_ABThd.shape
    G = key_ABTGd.shape[3]
    query = query_ABThd.view(A, B, T, G, heads // G, d).permute(3, 0, 1, 4, 2, 5).reshape(G, A, B, -1, d)
    own = _by_group(query, _grouped(key_ABTGd).transpose(-1, -2), "cells")
    if T > 1:
        later = torch.ones(T, T, dtype=torch.bool, device=query.device).triu(1)
        own = own.view(G, A, B, -1, T, T).masked_fill(later, float("-inf")).view(G, A, B, -1, T)
    scores = [_scores(query, each) for each in before]
    widths = [part.shape[-1] for part in scores]
    weights = torch.cat([*scores, own], dim=-1).softmax(-1, dtype=torch.float32).to(query.dtype)
    *parts, last = weights.split([*widths, T], dim=-1)
    out = _by_group(last, _grouped(value_ABTGd), "cells")
    for part, each in zip(parts, before, strict=True):
        out = out + _by_group(part, _grouped(each.values_abTGd), each.along)
    return out.view(G, A, B, -1, T, d).permute(1, 2, 4, 0, 3, 5).reshape(A, B, T, heads, d)


def _grouped(tensor_abTGd: Tensor) -> Tensor:
    """[G, a, b, T, d], contiguous."""
    return tensor_abTGd.permute(3, 0, 1, 2, 4).contiguous()


def _scores(query_GABQd: Tensor, before: Before) -> Tensor:
    """Scores [G, A, B, Q, T] of every query against what its cell looks back at."""
    scores = _by_group(query_GABQd, _grouped(before.keys_abTGd).transpose(-1, -2), before.along)
    if before.whole:
        return scores
    return scores.masked_fill(~before.valid_abT[:, :, None, :], float("-inf"))


def _by_group(left_GABQx: Tensor, right_Gabxy: Tensor, along: Along) -> Tensor:
    """`left @ right` where `right` is shared along the grid, as few large products instead of A*B small ones."""
    G, A, B, Q, x = left_GABQx.shape
    y = right_Gabxy.shape[-1]
    if along == "columns":
        flat = left_GABQx.transpose(1, 2).reshape(G * B, A * Q, x) @ right_Gabxy[:, 0].flatten(0, 1)
        return flat.view(G, B, A, Q, y).transpose(1, 2)
    several = {"all": 1, "rows": A, "cells": A * B}[along]
    flat = left_GABQx.reshape(G * several, -1, x) @ right_Gabxy.flatten(0, 2)
    return flat.view(G, A, B, Q, y)


AttentionInterface.register(IMPLEMENTATION, attend)
