"""A bundle whose every answer is known: seven clusters at level 2, unit vectors, a policy that is a mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from byway.base import config
from byway.base.artifact import Work
from byway.data.catalog import SCHEMA, Catalog
from byway.data.events import Events
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.items.sequence import ItemPolicy
from byway.items.windows import HeldOut
from byway.multimodal.plan import ContextTable
from byway.planner.fit import FittedPlanner
from byway.planner.planner import SIGNALS, PlannerWeights
from byway.serving import bundle, pack
from byway.serving.bundle import Bundle
from byway.transitions.curate import Samples, Transitions
from byway.transitions.table import Table
from byway.transitions.triples import Triples, key
from tests.planner.planted import weights_of

SIZES = (4, 4, 4, 4, 1, 7, 2)
M = len(SIZES)
N = sum(SIZES)
STARTS = np.concatenate([[0], np.cumsum(SIZES)]).astype(np.int64)
NAMES = ["chess", "baking, bread", "晴れ", "jazz", "lone yak", "поезда", "sailing"]
LENGTH = 8
"""Items that the policy reads."""
DIM = 5

NOBODY = HeldOut(np.empty(0, np.int64), np.empty(0, np.int64))
"""Nothing was held out from the training of the planted policy."""


def policy_file(path: Path, vectors: NDArray[np.float32], length: int | str = LENGTH) -> Path:
    """An ONNX policy: the mean of the vectors of a history, where padding counts as a vector of zeros."""
    padded = np.vstack([np.zeros((1, vectors.shape[1])), vectors]).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["items", "history"], ["read"]),
        helper.make_node("ReduceMean", ["read", "axis"], ["vector"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", length])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", vectors.shape[1]])],
        [
            helper.make_tensor("items", TensorProto.FLOAT, padded.shape, padded.ravel()),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def planned_of(seed: int = 8, weights: dict[str, float] | None = None, *, items: bool = True) -> FittedPlanner:
    """A planner of drawn arrays, in which every signal has a part in the scores where no weights are given,
    EASE over items only with `items`."""
    rng = np.random.default_rng(seed)
    content = rng.normal(size=(N, 3))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    every = {**dict.fromkeys(SIGNALS, 1.0), "popularity": 0.3, "ease": float(items)}
    fitted = PlannerWeights(every if weights is None else weights, 0.25, 2.0)
    return FittedPlanner(
        fitted,
        np.arange(N, dtype=np.int32),
        weights_of(rng, N, 9),
        weights_of(rng, N, 9),
        content.astype(np.float32),
    )


@dataclass
class Planted:
    """What a bundle is laid out from. Item names say where they are: `c2-1` is the second item of cluster 2."""

    ids: list[str] = field(default_factory=lambda: [f"c{c}-{i}" for c in range(M) for i in range(SIZES[c])])
    """By position, in the tree's order."""
    table: NDArray[np.int32] | None = None
    triples: dict[tuple[int, int, int], list[int]] | None = None
    """Rankings of triples of interests."""
    model: NDArray[np.int32] | None = None
    """The language model's own rankings; as `table` where they are not given."""
    contexts: ContextTable | None = None
    planned: FittedPlanner | None = None
    """Without one the mode `person` is `pair`."""
    settings: config.Bundle = field(default_factory=config.Bundle)
    length: int | str = LENGTH
    clock: bool = True
    order: NDArray[np.int32] = field(
        default_factory=lambda: np.random.default_rng(5).permutation(N).astype(np.int32)
    )
    vectors: NDArray[np.float32] = field(
        default_factory=lambda: np.random.default_rng(6).normal(size=(N, DIM)).astype(np.float32)
    )
    """[n, d] in the catalog's order."""
    traffic: NDArray[np.int64] = field(default_factory=lambda: np.random.default_rng(7).permutation(N) + 1)
    """By position; all different."""
    turned_to: Sequence[int] = (1, 5, 3, 7, 2, 6, 4)
    """Transitions into each cluster: the popular ones are 3, 5, 1, 6, 2, 4, 0."""

    def catalog(self) -> Catalog:
        ids = [""] * N
        for position, row in enumerate(self.order):
            ids[row] = self.ids[position]
        columns = {name: [None] * N for name in SCHEMA.names}
        columns |= {"item": ids, "title": [f"Title of {i}" for i in ids], "hashtags": [[]] * N}
        columns |= {"description": [""] * N}
        return Catalog(pa.table(columns, schema=SCHEMA))

    def events(self) -> Events:
        item = np.repeat(self.order, self.traffic).astype(np.int32)
        nothing = np.zeros(len(item))
        return Events(
            nothing.astype(np.int32), item, nothing.astype(np.int64), nothing.astype(np.float32), self.clock, 1, N
        )

    def tree(self) -> Tree:
        finest = np.arange(N + 1, dtype=np.int64)
        return Tree(self.order, (STARTS[[0, 3, M]], STARTS, finest, finest))

    def descriptions(self) -> Descriptions:
        return Descriptions((["one", "two"], NAMES, self.ids, self.ids))

    def transitions(self) -> Transitions:
        labels = np.arange(M, dtype=np.int32)
        train = Samples(np.zeros((M, 2), np.int32), labels, np.array(self.turned_to, np.int32))
        return Transitions(2, M, True, train=train, validation=train, heldout=train, samples=train)

    def rankings(self) -> NDArray[np.int32]:
        """[M, M, n]: without a table of its own, every pair's ranking is the other clusters in ascending order."""
        if self.table is not None:
            return self.table
        table = np.full((M, M, M), -1, dtype=np.int32)
        for a in range(M):
            for b in range(M):
                others = [c for c in range(M) if c not in (a, b)]
                table[a, b, : len(others)] = others
        return table

    def build(self, folder: Path) -> Bundle:
        """Lay the bundle out in `folder` and open it."""
        (folder / "out").mkdir(parents=True)
        work = Work(folder / "out", folder, np.random.default_rng(0))
        rankings = self.rankings()
        table = Table(rankings, rankings.astype(np.float32), rankings if self.model is None else self.model)
        if self.triples is not None:
            clusters = np.full((len(self.triples), M), -1, dtype=np.int32)
            ordered = sorted(self.triples)
            for row, triple in enumerate(ordered):
                clusters[row, : len(self.triples[triple])] = self.triples[triple]
            triples = Triples(key(np.array(ordered, np.int32).reshape(-1, 3), M), clusters)
            table = replace(table, triples=triples, model_triples=triples)
        pairs = self.planned is None and self.settings.mode == "person"
        outcome = pack.build(
            work,
            replace(self.settings, mode="pair") if pairs else self.settings,
            catalog=self.catalog(),
            counted=pack.Counted.of(self.events(), N),
            tree=self.tree(),
            descriptions=self.descriptions(),
            transitions=self.transitions(),
            table=table,
            item_policy=ItemPolicy(
                policy_file(folder / "p.onnx", self.vectors, self.length), self.vectors, self.vectors, NOBODY
            ),
            planned=self.planned or planned_of(weights={"popularity": 1.0}),
            contexts=self.contexts,
        )
        assert outcome.counts == {"items": N, "clusters": M}
        return bundle.load(work.out)
