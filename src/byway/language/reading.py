"""Reading tokens once: a causal model runs over a batch that looks back at what was read before.

A batch is a grid of A x B sequences. What it looks back at are earlier readings, each laid along the grid: one
for all, one a row, one a column, or one a cell. Keys and values are never copied per cell: a reading for all is
attended to as one plain matrix product, one a row or column as one product a row or column. The grid is what
makes training on every pair among some clusters, and bulk inference over all of them, cheap.

This module knows attention; it does not know prompts, clusters or losses. It works for every transformers model
whose attention goes through the library's attention interface.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

Along = Literal["all", "rows", "columns", "cells"]
IMPLEMENTATION = "byway_grid"


@dataclass(slots=True)
class Reading:
    """Keys and values of a grid of sequences: `keys[layer]` and `values[layer]` are [A, B, T, heads, d].

    `valid_ABT` is False where a sequence was padded.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid_ABT: Tensor

    def part(self, rows: range) -> "Reading":
        """The rows `rows` of the grid."""
        cut = slice(rows.start, rows.stop)
        return Reading([k[cut] for k in self.keys], [v[cut] for v in self.values], self.valid_ABT[cut])

    def turned(self) -> "Reading":
        """The same reading with rows and columns of its grid exchanged."""
        keys, values = ([t.transpose(0, 1).contiguous() for t in ts] for ts in (self.keys, self.values))
        return Reading(keys, values, self.valid_ABT.transpose(0, 1))


@dataclass(slots=True)
class Back:
    """An earlier reading as a pass looks back at it."""

    reading: Reading
    along: Along
    pick_A: Tensor | None = None
    """For rows: which sequence of the reading (counted along its grid) each row of this pass looks back at."""

    def of(self, tensor: Tensor) -> Tensor:
        """One layer's keys or values, or the mask, laid along this pass's grid."""
        if self.pick_A is None:
            return tensor
        return tensor.flatten(0, 1).index_select(0, self.pick_A).unsqueeze(1)


@dataclass(slots=True)
class _Grid:
    """What the attention function needs to know about the pass under way."""

    A: int
    B: int
    T: int
    real: Tensor
    """Places of the tokens that are not padding in the flat grid."""
    context: list[Back]
    made: Reading


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Route the model's attention through the grid."""
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def read(
    model: PreTrainedModel,
    ids_ABT: Tensor,
    positions_ABT: Tensor,
    valid_ABT: Tensor,
    context: list[Back],
) -> tuple[Tensor, Reading]:
    """Run the model's body over a grid of sequences, each causal in itself and looking back at `context`.

    In the place of token ids there may be their embeddings [A, B, T, H], for what is no token.

    Returns the last hidden states [A, B, T, H] and the reading, which later passes may look back at. Padding
    stands at the right end of a sequence; its hidden states mean nothing.
    """
    A, B, T = ids_ABT.shape[:3]
    made = Reading([], [], valid_ABT)
    body: Any = model.base_model
    # All tokens that are real, as one sequence: everything but attention works token by token.
    real = valid_ABT.reshape(-1).nonzero().flatten()
    given = ids_ABT.reshape(1, A * B * T, *ids_ABT.shape[3:]).index_select(1, real)
    hidden = body(
        **{"inputs_embeds" if given.is_floating_point() else "input_ids": given},
        position_ids=positions_ABT.expand(A, B, T).reshape(1, -1).index_select(1, real),
        use_cache=False,
        grid=_Grid(A, B, T, real, context, made),
    ).last_hidden_state[0]
    return _spread(hidden, real, A * B * T).view(A, B, T, -1), made


def _spread(tensor: Tensor, real: Tensor, size: int) -> Tensor:
    """Put the rows of the real tokens back into their places among `size`; padding is zero."""
    if len(real) == size:
        return tensor
    return tensor.new_zeros(size, *tensor.shape[1:]).index_copy(0, real, tensor)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    grid: _Grid,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over the earlier readings and over the sequence itself, in one softmax.

    The real tokens of the whole grid come as one sequence: `query` is [1, heads, n, d], `key` and `value`
    [1, kv heads, n, d], as the attention interface has them.
    """
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    heads, d = query.shape[1], query.shape[3]
    A, B, T, G = grid.A, grid.B, grid.T, key.shape[1]

    def cells(tensor: Tensor) -> Tensor:
        return _spread(tensor[0].transpose(0, 1), grid.real, A * B * T).view(A, B, T, -1, d)

    keys_here, values_here = cells(key), cells(value)
    grid.made.keys.append(keys_here)
    grid.made.values.append(values_here)
    query_ABGQd = cells(query).transpose(2, 3).reshape(A, B, G, heads // G * T, d) * scaling
    scores = [
        _scores(query_ABGQd, back.of(back.reading.keys[layer]), back.of(back.reading.valid_ABT), back.along)
        for back in grid.context
    ]
    own = query_ABGQd @ keys_here.permute(0, 1, 3, 4, 2)
    if T > 1:
        later = torch.ones(T, T, dtype=torch.bool, device=query.device).triu(1)
        own = own.reshape(A, B, G, heads // G, T, T).masked_fill(later, float("-inf")).reshape(A, B, G, -1, T)
    widths = [s.shape[-1] for s in scores]
    weights = torch.cat([*scores, own], dim=-1).float().softmax(-1).to(value.dtype)
    *parts, last = weights.split([*widths, T], dim=-1)
    out = last @ values_here.transpose(2, 3)
    for part, back in zip(parts, grid.context, strict=True):
        values = back.of(back.reading.values[layer])
        out = out + _by_group(part, values.transpose(2, 3), back.along)
    flat = out.reshape(A * B, heads, T, d).transpose(1, 2).reshape(A * B * T, heads, d)
    return (flat if len(grid.real) == A * B * T else flat.index_select(0, grid.real))[None], None


def _scores(query_ABGQd: Tensor, keys_abTGd: Tensor, valid_abT: Tensor, along: Along) -> Tensor:
    """Scores [A, B, G, Q, T] of every query against the reading that its cell looks back at."""
    scores = _by_group(query_ABGQd, keys_abTGd.permute(0, 1, 3, 4, 2), along)
    if bool(valid_abT.all()):
        return scores
    return scores.masked_fill(~valid_abT[:, :, None, None, :], float("-inf"))


def _by_group(left_ABGQx: Tensor, right_abGxy: Tensor, along: Along) -> Tensor:
    """`left @ right` where `right` is shared along the grid, as few large products instead of A*B small ones."""
    A, B, G, Q, x = left_ABGQx.shape
    y = right_abGxy.shape[-1]
    if along == "cells":
        return left_ABGQx @ right_abGxy
    if along == "rows":
        flat = left_ABGQx.permute(0, 2, 1, 3, 4).reshape(A, G, B * Q, x) @ right_abGxy[:, 0]
        return flat.view(A, G, B, Q, y).permute(0, 2, 1, 3, 4)
    if along == "columns":
        flat = left_ABGQx.permute(1, 2, 0, 3, 4).reshape(B, G, A * Q, x) @ right_abGxy[0]
        return flat.view(B, G, A, Q, y).permute(2, 0, 1, 3, 4)
    flat = left_ABGQx.permute(2, 0, 1, 3, 4).reshape(G, A * B * Q, x) @ right_abGxy[0, 0]
    return flat.view(G, A, B, Q, y).permute(1, 2, 0, 3, 4)


AttentionInterface.register(IMPLEMENTATION, _attend)
