"""What else could say which interest comes next: scores of every cluster for given contexts.

Each is a function from contexts [N, K] to scores [N, M], made from the training part of the log and tuned, where it
has something to tune, on the validation part. None of them reads a word.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import device
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.curate import Ints, Samples, Transitions

Guess = Callable[[Ints], NDArray[np.floating]]
WIDTH = 64
"""Dimensions of the neural model's interests."""
ROUND, BATCH = 100, 512
"""Steps of the neural model between two evaluations of validation recall, and transitions a step."""
PATIENCE = 5
"""Looks without a better recall after which it ends."""


def popularity(successors: Successors) -> Guess:
    """The same for everybody: how many transitions went there."""
    return lambda context: np.tile(successors.popularity_M, (len(context), 1))


def fair(successors: Successors) -> Guess:
    """Successors over the root of popularity: what is popular anyway counts for less."""
    return lambda context: successors.probability(context) / np.sqrt(successors.popularity_M)


def nearest(similarity_MM: NDArray[np.float64]) -> Guess:
    """The clusters whose items are most alike those of the context: summed cosine of centroids."""
    return lambda context: similarity_MM[context].sum(axis=1)


def found(score_NM: NDArray[np.floating], samples: Samples, k: int = 10) -> float:
    """Recall at k, ties against the label."""
    rank = ranks_of(score_NM, samples)
    return float(np.average(rank < k, weights=samples.count)) if len(samples) else 0.0


class _Next(torch.nn.Module):
    """Scores of the next cluster: each place of the context has vectors of its own, which are added."""

    def __init__(self, history: int, usual_M: NDArray[np.float64]):
        super().__init__()
        M = len(usual_M)
        self.places = torch.nn.ModuleList(torch.nn.Embedding(M, WIDTH) for _ in range(history))
        for place in self.places:
            torch.nn.init.normal_(place.weight, std=0.1)  # pyright: ignore[reportArgumentType]
        self.out = torch.nn.Linear(WIDTH, M)
        self.out.bias.data = torch.from_numpy(np.log(usual_M)).float()

    def forward(self, context_NK: torch.Tensor) -> torch.Tensor:
        return self.out(sum(place(context_NK[:, k]) for k, place in enumerate(self.places)))


def neural(transitions: Transitions, successors: Successors, seed: int) -> Guess:
    """A small neural next-cluster model, trained on every training transition by its count.

    Cross-entropy, AdamW with strong decay (0.5), the weights of the best validation recall at 10.
    """
    some, validation = transitions.train.several(), transitions.validation.several()
    if not len(some):  # a young log, in which nobody had two interests before a third
        some = transitions.train
    at = device.chosen()
    with torch.random.fork_rng():  # layers draw from the global state
        torch.manual_seed(seed)
        model = _Next(some.context.shape[1], successors.popularity_M).to(at)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.5)
    rng = np.random.default_rng(seed)
    log = np.repeat(np.arange(len(some)), some.count)

    @torch.no_grad()
    def guess(context: Ints) -> NDArray[np.float64]:
        return model(torch.from_numpy(context).long().to(at)).softmax(-1).cpu().double().numpy()

    best, weights, since = -1.0, dict[str, torch.Tensor](), 0
    while since < PATIENCE:
        for _ in range(ROUND):
            batch = log[rng.integers(len(log), size=BATCH)]
            scores = model(torch.from_numpy(some.context[batch]).long().to(at))
            label = torch.from_numpy(some.label[batch]).long().to(at)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(scores, label).backward()
            optimiser.step()
        recall, since = found(guess(validation.context), validation), since + 1
        if recall > best:
            best, since = recall, 0
            weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(weights)
    return guess
