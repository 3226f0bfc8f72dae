"""Where a log leaves its users: what they have touched, and what they enjoyed last.

That is all that the transitions of later events depend on, so a refresh does not read the old log again. Users are
independent, and a log is looked at in parts of whole users. This module knows no transitions: `curate` finds them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byway.data.events import Events

Ints = NDArray[np.int32]
CHUNK = 1 << 22
"""Events that are looked at together: about 0.6 GB."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a log leaves its users: all that the transitions of later events depend on."""

    starts: NDArray[np.int64]
    """[users + 1]: user u has touched the clusters `touched[starts[u]:starts[u + 1]]`."""
    touched: Ints
    """Clusters of events of any quality, ascending within a user."""
    recent: Ints
    """[users, K]: the unique clusters most recently enjoyed, the most recent last; -1 where there are fewer."""

    def write(self, out: Path) -> None:
        """Write `user-starts.npy`, `user-touched.npy` and `user-recent.npy`."""
        for name in ("starts", "touched", "recent"):
            np.save(out / f"user-{name}.npy", getattr(self, name))


def load_standing(path: Path) -> Standing:
    """Where the log of 06-transitions, or of a refresh, leaves its users; memory-mapped."""
    return Standing(
        *(np.load(path / f"user-{name}.npy", mmap_mode="r") for name in ("starts", "touched", "recent"))
    )


def where_users_stand(
    events: Events, cluster_of: Ints, clusters: int, history: int, chunk: int = CHUNK
) -> Standing:
    """What every user of the log has touched, and the last `history` unique clusters that they enjoyed."""
    touched_by = np.zeros(events.n_users + 1, np.int64)
    touched: list[Ints] = []
    recent = np.full((events.n_users, history), -1, np.int32)
    for part in by_users(events, chunk):
        cluster = cluster_of[part.item].astype(np.int64)
        key = np.unique(part.user.astype(np.int64) * clusters + cluster)
        touched_by[1:] += np.bincount(key // clusters, minlength=events.n_users)
        touched.append((key % clusters).astype(np.int32))
        good = part.good()
        user, cluster = part.user[good], cluster[good]
        if not len(user):
            continue
        start = np.flatnonzero(np.diff(user, prepend=-1))
        end = np.append(start[1:], len(user))
        # From the place after the end of each user's events back.
        recent[user[start]] = most_recent(cluster, start, end, history)
    return Standing(np.cumsum(touched_by), np.concatenate(touched), recent)


def by_users(events: Events, size: int) -> Iterator[Events]:
    """The log in parts of about `size` events, none of which parts a user; one part at least."""
    start = 0
    while start == 0 or start < len(events):
        stop = len(events)
        if start + size < stop:
            last = events.user[start + size - 1]
            stop = start + size + int(np.searchsorted(events.user[start + size :], last, side="right"))
        columns = {name: getattr(events, name)[start:stop] for name in ("user", "item", "time", "satisfaction")}
        yield replace(events, **columns)
        start = max(stop, 1)


def most_recent(
    cluster: NDArray[np.int64], begins: NDArray[np.intp], at: NDArray[np.intp], history: int
) -> NDArray[np.int64]:
    """[at, history] the last different clusters before each position `at`; -1 where none is left.

    `begins` [at] is where the same user's runs begin. All positions walk back together: a step looks one run
    further back and keeps what it has not seen.
    """
    context = np.full((len(at), history), -1, dtype=np.int64)
    pointer = at.copy()
    for k in range(history - 1, -1, -1):
        pointer = pointer - 1
        while True:
            inside = pointer >= begins
            known = (context[:, k + 1 :] == cluster[np.maximum(pointer, 0)][:, None]).any(axis=1)
            repeat = inside & known
            if not repeat.any():
                break
            pointer = np.where(repeat, pointer - 1, pointer)
        context[:, k] = np.where(inside, cluster[np.maximum(pointer, 0)], -1)
    return context
