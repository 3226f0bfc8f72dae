"""What is wrong with the arrays of a bundle: kinds, sizes that do not agree, entries that name nothing.

It knows what each array is for, and no request. A bundle can come from anywhere, so nothing is taken for granted
but that it could be opened.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.planner.planner import SIGNALS, Planner
from byway.planner.search import EXACT
from byway.serving.bundle import CONTEXTS, STRINGS, Bundle, Level, Strings

KINDS = {
    "vectors": ("f", 2), "policy_rows": ("i", 1), "starts": ("i", 1), "traffic": ("f", 1), "quality": ("f", 1),
    "created": ("i", 1), "table": ("i", 3), "popularity": ("i", 1), "id_hashes": ("u", 1), "id_positions": ("i", 1),
}  # fmt: skip
"""Of each array its kind, as numpy has it, and its dimensions."""
LONGEST = 100_000
"""Items of a history that a policy may read."""
LOOKED_UP = 1000
"""Ids that are looked up in the index."""

Array = NDArray[Any]


def faults(opened: Bundle, levels: list[Level]) -> list[str]:
    """What is wrong, the first kind of fault alone: what comes later takes what comes before for granted."""
    for look in (_kinds, _sizes, _entries, _contexts, _model, _planner, lambda b: _levels(b, levels)):
        if found := look(opened):
            return found
    return []


def _said(tests: dict[str, bool]) -> list[str]:
    return [fault for fault, good in tests.items() if not good]


def _is(array: Array, kind: str, *shape: int | None) -> bool:
    """Whether an array is of a kind and a shape, in which None is any size."""
    fits = array.dtype.kind == kind and array.ndim == len(shape)
    return fits and all(wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True))


def _within(array: Array, least: int, end: int) -> bool:
    """Whether every entry is from `least` to before `end`."""
    return not array.size or bool(array.min() >= least and array.max() < end)


def _finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _kinds(opened: Bundle) -> list[str]:
    arrays = {name: _is(getattr(opened, name), kind, *[None] * n) for name, (kind, n) in KINDS.items()}
    tests = {f"{name} is no array of its kind": good for name, good in arrays.items()}
    return _said(tests | {f"{name} are no texts": _texts(getattr(opened, name)) for name in STRINGS})


def _texts(strings: Strings) -> bool:
    data, offsets = strings.data, strings.offsets
    if not (data.dtype == np.uint8 and data.ndim == 1 and _is(offsets, "i", None) and len(offsets)):
        return False
    if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        return False
    try:
        str(data.data, "utf-8")
    except UnicodeDecodeError:
        return False
    # A text begins with no byte that goes on with the one before.
    begins = offsets[:-1][offsets[:-1] < len(data)]
    return not bool(((data[begins] & 0xC0) == 0x80).any())


def _sizes(opened: Bundle) -> list[str]:
    n, m = len(opened.ids), len(opened.manifest.names)
    by_position = ("policy_rows", "traffic", "quality", "created", "id_hashes", "id_positions")
    return _said({
        "there is no item or no cluster": n > 0 and m > 0,
        "vectors are not one a item": len(opened.vectors) == n and opened.vectors.shape[1] > 0,
        "arrays are not one entry an item": all(getattr(opened, name).shape == (n,) for name in by_position)
        and len(opened.titles) == len(opened.thumbnails) == n,
        "clusters are not slices that fill the items": opened.starts.shape == (m + 1,)
        and opened.starts[0] == 0
        and opened.starts[-1] == n
        and bool((np.diff(opened.starts) > 0).all()),
        "descriptions are not unique": len(set(opened.manifest.names)) == m,
        "popularity does not order the clusters": np.array_equal(np.sort(opened.popularity), np.arange(m)),
        "the table is not one ranking a pair": opened.table.shape[:2] == (m, m) and opened.table.shape[2] > 0,
        "the item policy reads no items, or too many": 0 < opened.manifest.history <= LONGEST,
    })  # fmt: skip


def _entries(opened: Bundle) -> list[str]:
    n, m, table = len(opened.ids), len(opened.manifest.names), opened.table
    a, b = np.arange(m)[:, None, None], np.arange(m)[None, :, None]
    found = _said({
        "an entry of the table is no cluster": _within(table, -1, m),
        "an entry of the table is one of its pair": not ((table == a) | (table == b)).any(),
        "triples are not in order, or lead to no cluster or one of their own": _triples_fit(opened),
        "ids are not a permutation": np.array_equal(np.sort(opened.id_positions), np.arange(n)),
        # Not a permutation: an item that came after training is read as the one most like it.
        "a row names no item": _within(opened.policy_rows, 0, n),
        "the index of ids is not sorted": bool((opened.id_hashes[1:] >= opened.id_hashes[:-1]).all()),
        "vectors are not finite": _finite(opened.vectors),
        "traffic or quality is not finite": _finite(opened.traffic) and _finite(opened.quality),
    })  # fmt: skip
    if found:
        return found
    some = np.unique(np.linspace(0, n - 1, min(n, LOOKED_UP)).astype(np.int64)).tolist()
    good = opened.positions([opened.ids[p] for p in some]) == some
    return [] if good else ["the index of ids does not find the items"]


def _triples_fit(opened: Bundle) -> bool:
    triples, m, n = opened.triples, len(opened.manifest.names), opened.table.shape[2]
    if triples is None:
        return True
    keys, led = triples.keys, triples.clusters
    if not (_is(keys, "i", None) and _is(led, "i", len(keys), None)) or led.shape[1] > n:
        return False
    own = (keys[:, None] // np.array([m * m, m, 1]) % m)[:, None]
    return bool(
        (keys[1:] > keys[:-1]).all()
        and _within(keys, 0, m**3)
        and _within(led, -1, m)
        and not (led[:, :, None] == own).any()
    )


def _contexts(opened: Bundle) -> list[str]:
    n, m = len(opened.ids), len(opened.manifest.names)
    led, via, items = (getattr(opened, name) for name in CONTEXTS)
    if led is None or via is None or items is None:
        return [] if led is via is items else ["the context table is not whole"]
    good = _is(led, "i", None, None) and _is(via, "i", n) and _is(items, "i", len(led))
    good = good and _within(led, -1, m) and _within(via, -1, len(led)) and _within(items, 0, n)
    return [] if good else ["the context table does not fit the items and clusters"]


def _model(opened: Bundle) -> list[str]:
    m, model, triples = len(opened.manifest.names), opened.model, opened.model_triples
    good = model is None or (_is(model, "i", m, m, None) and _within(model, -1, m))
    if good and triples is not None:
        led = triples.clusters
        good = model is not None and _is(led, "i", len(triples.keys), None) and led.shape[1] <= model.shape[2]
        good = good and _within(led, -1, m)
    return [] if good else ["the language model's rankings do not fit the clusters"]


def _planner(opened: Bundle) -> list[str]:
    planner, n = opened.planner, len(opened.ids)
    if planner is None:
        return []
    weights, fitted = planner.fitted.weights, planner.fitted
    numbers = np.array([*weights.values(), fitted.neutral, fitted.scale, fitted.lowest, fitted.positive])
    L = len(planner.leaves.to)
    found = _said({
        "planner.json names signals that there are not": weights.keys() <= SIGNALS.keys(),
        "planner.json has numbers that are not finite": _finite(numbers),
        "the planner listens to a language model that is not there": opened.model is not None
        or not weights.get("language_model"),
        "leaves are not one an item, in the items' order": _is(planner.leaf, "i", n)
        and _within(planner.leaf, 0, L)
        and bool((np.diff(planner.leaf) >= 0).all()),
        "EASE over leaves does not fit them": _square(planner.leaves.to, planner.leaves.weight),
        "EASE over items does not fit them": planner.items is None
        or _square(planner.items.to, planner.items.weight),
        "rows of EASE are not one an item": _is(planner.unit, "i", n)
        and _within(planner.unit, -1, n if planner.items is None else len(planner.items.to)),
        "contents are not one an item or leaf": _is(planner.content, "f", None, None)
        and len(planner.content) in (n, L)
        and _finite(planner.content),
    })  # fmt: skip
    return found or _means(planner)


def _square(to: Array, weight: Array) -> bool:
    """Whether entries of a sparse matrix lead to rows of the same."""
    fits = _is(to, "i", None, None) and _is(weight, "f", *to.shape)
    return fits and _within(to, 0, len(to)) and _finite(weight)


def _means(planner: Planner) -> list[str]:
    if not planner.cached_means:
        return []
    means, blocks = planner.cached_means[0], 3 if planner.content_of_leaves else 4
    width = planner.vectors.shape[1] + 2 + (0 if planner.content_of_leaves else planner.content.shape[1])
    good = _is(means.mean, "f", len(means.leaf), width) and _is(means.variance, "f", len(means.leaf), blocks)
    good = good and _finite(means.mean) and _finite(means.variance) and bool((means.variance >= 0).all())
    return [] if good or len(planner.leaf) <= EXACT else ["the means of the leaves do not fit them"]


def _levels(opened: Bundle, levels: list[Level]) -> list[str]:
    n, at = len(opened.ids), opened.manifest.level
    if not 1 <= at <= len(levels):
        return ["levels.json has no planning level"]
    for number, level in enumerate(levels, 1):
        starts = np.array(level.starts, dtype=np.int64)
        if len(starts) != len(level.names) + 1 or starts[0] != 0 or starts[-1] != n or (np.diff(starts) < 0).any():
            return [f"level {number} of levels.json does not fill the items"]
    if levels[at - 1].names != opened.manifest.names or levels[at - 1].starts != opened.starts.tolist():
        return ["the planning level of levels.json is another than the manifest's"]
    return []
