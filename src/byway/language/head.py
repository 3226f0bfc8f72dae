"""The output layer of a model that is being taught names: only the rows of their tokens are learned.

A whole output layer has a row for each of the vocabulary's tokens (49,152 of 576 numbers in the shipped model). Its
dense gradient is 113 MB a pass, and only the few tokens that spell names have anything to learn. Where none of it
learns, a name that begins with a rare token is hardly ever said: the layers below can bring a hidden state nearer
to a token's row, but cannot change the row.

It knows tokens; it does not know prompts, tries or losses.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


class NamesHead(torch.nn.Module):
    """Stands in for a linear output layer without bias while its rows of some tokens are learned."""

    whole_VH: Tensor
    tokens: Tensor
    place_V: Tensor

    def __init__(self, whole_VH: Tensor, tokens: list[int]):
        super().__init__()
        at = whole_VH.device
        chosen = torch.tensor(tokens, device=at)
        self.rows = torch.nn.Parameter(whole_VH.detach()[chosen].clone())
        # Beyond the last row: a token that is not learned.
        place_V = torch.full((len(whole_VH),), len(tokens), device=at)
        place_V[chosen] = torch.arange(len(tokens), device=at)
        for name, tensor in (("whole_VH", whole_VH.detach()), ("tokens", chosen), ("place_V", place_V)):
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores [..., V] of the whole vocabulary for hidden states [..., H]."""
        return linear(hidden, self.whole_VH).index_copy_(-1, self.tokens, linear(hidden, self.rows))

    def of(self, tokens: Tensor) -> Tensor:
        """[tokens, H] the rows of tokens that are learned; IndexError where one is not."""
        return self.rows[self.place_V[tokens]]

    @torch.no_grad()
    def whole(self) -> Tensor:
        """[V, H] the weight of the whole layer as it is now."""
        return self.whole_VH.index_copy(0, self.tokens, self.rows)


def learn(model: Any, answers: list[list[int]]) -> None:
    """Freeze the embedding table and the output layer of `model`, but for the output's rows of the answers' tokens.

    Input is read as before: where output and input share one table, the rows that are learned are copies.
    """
    model.get_input_embeddings().weight.requires_grad_(False)
    whole_VH = model.get_output_embeddings().weight
    model.set_output_embeddings(NamesHead(whole_VH, sorted({t for answer in answers for t in answer})))


def settle(model: Any) -> None:
    """Put a plain output layer of the model's own in the place of the one that was learned."""
    weight = model.get_output_embeddings().whole()
    plain = torch.nn.Linear(*weight.T.shape, bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight)
    model.set_output_embeddings(plain)
    for of in (model.config, model.config.get_text_config()):
        of.tie_word_embeddings = False
