"""A made workspace with a published bundle, for the benchmarks of the service: items that cohere, and a planner.

It is not measured here, and nothing in it was learned: the item policy is as it was initialised, EASE is likeness
with noise, and the signals weigh about as they do where they were fitted.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import artifact, config
from byway.base.artifact import Outcome
from byway.items import export, sequence
from byway.items.ease import KEPT, SparseMatrix
from byway.planner.fit import ITEMS, of_leaves
from byway.planner.planner import Asker, Planner, PlannerWeights
from byway.serving import pack, publish
from byway.serving.bundle import Level, Manifest
from byway.transitions import draws

HISTORY = 20
"""Events a person."""
DIM = 64
SIZES = {"small": (20_000, 41, 540, 200), "large": (1_000_000, 761, 7_000, 5_000)}
"""Items, clusters, leaves, people."""
PARTS = {
    "ease": 1.0, "ease_leaves": 0.5, "item_policy": 0.5, "similarity": 0.2, "popularity": -0.2, "table": 0.1,
    "quality": 0.1,
}  # fmt: skip
"""Weights of the signals beside each other, where each has a spread of 1; about as they are fitted on KuaiRec."""


@dataclass(frozen=True)
class World:
    """Items in the tree's order: leaves in clusters, whose items are alike."""

    leaf: NDArray[np.int32]
    """[n]"""
    cluster: NDArray[np.int32]
    """[n]"""
    vectors: NDArray[np.float32]
    """[n, d] of behaviour, unit rows."""
    content: NDArray[np.float32]
    """[n, d] unit rows."""
    leaf_vectors: NDArray[np.float32]
    """[leaves, d] what the vectors of a leaf lie around."""

    @classmethod
    def of(cls, items: int, clusters: int, leaves: int, seed: int = 0) -> "World":
        """Sizes of leaves vary by half. Behaviour and content agree by half."""
        rng = np.random.default_rng(seed)
        owner = np.sort(np.concatenate([np.arange(clusters), rng.integers(clusters, size=leaves - clusters)]))
        share = rng.uniform(0.5, 1.5, leaves)
        bounds = np.round(np.cumsum(share) / share.sum() * items).astype(np.int64)
        leaf = np.repeat(np.arange(leaves, dtype=np.int32), np.diff(bounds, prepend=0))

        def centres() -> NDArray[np.float32]:
            inner = 0.7 * rng.normal(size=(leaves, DIM)).astype(np.float32)
            return rng.normal(size=(clusters, DIM)).astype(np.float32)[owner] + inner

        def around(middle: NDArray[np.float32]) -> NDArray[np.float32]:
            found = middle[leaf]
            found += 0.7 * rng.standard_normal(found.shape, dtype=np.float32)
            found /= np.linalg.norm(found, axis=1, keepdims=True)
            return found.astype(np.float32, copy=False)

        told, own = centres(), centres()
        behaviour = (told + own) / np.float32(2**0.5)
        cluster = owner.astype(np.int32)[leaf]
        return cls(leaf, cluster, around(behaviour), around(told), behaviour)


def alike(vectors: NDArray[np.float32], kept: int, rng: np.random.Generator) -> SparseMatrix:
    """Weights as EASE might find them: each unit's nearest, by likeness with noise."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    to, weight = np.empty((len(unit), kept), np.int32), np.empty((len(unit), kept), np.float32)
    for i in range(0, len(unit), 500):
        likeness = unit[i : i + 500] @ unit.T + 0.1 * rng.standard_normal((1, len(unit)), dtype=np.float32)
        likeness[np.arange(len(likeness)), np.arange(i, i + len(likeness))] = -1
        to[i : i + 500] = np.sort(np.argpartition(-likeness, kept, axis=1)[:, :kept], axis=1)
        weight[i : i + 500] = np.take_along_axis(likeness, to[i : i + 500], 1) ** 3
    return SparseMatrix(to, weight)


def planner_of(made: World, traffic: NDArray[np.float32], quality: NDArray[np.float32]) -> Planner:
    """A planner over all items, each signal with the weight 1."""
    items, rng = len(made.leaf), np.random.default_rng(3)
    some = np.sort(np.argsort(-traffic, kind="stable")[:ITEMS])
    unit = np.full(items, -1, np.int32)
    unit[some] = np.arange(len(some), dtype=np.int32)
    return Planner(
        fitted=PlannerWeights(dict.fromkeys(PARTS, 1.0), 0.25, 2.0),
        unit=unit,
        items=alike(made.vectors[some], KEPT, rng),
        leaf=made.leaf,
        leaves=alike(made.leaf_vectors, min(KEPT, len(made.leaf_vectors) - 1), rng),
        cluster=made.cluster,
        vectors=made.vectors,
        content=made.content if items <= ITEMS else of_leaves(made.content, made.leaf),
        popularity=np.log1p(traffic),
        quality=quality,
    )


def fitted_to(planner: Planner, model: Path, table: NDArray[np.int32]) -> PlannerWeights:
    """With the weights by which the signals of some people have the spreads of PARTS."""
    rng, encode = np.random.default_rng(4), export.reader(model, HISTORY)
    n, M = len(planner.cluster), len(table)
    found: list[dict[str, float]] = []
    some = rng.integers(n, size=5000)
    for _ in range(20):
        rows = rng.integers(n, size=HISTORY)
        share = draws.reciprocal_rank(
            table[planner.cluster[rows[1:]], planner.cluster[rows[:-1]]], np.full(HISTORY - 1, 1 / (HISTORY - 1)), M
        )
        values = planner.fitted.values(rng.random(HISTORY))
        said = planner.parts(Asker(rows, values, encode(rows), {"table": share}), some)
        found.append({name: float(part.std()) for name, part in said.items()})
    spread = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return msgspec.structs.replace(
        planner.fitted, weights={name: PARTS[name] / max(value, 1e-6) for name, value in spread.items()}
    )


def make(workspace: Path, items: int, clusters: int, leaves: int) -> None:
    """A workspace with a published bundle, as far as the service reads it."""
    import torch

    from byway.items.transformer import SequenceModel

    (workspace / "byway.toml").write_text("[serving]\nmin_match_rate = 0\n", "utf-8")
    rng = np.random.default_rng(0)
    made = World.of(items, clusters, leaves)
    settings = config.ItemPolicy()
    torch.manual_seed(0)
    model = SequenceModel(items, DIM, sequence.LAYERS, sequence.HEADS, settings.history, sequence.DROPOUT).eval()
    export.write(model, workspace / "policy.onnx")
    names = [f"interest {c}, made up" for c in range(clusters)]
    texts = {
        "ids": [f"item-{i}" for i in range(items)],
        "titles": [f"Title of item {i}, made up" for i in range(items)],
        "thumbnails": [""] * items,
    }
    traffic = rng.zipf(1.6, items).clip(max=100_000).astype(np.float32)
    quality, table = rng.random(items, dtype=np.float32), rankings(clusters, rng)
    planner = planner_of(made, traffic, quality)
    starts = np.searchsorted(made.cluster, np.arange(clusters + 1))
    arrays = {
        "vectors": made.vectors,
        "policy_rows": np.arange(items, dtype=np.int32),
        "starts": starts,
        "traffic": traffic,
        "quality": quality,
        "created": np.full(items, np.iinfo(np.int64).max),
        "table": table,
        "popularity": rng.permutation(clusters).astype(np.int32),
        "leaf": made.leaf,
        "content": planner.content,
        "unit": planner.unit,
        "leaves_to": planner.leaves.to,
        "leaves_weight": planner.leaves.weight,
    }
    if planner.items is not None:
        arrays |= {"items_to": planner.items.to, "items_weight": planner.items.weight}
    manifest = Manifest(2, names, settings.history, True, msgspec.to_builtins(config.Bundle()))
    levels = [Level(names, starts.tolist())] * 4
    path = workspace / "13-bundle"
    with artifact.part(path, "bundle", {}, {}) as work:
        fitted = fitted_to(planner, workspace / "policy.onnx", table)
        (work.out / "planner.json").write_bytes(msgspec.json.encode(fitted))
        pack.write(work.out, texts, arrays, manifest, levels, workspace / "policy.onnx", rng=work.rng)
    record = artifact.commit(path, "bundle", {}, {}, Outcome(timings={"seconds": 0.0}))
    publish.publish(workspace, path, config.Serving(min_match_rate=0), {"bundle": record})
    shutil.rmtree(path)


def rankings(clusters: int, rng: np.random.Generator, top: int = 20) -> NDArray[np.int32]:
    """[M, M, top] different clusters for each ordered pair, none of them of the pair."""
    found = np.empty((clusters, clusters, top), dtype=np.int32)
    for a in range(clusters):
        order = np.argsort(rng.random((clusters, clusters), dtype=np.float32), axis=1)[:, : top + 2]
        for b in range(clusters):
            row = order[b]
            found[a, b] = row[(row != a) & (row != b)][:top]
    return found


def workspace_of(folder: Path, items: int, clusters: int, leaves: int) -> Path:
    """The workspace in this folder, made unless it is there."""
    workspace = folder / f"planned-{items}"
    if not (workspace / publish.FOLDER / "current.json").exists():
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        make(workspace, items, clusters, leaves)
    return workspace
