"""What turns a video's pictures into tokens that a language model can read, and its first lesson.

An item is shown as two tokens of all its pictures together and one of each. The lesson is given before the
language model reads its first prompt: the first token learns to point where the words of the item's own cluster lie
among the model's embeddings, the second where those of the clusters lie that pleased next. Both are linear maps of
vectors on their main axes, so that a thousand items are enough, and seconds: no language model is passed through. A
tenth of the items, which teaches nothing, says when to stop.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

AXES = 64
"""Main axes that are read; of more, a thousand items teach nothing that holds for others."""
BATCH = 64
"""Items a step."""
RATE = 1e-3
TEMPERATURE = 0.2
MOST = 20_000
"""Items of which the lesson is drawn."""


class Projector(nn.Module):
    """From pictures' vectors to tokens, of the size that the model's own embeddings have."""

    mean: Tensor
    basis: Tensor
    centre: Tensor

    def __init__(self, width: int, hidden: int, size: float):
        super().__init__()
        self.about, self.follows = nn.Linear(AXES, hidden), nn.Linear(AXES, hidden)
        self.size = size
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.nn.init.orthogonal_(torch.empty(width, AXES)))
        self.register_buffer("centre", torch.zeros(hidden))

    def forward(self, vectors: Tensor, sizes: list[int]) -> list[Tensor]:
        """Of the pictures [sum of sizes, width] of items one after the other: [2 + size, hidden] of each."""
        each = self.placed(vectors)
        whole = torch.stack([part.mean(0) for part in each.split(sizes)])
        about, follows, parts = self.token(self.about(whole)), self.token(self.follows(whole)), self.about(each)
        return [
            torch.cat([about[i : i + 1], follows[i : i + 1], own])
            for i, own in enumerate(self.token(parts).split(sizes))
        ]

    def placed(self, vectors: Tensor) -> Tensor:
        """[n, AXES] vectors on the main axes of what items differ in; items' variance on one is 1 in the mean."""
        return (vectors.float() - self.mean) @ self.basis

    def token(self, pointed: Tensor) -> Tensor:
        """A direction from the middle of all names, as an embedding."""
        return self.centre + nn.functional.normalize(pointed, dim=-1) * self.size * pointed.shape[-1] ** 0.5

    def look(self, means: NDArray[np.float32]) -> None:
        """Take the main axes of items' mean vectors [items, width]; one item alone has none."""
        if len(means) < 2:
            return
        mean = means.mean(0, dtype=np.float64)
        apart = means - mean
        spread = np.maximum(apart.std(0), 1e-6)
        value, axis = np.linalg.eigh(np.cov(apart / spread, rowvar=False).reshape(len(spread), -1))
        n = min(AXES, len(spread))
        basis = np.zeros((len(spread), AXES))
        basis[:, :n] = axis[:, ::-1][:, :n] / spread[:, None] / np.sqrt(max(value[-n:].mean(), 1e-12))
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(basis))


def teach(
    projector: Projector,
    means: NDArray[np.float32],
    cluster: NDArray[np.int32],
    next_NM: NDArray[np.float32],
    names_MH: Tensor,
    *,
    passes: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The first lesson of a projector that knows the axes (`look`).

    It is from each item's mean vector [items, width], its cluster, and what pleased next.

    Rows of `next_NM` sum to 1, or to 0 where nothing is known; a cluster at 0 is no answer. Returns of the items
    held back the share that points to its own cluster, and the share that points to the likeliest next.
    """
    if len(means) > MOST:
        some = np.sort(rng.choice(len(means), MOST, replace=False))
        means, cluster, next_NM = means[some], cluster[some], next_NM[some]
    if len(means) < 2:
        return 0.0, 0.0
    projector.centre.copy_(names_MH.float().mean(0))
    x = projector.placed(torch.from_numpy(means).to(projector.mean.device))
    own_NM = np.eye(len(names_MH), dtype=np.float32)[cluster]
    all_NM = np.ones_like(own_NM)
    order = rng.permutation(len(means))
    names = nn.functional.normalize(names_MH.float() - projector.centre, dim=1)
    some = order[next_NM[order].sum(1) > 0]
    shares = [
        _learn(projector.about, x, own_NM, all_NM, names, items=order, passes=passes, rng=rng),
        _learn(projector.follows, x, next_NM, next_NM, names, items=some, passes=passes, rng=rng),
    ]
    projector.zero_grad()
    return shares[0], shares[1]


def _learn(
    linear: nn.Linear,
    x: Tensor,
    target_NM: NDArray[np.float32],
    open_NM: NDArray[np.float32],
    names: Tensor,
    *,
    items: NDArray[np.intp],
    passes: int,
    rng: np.random.Generator,
) -> float:
    """Teach one token to tell the target's names from all that are open, where `open_NM` is above 0.

    A tenth of the items is held back, and the best pass by them is kept; returns the share of them whose best name
    is the target's.
    """
    held, taught = np.split(items, [max(1, len(items) // 10)])
    optimiser = torch.optim.AdamW(linear.parameters(), lr=RATE, weight_decay=0.05)
    target, shut = (torch.from_numpy(each).to(x.device) for each in (target_NM, open_NM <= 0))

    def scored(some: NDArray[np.intp]) -> Tensor:
        near = nn.functional.normalize(linear(x[some]), dim=1) @ names.T / TEMPERATURE
        return near.masked_fill(shut[some], -1e4)

    best, right, state = np.inf, 0.0, linear.state_dict()
    for n in range(passes + 1 if len(taught) else 0):
        with torch.no_grad():
            scores = scored(held)
            found = nn.functional.cross_entropy(scores, target[held]).item()
            if found < best:
                best, right = found, float((scores.argmax(1) == target[held].argmax(1)).float().mean())
                state = {name: weight.clone() for name, weight in linear.state_dict().items()}
        taught = rng.permutation(taught)
        for start in range(0, len(taught) if n < passes else 0, BATCH):
            some = taught[start : start + BATCH]
            optimiser.zero_grad()
            nn.functional.cross_entropy(scored(some), target[some]).backward()
            optimiser.step()
    linear.load_state_dict(state)
    return right
