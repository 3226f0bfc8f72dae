"""The two-tower model of paper 1's reference [35] (Yang et al., WWW 2020): a user vector and an item vector.

The user's tower reads the mean of the items so far, the item's tower an embedding of its own and its content; the
score is their product. The mixed negatives that it is trained with are in `softmax.draw`. Tensors only.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from byway.base.device import Dropout


class TwoTower(nn.Module):
    """From histories of items + 1 [B, L] to states [B, L, dim]; `vectors_ND` are the items' vectors."""

    def __init__(self, content_NW: NDArray[np.float32], dim: int, dropout: float):
        super().__init__()
        n, width = content_NW.shape
        self.register_buffer("content", torch.tensor(content_NW), persistent=False)
        self.own = nn.Embedding(n, dim, _weight=torch.zeros(n, dim))
        self.look = nn.Linear(width, dim, bias=False)
        self.user = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), Dropout(dropout), nn.Linear(2 * dim, dim))
        self.scale = math.sqrt(dim)

    @property
    def vectors_ND(self) -> Tensor:
        """The item tower's output for every item."""
        content = self.content
        assert isinstance(content, Tensor)
        return self.own.weight + self.look(content)

    def forward(self, history_BL: Tensor) -> Tensor:
        """The state at a position has read this position and those before it."""
        vectors = torch.cat([torch.zeros_like(self.own.weight[:1]), self.vectors_ND])
        there = (history_BL > 0).float().cumsum(1).clamp(min=1)
        return self.user(vectors[history_BL].cumsum(1) / there[:, :, None] * self.scale)
