"""What the multimodal model is shown and asked, and what it answers: one protocol for both of its kinds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from byway.base import config
from byway.data import media
from byway.data.catalog import Catalog
from byway.data.media import Media
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.multimodal.curate import DELTA, Pairs
from byway.multimodal.prompts import Item, Kind

Ints = NDArray[np.int32]
Follows = Callable[[Ints], NDArray[np.float32]]
"""[N, clusters] what the log says is likely to please after each of N items (`curate.posterior`)."""


LONGEST_THOUGHT = 80
"""Tokens after which a thought is cut off."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """What can be known of every item of the catalog as a context video."""

    names: list[str]
    """Descriptions of the clusters of level l: the legal answers."""
    parents: list[str]
    """Descriptions of the clusters of level l - δ."""
    cluster: Ints
    """[n] cluster of each item at level l."""
    parent: Ints
    """[n] cluster of each item at level l - δ."""
    titles: list[str]
    hashtags: list[list[str]]
    seen: Media
    row: Ints
    """[n] row of each item in `seen`, or -1."""
    picks: NDArray[np.intp]
    """[m, k] which of its pictures stand for each row."""
    there: NDArray[np.bool_]
    """[m, k] whether they are there."""
    fresh: Ints
    """Items that training does not see."""

    def item(self, i: int) -> Item:
        """What may be said of item i."""
        tags = tuple(self.hashtags[i] or ())
        name, parent = self.names[self.cluster[i]], self.parents[self.parent[i]]
        said = self.seen.captions and self.row[i] >= 0
        return Item(self.titles[i] or "", tags, name, parent, self.seen.captions[self.row[i]] if said else "")

    def pictures(self, i: int) -> NDArray[np.float32]:
        """[pictures * P * P, width] of item i, which must have been seen."""
        r = int(self.row[i])
        chosen = self.picks[r][self.there[r]]
        return self.seen.pictures[r][chosen].astype(np.float32).reshape(-1, self.seen.pictures.shape[-1])


def contexts(
    settings: config.MultimodalModel,
    pairs: Pairs,
    catalog: Catalog,
    tree: Tree,
    descriptions: Descriptions,
    seen: Media,
    *,
    frames: int | None = None,
) -> Contexts:
    """Join what is known of the items; of a video so many `frames` are shown, or all that were kept."""
    picks, there = media.picked(seen, settings.pictures, frames or seen.frames)
    level, above = pairs.level, pairs.level - DELTA
    return Contexts(
        names=descriptions.names[level - 1],
        parents=descriptions.names[above - 1],
        cluster=tree.assign(level),
        parent=tree.assign(above),
        titles=catalog.items["title"].to_pylist(),
        hashtags=catalog.items["hashtags"].to_pylist(),
        seen=seen,
        row=seen.row(len(catalog)),
        picks=picks,
        there=there,
        fresh=np.unique(pairs.fresh.item),
    )


def serendipitous(asked: Contexts, items: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[N, M] the other clusters of each item's wider one: a surprise by the paper's word (paper 2, section 2)."""
    of_name = np.full(len(asked.names), -1)
    of_name[asked.cluster] = asked.parent
    return (of_name == asked.parent[items][:, None]) & ~own(asked, items)


def own(asked: Contexts, items: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[N, M] the items' own clusters, which are no surprise."""
    excluded = np.zeros((len(items), len(asked.names)), np.bool_)
    excluded[np.arange(len(items)), asked.cluster[items]] = True
    return excluded


@dataclass(frozen=True, slots=True)
class Best:
    """Answers to N prompts."""

    clusters: Ints
    """[N, n] the best legal clusters, best first; -1 where fewer are left."""
    scores: NDArray[np.float32]
    """[N, n] their log-probabilities among the legal names."""
    thoughts: list[str]
    """[N] what the model said before, where the prompt makes it think."""
    free: list[str] | None
    """[N] what it answers greedily without the trie, empty where it never ends; None where that was not asked."""


class VisionLanguageModel(Protocol):
    """A model that is shown videos."""

    def loss(
        self, kind: Kind, items: list[int], target_NM: NDArray[np.float32], labels: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Nats a token of what is to be said (thought and answer); nats a sample of the choices of names.

        What is chosen first is taught by `target_NM`, whose rows sum to 1, for every item; of the first items, as
        many as there are labels, it is also taught to say the label's name, and before it the thought.
        """
        ...

    def best(
        self, kind: Kind, items: list[int], n: int, excluded_NM: NDArray[np.bool_], free: bool = False
    ) -> Best:
        """The n best legal clusters for each item, but for the excluded ones, and free answers where asked."""
        ...

    def trained(self) -> nn.Module:
        """What is trained: its parameters that require gradients."""
        ...

    def save(self, out: Path) -> None:
        """Write what `open_model` reads."""
        ...
