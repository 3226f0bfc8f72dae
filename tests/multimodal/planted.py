"""A planted catalog whose pictures tell the cluster, and everything around it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base import config
from byway.data.catalog import SCHEMA, Catalog
from byway.data.events import Events
from byway.data.media import Media
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.multimodal import contexts as shown
from byway.multimodal.curate import Pairs, PairSamples

NAMES = ["ramen, broth", "ramen, street food", "guitar, chords", "guitar, solo", "chess, endgame", "go, stones"]
PARENTS = ["food", "music", "games"]
ITEMS = 6 * 8
WIDTH = 24


def tree() -> Tree:
    """Eight items in each of six clusters of level 2, two of them in each of three of level 1."""
    starts = (
        np.arange(0, ITEMS + 1, 16),
        np.arange(0, ITEMS + 1, 8),
        np.arange(0, ITEMS + 1, 4),
        np.arange(ITEMS + 1),
    )
    return Tree(np.arange(ITEMS, dtype=np.int32), tuple(s.astype(np.int64) for s in starts))


def descriptions() -> Descriptions:
    return Descriptions((PARENTS, NAMES, [f"third {i}" for i in range(12)], [f"leaf {i}" for i in range(ITEMS)]))


def catalog() -> Catalog:
    """Titles say nothing."""
    columns: dict[str, Any] = {name: [None] * ITEMS for name in SCHEMA.names}
    columns |= {"item": [f"v{i}" for i in range(ITEMS)], "title": ["wait for it"] * ITEMS, "hashtags": [[]] * ITEMS}
    return Catalog(pa.table(columns, schema=SCHEMA))


def seen(path: Path, noise: float = 0.1, rows: NDArray[np.int32] | None = None) -> Media:
    """Pictures that are their cluster's own vector and a little noise: four frames and a thumbnail of one patch."""
    rng = np.random.default_rng(5)
    own = rng.normal(size=(6, WIDTH))
    item = np.arange(ITEMS, dtype=np.int32) if rows is None else rows
    shown = own[item // 8][:, None, None] + noise * rng.normal(size=(len(item), 5, 1, WIDTH))
    there = np.ones((len(item), 5), np.bool_)
    sounds = np.full((len(item), 3), np.nan, np.float32)
    return Media(item, shown.astype(np.float16), there, sounds, [f"d{i}" for i in item], path)


def contexts(settings: config.MultimodalModel, pairs: Pairs, seen: Media) -> shown.Contexts:
    """What can be known of every item, as the stages join it."""
    return shown.contexts(settings, pairs, catalog=catalog(), tree=tree(), descriptions=descriptions(), seen=seen)


def events(pairs: list[tuple[int, int, float]]) -> Events:
    """One person a pair: an item, then the next with this satisfaction."""
    n = len(pairs)
    item = np.array([i for a, b, _ in pairs for i in (a, b)], np.int32)
    content = np.array([s for _, _, p in pairs for s in (1.0, p)], np.float32)
    user = np.repeat(np.arange(n, dtype=np.int32), 2)
    time = np.tile(np.array([0, 1]), n) + np.repeat(np.arange(n), 2) * 2
    return Events(user, item, time.astype(np.int64) * 1_000_000, content, True, n, ITEMS)


def pairs() -> Pairs:
    """No pairs, at levels 2 and 1."""
    nothing = np.zeros(0)
    none = PairSamples(*(nothing.astype(kind) for kind in ("i4", "i4", "i4", "f4", "f4")))
    return Pairs(2, 6, none, none, none, none, none)


def sibling(c: int) -> int:
    """The other cluster of the same parent."""
    return c ^ 1


def serendipitous(seed: int = 0, n: int = 600) -> Events:
    """People turn from any item to one of the sibling cluster, and enjoy it; now and then to anything."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, float]] = []
    for _ in range(n):
        a = int(rng.integers(ITEMS))
        c = sibling(a // 8) if rng.random() < 0.8 else int(rng.integers(6))
        b = c * 8 + int(rng.integers(8))
        rows.append((a, b, 0.9 if c == sibling(a // 8) else 0.3))
    return events(rows)
