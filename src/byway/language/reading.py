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

    def joined(self, later: "Reading") -> "Reading":
        """This reading and, of the same grid, one that follows it."""
        keys, values = (
            [torch.cat(both, dim=2) for both in zip(*each, strict=True)]
            for each in ((self.keys, later.keys), (self.values, later.values))
        )
        return Reading(keys, values, torch.cat([self.valid_ABT, later.valid_ABT], dim=2))

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
    part: range | None = None
    """Only these rows of the reading's grid."""
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


class Pass:
    """A grid of A x B sequences to be read, each causal in itself and looking back at `context`."""

    def __init__(self, ids_ABT: Tensor, positions_ABT: Tensor, valid_ABT: Tensor, context: list[Back]):
        """In the place of token ids there may be their embeddings [A, B, T, H], for what is no token.

        Padding, where `valid_ABT` is False, stands at the right end of a sequence.
        """
        self.A, self.B, self.T = ids_ABT.shape[:3]
        self.cells = self.A * self.B * self.T
        self.real = valid_ABT.reshape(-1).nonzero().flatten()
        """Places of the tokens that are not padding in the flat grid."""
        self.ids = ids_ABT.reshape(self.cells, *ids_ABT.shape[3:]).index_select(0, self.real)
        positions = positions_ABT.expand(self.A, self.B, self.T).reshape(-1)
        self.positions = positions.index_select(0, self.real)
        self.context = context
        self.made = Reading([], [], valid_ABT)
        """Filled as it is read."""


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
    """Run the model's body over one `Pass`.

    Returns the last hidden states [A, B, T, H] and the reading, which later passes may look back at. The hidden
    states of padding mean nothing.
    """
    one = Pass(ids_ABT, positions_ABT, valid_ABT, context)
    (hidden,) = read_together(model, [one])
    return hidden, one.made


def read_together(model: PreTrainedModel, passes: list[Pass]) -> list[Tensor]:
    """Run the model's body over several passes at once, of which each may look back at those before it.

    In a layer only attention tells tokens apart: everything else is one product over the real tokens of all passes.
    The gradient of a weight then costs one product a layer too, which for ten tokens takes as long as for a
    thousand. Returns the last hidden states [A, B, T, H] of each pass.
    """
    body: Any = model.base_model
    given = torch.cat([one.ids for one in passes])[None]
    hidden = body(
        **{"inputs_embeds" if given.is_floating_point() else "input_ids": given},
        position_ids=torch.cat([one.positions for one in passes])[None],
        use_cache=False,
        passes=passes,
    ).last_hidden_state[0]
    parts = hidden.split([len(one.real) for one in passes])
    return [
        _spread(part, one.real, one.cells).view(one.A, one.B, one.T, -1)
        for part, one in zip(parts, passes, strict=True)
    ]


def _spread(tensor: Tensor, real: Tensor, size: int) -> Tensor:
    """Put the rows of the real tokens back into their places among `size`; padding is zero."""
    if len(real) == size:
        return tensor
    return tensor.new_zeros(size, *tensor.shape[1:]).index_copy(0, real, tensor)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    passes: list[Pass],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over the earlier readings and over the sequence itself, in one softmax.

    The real tokens of all passes come as one sequence: `query` is [1, heads, n, d], `key` and `value`
    [1, kv heads, n, d], as the attention interface has them.
    """
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    sizes = [len(one.real) for one in passes]
    parts = zip(*(tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)), strict=True)
    found = [_attend_one(one, layer, scaling, *part) for one, part in zip(passes, parts, strict=True)]
    return torch.cat(found)[None], None


def _attend_one(one: Pass, layer: int, scaling: float, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same for the real tokens of one pass, each [n, heads, d]."""
    heads, d = query.shape[1:]
    A, B, T, G = one.A, one.B, one.T, key.shape[1]

    def cells(tensor: Tensor) -> Tensor:
        return _spread(tensor, one.real, one.cells).view(A, B, T, -1, d)

    keys_here, values_here = cells(key), cells(value)
    one.made.keys.append(keys_here)
    one.made.values.append(values_here)
    query_ABGQd = cells(query).transpose(2, 3).reshape(A, B, G, heads // G * T, d) * scaling
    scores = [
        _scores(query_ABGQd, back.of(back.reading.keys[layer]), back.of(back.reading.valid_ABT), back.along)
        for back in one.context
    ]
    own = query_ABGQd @ keys_here.permute(0, 1, 3, 4, 2)
    if T > 1:
        later = torch.ones(T, T, dtype=torch.bool, device=query.device).triu(1)
        own = own.reshape(A, B, G, heads // G, T, T).masked_fill(later, float("-inf")).reshape(A, B, G, -1, T)
    widths = [s.shape[-1] for s in scores]
    weights = torch.cat([*scores, own], dim=-1).softmax(-1)
    *parts, last = weights.split([*widths, T], dim=-1)
    out = last @ values_here.transpose(2, 3)
    for part, back in zip(parts, one.context, strict=True):
        values = back.of(back.reading.values[layer])
        out = out + _by_group(part, values.transpose(2, 3), back.along)
    flat = out.reshape(A * B, heads, T, d).transpose(1, 2).reshape(one.cells, heads, d)
    return flat if len(one.real) == one.cells else flat.index_select(0, one.real)


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


AttentionInterface.register(IMPLEMENTATION, attend)
