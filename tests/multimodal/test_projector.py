"""The projector's first lesson on planted pictures."""

import numpy as np
import pytest
import torch

from byway.multimodal.projector import Projector, align

CLUSTERS, WIDTH, HIDDEN = 5, 24, 16


def planted(noise: float, items: int = 200) -> tuple[list[np.ndarray], np.ndarray, torch.Tensor]:
    """Items with one to three pictures that are their cluster's own vector and noise; and the clusters' words."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(CLUSTERS, WIDTH))
    cluster = rng.integers(CLUSTERS, size=items).astype(np.int32)
    pictures = [(own[c] + noise * rng.normal(size=(rng.integers(1, 4), WIDTH))).astype(np.float32) for c in cluster]
    return pictures, cluster, torch.from_numpy(rng.normal(size=(CLUSTERS, HIDDEN)))


def new() -> Projector:
    torch.manual_seed(0)
    return Projector(WIDTH, HIDDEN, 0.1)


def test_pictures_come_to_lie_at_the_words_of_their_cluster() -> None:
    pictures, cluster, names = planted(0.3)
    projector = new()
    right = align(projector, pictures, cluster, names, 30, np.random.default_rng(1))
    assert right == 1.0
    found = projector(torch.from_numpy(np.concatenate(pictures)))
    nearest = (found / found.norm(dim=1, keepdim=True)) @ (names / names.norm(dim=1, keepdim=True)).float().T
    whose = np.repeat(cluster, [len(p) for p in pictures])
    assert (nearest.argmax(1).numpy() == whose).mean() > 0.99
    # They keep the size that the embeddings have, and leave no gradient behind.
    assert found.pow(2).mean().sqrt().item() == pytest.approx(0.1, rel=0.3)
    assert all(p.grad is None for p in projector.parameters())


def test_what_cannot_be_told_apart_is_not_learned_by_heart() -> None:
    pictures, _, names = planted(0.3)
    shuffled = np.random.default_rng(2).integers(CLUSTERS, size=len(pictures)).astype(np.int32)
    apart = []
    for passes in (0, 60):
        projector = new()
        right = align(projector, pictures, shuffled, names, passes, np.random.default_rng(1))
        apart.append(projector(torch.from_numpy(pictures[0])))
    assert right < 0.5
    # The best pass by who was held back is among the first, long before sixty are learned by heart.
    assert not torch.equal(*apart)
    taught = torch.cat([projector(torch.from_numpy(p)) for p in pictures])
    nearest = (taught @ names.float().T).argmax(1).numpy()
    assert (nearest == np.repeat(shuffled, [len(p) for p in pictures])).mean() < 0.6


def test_a_single_item_teaches_nothing_and_fails_nothing() -> None:
    pictures, cluster, names = planted(0.3, items=1)
    projector = new()
    before = projector(torch.from_numpy(pictures[0]))
    assert align(projector, pictures, cluster, names, 3, np.random.default_rng(1)) == 0.0
    assert torch.equal(projector(torch.from_numpy(pictures[0])), before)
