"""What every source of candidates is given, and what it answers.

A source learns every night from the log and names items for those who come. It gets nothing else: no taste, no
affinity, no state of mind. All of them pass one conformance suite (`tests/simulation/test_arms.py`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from byway.base.ranking import best_first

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

NONE = -1
"""Stands where there is no item or no cluster."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of N items and M clusters before anybody comes."""

    vectors: Floats
    """[N, w] unit rows: content."""
    cluster: Ints
    """[N] cluster of each item at the planning level."""
    ancestors: tuple[Ints, ...]
    """[M] each, one at least: the node that holds each cluster, level by level from below the root to above the
    clusters; all 0 where there is no level between."""
    positive: float = 0.5
    """Satisfaction from which feedback is positive."""

    @property
    def n_items(self) -> int:
        return len(self.cluster)

    @property
    def n_clusters(self) -> int:
        return len(self.ancestors[-1])


@dataclass(frozen=True, slots=True)
class Logged:
    """All that happened so far, in order of arrival. Days before the experiment are below 0."""

    user: Ints
    item: Ints
    satisfaction: Floats
    day: Ints
    n_users: int

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Asked:
    """The B users who come now, as the log shows them."""

    user: Ints
    history: Ints
    """[B, H] item indexes + 1, the most recent last, 0 before the first."""
    satisfaction: Floats
    """[B, H] of each item of the history."""
    day: Ints
    """[B, H] of each item of the history."""
    today: int
    seen: Flags
    """[B, N] items that are not to be shown: seen already, or not there."""
    met: Flags
    """[B, M] clusters of which the user has consumed something, ever."""

    def __len__(self) -> int:
        return len(self.user)


class Source(Protocol):
    """A source of candidates."""

    def learn(self, log: Logged, today: int) -> None:
        """Take in the log as it stands on the morning of `today`."""
        ...

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        """[B, k] items, best first, none of them seen, no item twice a row; NONE where no more are found."""
        ...


def best(scores_BN: Floats, k: int) -> Ints:
    """The k best columns of each row, best first; NONE where the score is -inf. Equal scores: the first column."""
    k_here = min(k, scores_BN.shape[1])
    if not k_here:
        return np.full((len(scores_BN), k), NONE)
    found = best_first(scores_BN.astype(np.float32, copy=False), k_here)
    found[np.take_along_axis(scores_BN, found, 1) == -np.inf] = NONE
    if k_here == k:
        return found
    return np.pad(found, ((0, 0), (0, k - k_here)), constant_values=NONE)


def open_clusters(known: Known, asked: Asked, novel: bool) -> Flags:
    """[B, M] clusters with an item left to show; with `novel` those that the user has met are out."""
    left = np.zeros((len(asked), known.n_clusters), np.bool_)
    order = np.argsort(known.cluster, kind="stable")
    present, start = np.unique(known.cluster[order], return_index=True)
    if len(asked):
        left[:, present] = np.logical_or.reduceat(~asked.seen[:, order], start, axis=1)
    return left & ~asked.met if novel else left


def by_user(log: Logged) -> tuple[Ints, Ints]:
    """The rows of the log user by user, in order of arrival; and where each user's rows start, [n_users + 1]."""
    order = np.argsort(log.user, kind="stable")
    return order, np.searchsorted(log.user[order], np.arange(log.n_users + 1))


def first_meetings(known: Known, log: Logged) -> Flags:
    """[events] whether the event is the first of its user in its cluster: a novel one."""
    pair = log.user * known.n_clusters + known.cluster[log.item]
    first = np.zeros(len(log), np.bool_)
    first[np.unique(pair, return_index=True)[1]] = True
    return first
