"""What the sequence model trains on, in which order, and what is held out from it.

Every user's events are one sequence. A window is a stretch of it of at most `history` labels; each label is the
event after an input. Order and cuts are functions of a seed and the epoch, so that a run can go on anywhere. This
module knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.data.events import Events

Ints = NDArray[np.int64]

TAIL = 0.25
"""Last share of somebody's events from which something is held out."""
POOL = 32
"""Windows of about this many batches are sorted by length together: little padding (1.1 on MicroLens), and still
other company for a user in every epoch."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One event each of some users; training sees neither it nor anything after it."""

    user: Ints
    """[U], ascending."""
    at: Ints
    """[U] row of the held-out event in the log."""


def hold_out(events: Events, share: float, rng: np.random.Generator) -> HeldOut:
    """Draw `share` of the users who have something to hold out: of their last events, `TAIL` of all, the first
    high-quality one with an item new to them, or the last such one where it is earlier.

    An item that the user has met is no candidate for a recommendation, so it is no question either. What follows
    it is held out as well, so that others can ask what people turned to next that was new to them.
    """
    met = events.user.astype(np.int64) * events.n_items + events.item
    first = np.zeros(len(events), dtype=bool)
    first[np.unique(met, return_index=True)[1]] = True
    start = events.starts()
    number = np.diff(start)
    place = np.arange(len(events)) - start[events.user]
    possible = np.flatnonzero(first & (place > 0) & events.good())
    late = place[possible] >= (1 - TAIL) * number[events.user[possible]]
    ending = np.diff(events.user[possible], append=-1) != 0
    some = possible[late | ending]
    opening = some[np.diff(events.user[some], prepend=-1) != 0]
    chosen = np.sort(rng.choice(len(opening), round(share * len(opening)), replace=False))
    return HeldOut(events.user[opening[chosen]].astype(np.int64), opening[chosen])


@dataclass(frozen=True, slots=True)
class Sequences:
    """The log that training may see: each user's events up to the held-out one."""

    item: NDArray[np.int32]
    """[N] all events of the log, users one after the other."""
    reward: NDArray[np.float32]
    """[N] satisfaction of a high-quality event, else 0."""
    start: Ints
    """[n_users] first row of each user."""
    stop: Ints
    """[n_users] one past the last row that training sees."""
    n_items: int
    marked: NDArray[np.bool_] | None = None
    """[N] events that a model is to read as marked: as item + `n_items`. None marks none."""

    def label_counts(self) -> Ints:
        """[n_users] events of each user that training predicts: all that it sees but the first."""
        return np.maximum(self.stop - self.start - 1, 0)

    def seen(self) -> NDArray[np.bool_]:
        """Which events training sees, [N]."""
        edge = np.zeros(len(self.item) + 1, dtype=np.int64)
        np.add.at(edge, self.start, 1)
        np.add.at(edge, self.stop, -1)
        return np.cumsum(edge[:-1]) > 0

    def frequency(self) -> Ints:
        """How often training sees each item, [n_items]."""
        return np.bincount(self.item[self.seen()], minlength=self.n_items)


def sequences(events: Events, heldout: HeldOut) -> Sequences:
    """The log without the held-out events and what came after them."""
    edges = events.starts()
    start, stop = edges[:-1], edges[1:].copy()
    stop[heldout.user] = heldout.at
    reward = np.where(events.good(), events.satisfaction, np.float32(0))
    return Sequences(events.item, reward, start, stop, events.n_items)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one step, padded on the left."""

    history: Ints
    """[B, L] item indexes + 1; 0 is padding. Of marked events `n_items` more."""
    label: Ints
    """[T] the item after each input that is not padding, row by row."""
    reward: NDArray[np.float32]
    """[T] its reward."""


def cut(log: Sequences, history: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Windows that hold every label once: the row of each one's first input, and how many labels follow.

    A sequence of more than `history` labels is cut at a random phase, so that over the epochs each label is met
    with histories of all lengths.
    """
    labels = log.label_counts()
    shift = np.where(labels > history, rng.integers(history, size=len(labels)), 0)
    pieces = -(-(labels + shift) // history) * (labels > 0)
    user = np.repeat(np.arange(len(labels)), pieces)
    piece = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    low = np.maximum(piece * history - shift[user], 0)
    high = np.minimum((piece + 1) * history - shift[user], labels[user])
    return log.start[user] + low, high - low


def batches(log: Sequences, history: int, size: int, seed: int, epoch: int) -> list[tuple[Ints, Ints]]:
    """The batches of an epoch in order, each about `size` labels: rows of first inputs, and numbers of labels."""
    rng = np.random.default_rng([seed, epoch])
    first, length = cut(log, history, rng)
    order = rng.permutation(len(first))
    pool = np.cumsum(length[order]) // (POOL * size)
    order = order[np.lexsort((length[order], pool))]
    edges = np.flatnonzero(np.diff(np.cumsum(length[order]) // size)) + 1
    parts = [part for part in np.split(order, edges) if len(part)]
    return [(first[parts[i]], length[parts[i]]) for i in rng.permutation(len(parts))]


def assemble(log: Sequences, first: Ints, length: Ints) -> Batch:
    """Windows as one padded batch."""
    column = np.arange(length.max()) - (length.max() - length)[:, None]
    row = first[:, None] + column
    inside = column >= 0
    history = np.where(inside, log.item[np.where(inside, row, 0)].astype(np.int64) + 1, 0)
    if log.marked is not None:
        history[inside] += log.n_items * log.marked[row[inside]]
    label = row[inside] + 1
    return Batch(history, log.item[label].astype(np.int64), log.reward[label])


@dataclass(frozen=True, slots=True)
class Questions:
    """Some held-out users: what came before, and what came next."""

    history: Ints
    """[B, history] item indexes + 1, padded with 0 on the left."""
    target: Ints
    """[B] the held-out item."""
    met: tuple[Ints, Ints]
    """Pairs (row of this chunk, item) that the users have met: no candidates."""


def questions(events: Events, heldout: HeldOut, history: int, size: int) -> Iterator[Questions]:
    """The held-out users, `size` at a time."""
    start = np.searchsorted(events.user, heldout.user)
    for low in range(0, len(heldout.at), size):
        at, begin = heldout.at[low : low + size], start[low : low + size]
        row = at[:, None] - np.arange(history, 0, -1)
        inside = row >= begin[:, None]
        recent = np.where(inside, events.item[np.where(inside, row, 0)].astype(np.int64) + 1, 0)
        known = at - begin
        who = np.repeat(np.arange(len(at)), known)
        met = np.arange(len(who)) - np.repeat(np.cumsum(known) - known, known) + begin[who]
        yield Questions(recent, events.item[at].astype(np.int64), (who, events.item[met].astype(np.int64)))
