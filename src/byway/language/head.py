"""The output layer of a model that is being taught names: only the rows of their tokens are learned.

A whole output layer has a row for each of the vocabulary's tokens (49,152 by 576 in the shipped model), and its
gradient costs as much as the rest of a step, but only the few tokens that spell names have anything to learn. Left
as they are, a name that begins with a rare token is hardly ever said: what stands below can turn towards a row, but
not lift it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from byway.errors import UserError


class NamesHead(torch.nn.Module):
    """Stands in for a linear output layer without bias while its rows of some tokens are learned."""

    def __init__(self, whole_VH: Tensor, tokens: list[int]):
        super().__init__()
        self.whole_VH = whole_VH.detach()
        self.rows = torch.nn.Parameter(self.whole_VH[torch.tensor(tokens)].clone())
        self.tokens = torch.tensor(tokens)
        self.place_V = torch.full((len(whole_VH),), -1)
        self.place_V[self.tokens] = torch.arange(len(tokens))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores [..., V] of the whole vocabulary for hidden states [..., H]."""
        return linear(hidden, self.whole_VH).index_copy(-1, self.tokens, linear(hidden, self.rows))

    def of(self, tokens: Tensor) -> Tensor:
        """[tokens, H] the rows of tokens that are learned."""
        return self.rows[self.place_V[tokens]]

    @torch.no_grad()
    def weight(self) -> Tensor:
        """[V, H] the whole layer as it is now."""
        return self.whole_VH.index_copy(0, self.tokens, self.rows)


def learn(model: Any, answers: list[list[int]]) -> None:
    """Freeze the embedding table and the output layer of `model`, but for the output's rows of the answers' tokens.

    Words keep the meaning that they have for who reads them: where both layers share one table, only what is said
    has rows of its own.
    """
    model.get_input_embeddings().weight.requires_grad_(False)
    plain = model.get_output_embeddings()
    if getattr(plain, "bias", None) is not None:
        raise UserError(
            "language_model.model has a bias in its output layer, which Byway does not know: give another."
        )
    head = NamesHead(plain.weight, sorted({t for answer in answers for t in answer}))
    model.set_output_embeddings(head)


def settle(model: Any) -> None:
    """Put a plain output layer in the place of the one that was learned."""
    weight = model.get_output_embeddings().weight()
    plain = torch.nn.Linear(*weight.T.shape, bias=False, dtype=weight.dtype)
    plain.weight = torch.nn.Parameter(weight)
    model.set_output_embeddings(plain)
    model.config.tie_word_embeddings = False
