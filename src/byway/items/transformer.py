"""The sequence model: a causal transformer with relative positions over a history of items.

Positions enter as Shaw, Uszkoreit and Vaswani (2018; paper 1's reference [27]) have it: a learned vector for each
distance is added to the keys and another to the values. So a history means the same wherever it starts, and
padding on the left changes nothing. This module knows tensors only: no events, no files, no loss.
"""

import math

import torch
from torch import Tensor, nn

from byway.base.device import Dropout


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added to its input."""

    def __init__(self, dim: int, heads: int, distances: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dim)
        self.read = nn.Linear(dim, 3 * dim)
        self.key_of_distance = nn.Parameter(torch.empty(distances, dim // heads).normal_(std=0.02))
        self.value_of_distance = nn.Parameter(torch.empty(distances, dim // heads).normal_(std=0.02))
        self.write = nn.Linear(dim, dim)
        self.before_feed = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Tensor, barred_B1LL: Tensor, distance_LL: Tensor) -> Tensor:
        batch, length, dim = x_BLD.shape
        width = dim // self.heads
        read = self.read(self.before_attention(x_BLD)).view(batch, length, 3, self.heads, width)
        query, key, value = read.permute(2, 0, 3, 1, 4)
        query = query / math.sqrt(width)
        # Looked up as embeddings: the gradient of plain indexing is added up by threads in any order.
        keys, values = (
            nn.functional.embedding(distance_LL, weight)
            for weight in (self.key_of_distance, self.value_of_distance)
        )
        far = torch.einsum("bhid,ijd->bhij", query, keys)
        scores = (query @ key.transpose(-1, -2) + far).masked_fill(barred_B1LL, -1e9)
        attention = scores.softmax(-1)
        found = attention @ value
        found = found + torch.einsum("bhij,ijd->bhid", attention, values)
        x_BLD = x_BLD + self.dropout(self.write(found.transpose(1, 2).reshape(batch, length, dim)))
        return x_BLD + self.dropout(self.narrow(nn.functional.gelu(self.widen(self.before_feed(x_BLD)))))


class SequenceModel(nn.Module):
    """From histories to states; score of item i after a history = state · vector of i.

    `items` holds the vectors that are both read and scored, [n + 1, dim]; row 0 is padding, item i is row i + 1.
    Distances beyond `distances - 1` are read as that.
    """

    def __init__(self, n: int, dim: int, layers: int, heads: int, distances: int, dropout: float):
        super().__init__()
        self.items = nn.Embedding(n + 1, dim, padding_idx=0)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, distances, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.scale = math.sqrt(dim)
        self.distances = distances

    @property
    def vectors_ND(self) -> Tensor:
        """The items' vectors, without padding."""
        return self.items.weight[1:]

    def forward(self, history_BL: Tensor) -> Tensor:
        """States [B, L, dim] of histories of item indexes + 1, padded with 0 on the left.

        The state at a position has read this position and those before it.
        """
        x_BLD = self.dropout(self.items(history_BL) * self.scale)
        at = torch.arange(history_BL.shape[1], device=history_BL.device)
        back = at[:, None] - at[None, :]
        # Padding is read by nobody but itself: a row of attention must not be empty.
        barred = (back < 0) | ((history_BL == 0)[:, None, :] & (back != 0))
        for block in self.blocks:
            x_BLD = block(x_BLD, barred[:, None], back.clamp(0, self.distances - 1))
        return self.norm(x_BLD)
