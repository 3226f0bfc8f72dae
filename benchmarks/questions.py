"""What `sequence.py` asks of every model, and how answers are ranked.

Owns the split, the two questions, the ranking and the files between processes. It needs numpy alone, so that the
environment of a peer can import it, and knows no model: a model is a function from rows of the log, each a held-out
event, to scores of all items.

Of some people two events are held out: the last one they liked of an item that they had not met (`item`), and the
last one they liked of a cluster that they had not met (`cluster`). Training sees these people up to the earlier of
the two, a question all that is before its event. What was met is no candidate: items, or whole clusters. People for
validation are others than those for the test.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Score = Callable[[Ints], Floats]
"""From rows of held-out events [B] to scores of all items [B, n_items], which the caller may write to."""

KINDS = ("item", "cluster")
PLACES = (10, 50)
SCORES = 1 << 23
"""Scores that are ranked at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Split:
    """A log, what training sees of it, and the held-out events."""

    user: Ints
    """[N] ascending, each user's events in their order."""
    item: Ints
    """[N]"""
    satisfaction: Floats
    """[N]"""
    good: NDArray[np.bool_]
    """[N] whether it was a high-quality interaction."""
    start: Ints
    """[n_users] first row of each user."""
    stop: Ints
    """[n_users] one past the last row that training sees."""
    cluster: Ints
    """[n_items] the planning level's."""
    vectors: Floats
    """[n_items, width] of their content."""
    validation_item: Ints
    """[V] rows of held-out events; so are the next three."""
    validation_cluster: Ints
    test_item: Ints
    test_cluster: Ints

    @property
    def n_items(self) -> int:
        return len(self.cluster)

    def rows(self, liked: bool) -> Ints:
        """What training sees, or the liked events of it."""
        edge = np.zeros(len(self.item) + 1, np.int64)
        np.add.at(edge, self.start, 1)
        np.add.at(edge, self.stop, -1)
        seen = np.cumsum(edge[:-1]) > 0
        return np.flatnonzero(seen & self.good if liked else seen)

    def before(self, at: Ints, liked: bool) -> tuple[Ints, Ints, Ints]:
        """The log's rows, or the liked ones, and of each event the first and one past the last before it."""
        rows = np.flatnonzero(self.good) if liked else np.arange(len(self.item))
        return rows, np.searchsorted(rows, self.start[self.user[at]]), np.searchsorted(rows, at)

    def history(self, at: Ints, length: int, liked: bool) -> Ints:
        """[B, length] item indexes + 1 before each event, padded with 0 on the left."""
        rows, low, high = self.before(at, liked)
        place = high[:, None] - np.arange(length, 0, -1)
        return np.where(place >= low[:, None], self.item[rows[np.maximum(place, 0)]] + 1, 0)

    def pairs(self, at: Ints, liked: bool) -> tuple[Ints, Ints]:
        """(place in `at`, item) of all that is before each event, one pair an event."""
        rows, low, high = self.before(at, liked)
        who = np.repeat(np.arange(len(at)), high - low)
        place = np.arange(len(who)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[who]
        return who, self.item[rows[place]]

    def closed(self, at: Ints, kind: str) -> NDArray[np.bool_]:
        """[B, n_items] what is no candidate, since the person has met it, or its cluster."""
        who, item = self.pairs(at, liked=False)
        met = np.zeros((len(at), self.n_items), bool)
        met[who, item] = True
        if kind == "cluster":
            known = np.zeros((len(at), int(self.cluster.max()) + 1), bool)
            known[who, self.cluster[item]] = True
            met = known[:, self.cluster]
        return met

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "split.npz", **{field.name: getattr(self, field.name) for field in fields(self)})


def load(folder: Path) -> Split:
    """Read what `Split.save` wrote."""
    with np.load(folder / "split.npz") as file:
        return Split(**{name: file[name] for name in file.files})


def hold_out(
    user: Ints, item: Ints, good: NDArray[np.bool_], cluster: Ints, *, share: float, most: int, seed: int
) -> dict[str, Ints]:
    """Rows of the held-out events by the names that they have in a `Split`.

    `share` of the people who have both events, at most `most`, are for the test, and half as many for validation.
    A person must have liked something before either event.
    """
    start = np.searchsorted(user, user)
    liked = np.cumsum(good) - good
    asked = good & (liked > liked[start])
    last: list[dict[int, int]] = []
    for met in (item, cluster[item]):
        first = np.zeros(len(user), bool)
        first[np.unique(user * (int(met.max()) + 1) + met, return_index=True)[1]] = True
        rows = np.flatnonzero(first & asked)
        last.append(dict(zip(user[rows].tolist(), rows.tolist(), strict=True)))
    people = np.random.default_rng(seed).permutation(sorted(last[0].keys() & last[1].keys())).tolist()
    n = min(most, round(share * len(people)))
    parts = {"test": sorted(people[:n]), "validation": sorted(people[n : n + n // 2])}
    return {
        f"{part}_{kind}": np.array([rows[one] for one in chosen], np.int64)
        for part, chosen in parts.items()
        for kind, rows in zip(KINDS, last, strict=True)
    }


def ranks(split: Split, part: str, kind: str, score: Score) -> Ints:
    """How many candidates are ahead of each held-out item; of equal scores the lower number is ahead."""
    rows: Ints = getattr(split, f"{part}_{kind}")
    found = [np.empty(0, np.int64)]
    step = max(1, SCORES // split.n_items)
    for at in (rows[low : low + step] for low in range(0, len(rows), step)):
        scores, target = score(at), split.item[at]
        if np.isnan(scores).any():
            raise ValueError("a model's scores are not numbers")
        own = scores[np.arange(len(at)), target][:, None]
        earlier = np.arange(split.n_items) < target[:, None]
        ahead = (scores > own) | ((scores == own) & earlier)
        found.append((ahead & ~split.closed(at, kind)).sum(axis=1))
    return np.concatenate(found)


def gains(rank: Ints, k: int) -> NDArray[np.float64]:
    """What each question adds to NDCG at `k`."""
    return (rank < k) / np.log2(rank + 2.0)


def validation(split: Split, score: Score) -> float:
    """What settings and epochs are chosen by: NDCG at 50, the mean of both questions."""
    return float(np.mean([gains(ranks(split, "validation", kind, score), 50).mean() for kind in KINDS]))


def answer(folder: Path, name: str, split: Split, score: Score, said: dict[str, object]) -> None:
    """Write a model's ranks in the test, and what is `said` of it, to `NAME.json`."""
    found = {kind: ranks(split, "test", kind, score).tolist() for kind in KINDS}
    (folder / f"{name}.json").write_text(json.dumps({**said, "rank": found}), "utf-8")
