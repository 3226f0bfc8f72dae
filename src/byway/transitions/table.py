"""08-transition-table as it is read: what comes next after every pair of interests, and after people's triples."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.transitions.curate import Ints, Transitions
from byway.transitions.signals import TableWeights
from byway.transitions.triples import Triples


@dataclass(frozen=True, slots=True)
class Table:
    """For every (C1, C2), the best novel clusters, best first; -1 where fewer are legal."""

    clusters: NDArray[np.int32]
    """[M, M, n] what is served."""
    scores: NDArray[np.float32]
    """[M, M, n] log-probability, up to a constant a pair."""
    model: NDArray[np.int32]
    """[M, M, m] the fine-tuned model alone; m is how many are kept, at most n."""
    triples: Triples | None = None
    """The triples that users have, where K is 3; `triples.look_up` reads both."""
    model_triples: Triples | None = None
    """The fine-tuned model alone."""
    fitted: TableWeights = field(default_factory=lambda: TableWeights({}))
    """How its rankings were made."""

    def answered_anew(self, context_NK: Ints, ranking_Nn: Ints) -> "Table":
        """The table with new rankings [N, n] of some contexts [N, K] in it."""
        clusters, triple = np.array(self.clusters), are_triples(context_NK)
        clusters[context_NK[~triple, -2:-1].ravel(), context_NK[~triple, -1]] = ranking_Nn[~triple]
        if self.triples is None or not triple.any():
            return replace(self, clusters=clusters)
        own = np.array(self.triples.clusters)
        own[self.triples.rows(context_NK[triple], len(clusters))] = ranking_Nn[triple, : own.shape[1]]
        return replace(self, clusters=clusters, triples=replace(self.triples, clusters=own))


def are_triples(context_NK: Ints) -> NDArray[np.bool_]:
    """[N] which contexts are of three interests: beside them a pair (C1, C2) stands as (C1, C1, C2).

    >>> are_triples(np.array([[1, 2, 3], [1, 1, 3]], np.int32)).tolist()
    [True, False]
    """
    return context_NK[:, 0] != context_NK[:, -2] if context_NK.shape[1] == 3 else np.zeros(len(context_NK), bool)


def load(path: Path) -> Table:
    """Read 08-transition-table, memory-mapped."""

    def mapped(name: str) -> NDArray[Any]:
        return np.load(path / f"{name}.npy", mmap_mode="r")

    fitted = msgspec.json.decode((path / "fitted.json").read_bytes(), type=TableWeights)
    table = Table(mapped("clusters"), mapped("scores"), mapped("model"), fitted=fitted)
    if not (path / "triple_keys.npy").exists():
        return table
    keys = mapped("triple_keys")
    served, own = Triples(keys, mapped("triple_clusters")), Triples(keys, mapped("triple_model"))
    return replace(table, triples=served, model_triples=own)


def triples_of(transitions: Transitions, most: int) -> Ints | None:
    """[T, 3] the triples of different interests that the training log shows, at most so many, the most frequent
    ones, in order; None where K is not 3."""
    if transitions.train.context.shape[1] != 3:
        return None
    several = transitions.train.several()
    contexts, row = np.unique(several.context, axis=0, return_inverse=True)
    frequency = np.bincount(row.reshape(-1), several.count, len(contexts))
    return contexts[np.sort(np.argsort(-frequency, kind="stable")[:most])]
