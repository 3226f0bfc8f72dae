"""A planner of drawn arrays, of any size: items stand leaf by leaf and cluster by cluster."""

import numpy as np

from byway.items.ease import SparseMatrix
from byway.planner.planner import SIGNALS, Asker, Planner, PlannerWeights

WEIGHTS = {name: round(0.5 + 0.3 * i, 2) for i, name in enumerate(SIGNALS)}
"""All different, none 0."""


def weights_of(rng: np.random.Generator, n: int, kept: int) -> SparseMatrix:
    """[n, kept] drawn weights, none of a unit for itself."""
    to = np.array([np.sort(rng.choice(np.delete(np.arange(n), i), kept, replace=False)) for i in range(n)])
    return SparseMatrix(to.astype(np.int32), rng.normal(size=(n, kept)).astype(np.float32))


def dense(weights: SparseMatrix) -> np.ndarray:
    found = np.zeros((weights.n, weights.n))
    np.put_along_axis(found, weights.to.astype(np.int64), weights.weight, 1)
    return found


def planner(seed: int = 0, *, leaves: int = 6, each: int = 5, spread: float = 1.0, items: bool = True) -> Planner:
    """`leaves` of `each` items, two leaves a cluster. Items of a leaf differ from its centre by `spread`.

    Item 0 came late: item 7 speaks for it.
    """
    rng = np.random.default_rng(seed)
    n = leaves * each
    leaf = np.repeat(np.arange(leaves, dtype=np.int32), each)

    def near(*shape: int) -> np.ndarray:
        return (rng.normal(size=(leaves, *shape))[leaf] + spread * rng.normal(size=(n, *shape))).astype(np.float32)

    content = near(3)
    unit = np.arange(n, dtype=np.int32)
    unit[0] = 7
    return Planner(
        fitted=PlannerWeights(WEIGHTS, 0.25, 2.0),
        unit=unit,
        items=weights_of(rng, n, 8) if items else None,
        leaf=leaf,
        leaves=weights_of(rng, leaves, min(4, leaves - 1)),
        cluster=leaf // 2,
        vectors=near(4),
        content=content / np.linalg.norm(content, axis=1, keepdims=True),
        popularity=near(),
        quality=near(),
    )


def asker(of: Planner, rows: list[int], satisfaction: list[float], seed: int = 9) -> Asker:
    rng, M = np.random.default_rng(seed), int(of.cluster.max()) + 1
    shares = {name: rng.random(M).astype(np.float32) for name in ("table", "language_model")}
    state = rng.normal(size=of.vectors.shape[1]).astype(np.float32)
    return Asker(np.array(rows, np.int64), of.fitted.values(np.array(satisfaction)), state, shares)
