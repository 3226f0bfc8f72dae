"""What turns a picture's vectors into tokens that a language model can read, and its first lesson.

It is taught before the language model reads its first prompt: pictures go where the words of their item's own
cluster lie among the model's embeddings. That takes seconds, since no language model is passed through, and a tenth
of the items, which teaches nothing, says when to stop.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH = 64
"""Items a step."""
RATE = 1e-3
TEMPERATURE = 0.07


class Projector(nn.Module):
    """From a picture's vector to a token's embedding, of the size that the model's own embeddings have."""

    def __init__(self, width: int, hidden: int, size: float):
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.norm = nn.LayerNorm(hidden)
        self.size = size

    def forward(self, vectors: Tensor) -> Tensor:
        return self.norm(self.inner(vectors)) * self.size


def align(
    projector: Projector,
    pictures: list[NDArray[np.float32]],
    cluster: NDArray[np.int32],
    names_MH: Tensor,
    passes: int,
    rng: np.random.Generator,
) -> float:
    """Teach that the pictures of each item ([vectors, width]) lie nearest to its cluster's row of `names_MH`.

    The best pass by the items held back is kept. Returns the share of those whose pictures, taken together, are
    nearest to their own cluster.
    """
    order = rng.permutation(len(pictures))
    held, taught = np.split(order, [max(1, len(order) // 10)])
    names = nn.functional.normalize(names_MH.float(), dim=1)
    optimiser = torch.optim.AdamW(projector.parameters(), lr=RATE, weight_decay=0.05)

    def scored(items: NDArray[np.intp]) -> tuple[Tensor, Tensor, list[int]]:
        """[vectors, M] of all vectors of the items, the cluster of each, and how many an item has."""
        sizes = [len(pictures[i]) for i in items]
        vectors = torch.from_numpy(np.concatenate([pictures[i] for i in items])).to(names.device)
        label = torch.from_numpy(np.repeat(cluster[items], sizes)).long().to(names.device)
        return nn.functional.normalize(projector(vectors), dim=1) @ names.T / TEMPERATURE, label, sizes

    best, right, state = np.inf, 0.0, projector.state_dict()
    for _ in range(passes if len(taught) else 0):
        taught = rng.permutation(taught)
        for start in range(0, len(taught), BATCH):
            scores, label, _ = scored(taught[start : start + BATCH])
            optimiser.zero_grad()
            nn.functional.cross_entropy(scores, label).backward()
            optimiser.step()
        with torch.no_grad():
            scores, label, sizes = scored(held)
            found = nn.functional.cross_entropy(scores, label).item()
            if found < best:
                each = torch.stack([part.log_softmax(1).mean(0).argmax() for part in scores.split(sizes)])
                best, right = found, float((each.cpu().numpy() == cluster[held]).mean())
                state = {name: weight.clone() for name, weight in projector.state_dict().items()}
    projector.load_state_dict(state)
    projector.zero_grad()
    return right
