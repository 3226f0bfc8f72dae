"""The sequence model as an ONNX graph, written node by node.

By hand rather than by torch's exporter: the same weights give the same bytes, the operator set is fixed, and no
path or trace of the machine gets into the file. `check` holds the graph to what torch computes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from byway.items.transformer import Block, SequenceModel

OPSET = 20
"""The first operator set with Gelu."""
IR_VERSION = 9
"""The file format that goes with it."""
AGREEMENT = 1e-4
"""How far a vector's entry may be from torch's; entries are of the size of 1."""


class _Graph:
    """Nodes and constants under construction; values are named by a running number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Tensor | NDArray[Any] | list[int] | int | float) -> str:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else None)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def one(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.add(operator, *inputs, **attributes)[0]

    def linear(self, x: str, layer: torch.nn.Linear) -> str:
        product = self.one("MatMul", x, self.constant(layer.weight.T))
        return self.one("Add", product, self.constant(layer.bias))

    def normalised(self, x: str, layer: torch.nn.LayerNorm) -> str:
        weight, bias = self.constant(layer.weight), self.constant(layer.bias)
        return self.one("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)


def write(model: SequenceModel, path: Path) -> None:
    """Write the graph from `history` int64 [batch, length] to `vector` float32 [batch, dim]: the last state."""
    g = _Graph()
    x = g.one("Mul", g.one("Gather", g.constant(model.items.weight), "history"), g.constant(model.scale))
    zero, one = g.constant(0), g.constant(1)
    length = g.one("Gather", g.one("Shape", "history"), one)
    at = g.one("Range", zero, length, one)
    back = g.one("Sub", g.one("Unsqueeze", at, one), g.one("Unsqueeze", at, zero))
    padding = g.one("Unsqueeze", g.one("Equal", "history", zero), g.constant([1, 2]))
    other = g.one("Not", g.one("Equal", back, zero))
    barred = g.one("Or", g.one("Less", back, zero), g.one("And", padding, other))
    distance = g.one("Clip", back, zero, g.constant(model.distances - 1))
    for i, block in enumerate(model.blocks, 1):
        assert isinstance(block, Block)
        x = _block(g, block, x, barred, distance, last=i == len(model.blocks))
    last = g.one("Gather", x, g.constant(-1), axis=1)
    g.one("Identity", g.normalised(last, model.norm))
    g.nodes[-1].output[0] = "vector"
    dim = model.items.embedding_dim
    graph = helper.make_graph(
        g.nodes,
        "item_policy",
        [helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", dim])],
        g.constants,
    )
    whole = helper.make_model(
        graph, producer_name="byway", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(whole, full_check=True)
    path.write_bytes(whole.SerializeToString(deterministic=True))


def _block(g: _Graph, block: Block, x: str, barred: str, distance: str, last: bool) -> str:
    """A block's states; of the last block only the last, which reads the others as they came in."""
    dim, heads = block.write.out_features, block.heads
    normal = g.normalised(x, block.before_attention)
    parts = g.one("Reshape", g.linear(normal, block.read), g.constant([0, 0, 3, heads, dim // heads]))
    query, key, value = (
        g.one("Gather", g.one("Transpose", parts, perm=[2, 0, 3, 1, 4]), g.constant(i), axis=0) for i in range(3)
    )
    if last:
        end = g.constant([-1])
        x, query = g.one("Gather", x, end, axis=1), g.one("Gather", query, end, axis=2)
        barred, distance = g.one("Gather", barred, end, axis=2), g.one("Gather", distance, end, axis=0)
    query = g.one("Div", query, g.constant(float(np.sqrt(dim // heads))))
    keys = g.one("Gather", g.constant(block.key_of_distance), distance)
    values = g.one("Gather", g.constant(block.value_of_distance), distance)
    near = g.one("MatMul", query, g.one("Transpose", key, perm=[0, 1, 3, 2]))
    scores = g.one("Add", near, g.one("Einsum", query, keys, equation="bhid,ijd->bhij"))
    attention = g.one("Softmax", g.one("Where", barred, g.constant(-1e9), scores), axis=-1)
    found = g.one(
        "Add", g.one("MatMul", attention, value), g.one("Einsum", attention, values, equation="bhij,ijd->bhid")
    )
    joined = g.one("Reshape", g.one("Transpose", found, perm=[0, 2, 1, 3]), g.constant([0, 0, dim]))
    x = g.one("Add", x, g.linear(joined, block.write))
    inner = g.one("Gelu", g.linear(g.normalised(x, block.before_feed), block.widen))
    return g.one("Add", x, g.linear(inner, block.narrow))


def check(model: SequenceModel, path: Path, history_BL: NDArray[np.int64]) -> float:
    """The largest difference between the file's vectors and torch's on these histories.

    Raises RuntimeError beyond AGREEMENT: then what would be served is not what was trained.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    served = np.asarray(session.run(["vector"], {"history": history_BL})[0])
    with torch.inference_mode():
        wanted = model(torch.from_numpy(history_BL).to(model.vectors_ND.device))[:, -1].cpu().numpy()
    difference = float(np.abs(served - wanted).max(initial=0.0))
    if not difference <= AGREEMENT:
        raise RuntimeError(f"The exported item policy is {difference:.2g} off the trained one.")
    return difference


def reader(path: Path, history: int) -> Callable[[NDArray[np.integer]], NDArray[np.float32]]:
    """From somebody's items [h], the most recent last, to the vector [d] that the file at `path` makes of them.

    A file whose length is free is given the last `history` items, one of a fixed length as many as it takes.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    length = session.get_inputs()[0].shape[1]
    most, least = (length, length) if isinstance(length, int) else (history, 1)

    def read(rows: NDArray[np.integer]) -> NDArray[np.float32]:
        last = rows[-most:]
        padded = np.zeros((1, max(len(last), least)), np.int64)
        padded[0, padded.shape[1] - len(last) :] = last + 1
        (vectors,) = session.run(["vector"], {"history": padded})
        return np.asarray(vectors, np.float32)[0]

    return read
