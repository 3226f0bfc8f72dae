"""Products in float16 by Intel's Math Kernel Library, where it is installed: `pip install 'byway[mkl]'`.

Processors with AVX-512 float16 multiply twice as many numbers at a time in it as in float32; torch widens them to
float32 first. Sums are rounded to float16 every few hundred products at the latest, so that what comes out is
coarser than bfloat16 added up in float32 would suggest: near ties are asked again in float32 (`bulk.rounding`).
"""

import ctypes
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from byway.base import device, precision
from byway.base.errors import UserError
from byway.language.fast.passes import ForwardPass, attend, kept_tokens

ROWS = 2048
"""Rows that are computed together: what lies between products stays near the processor."""
ROW_MAJOR, AS_IS, TRANSPOSED = 101, 111, 112
SEQUENTIAL, GNU = 1, 3
"""Threading layers of the library. With GNU's it shares torch's own threads; other ones would contend with these,
which wait for work by spinning: on two cores that costs a third."""
ONE, ZERO = ctypes.c_uint16(0x3C00), ctypes.c_uint16(0)


@cache
def library() -> Any:
    """The library, ready to multiply; None where it is not installed."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    found = [file.locate() for file in files if file.name.startswith("libmkl_rt.so")]
    try:
        mkl = ctypes.CDLL(str(found[0]))
        # Without GNU's threads in this process the library would end it.
        shared = "/libgomp" in Path("/proc/self/maps").read_text("utf-8")
        mkl.MKL_Set_Threading_Layer(GNU if shared else SEQUENTIAL)
        return mkl if mkl.cblas_hgemm else None
    except (IndexError, OSError, AttributeError):
        return None


def resolved(setting: str) -> str:
    """`setting`, and for "auto" what is fastest here: "float16", "bfloat16" or "float32".

    A GPU needs no library for float16.
    """
    if device.chosen().type != "cpu":
        return precision.resolved(setting)
    if setting == "float16" and library() is None:
        raise UserError(
            "The table was made in float16, which needs Intel's MKL: pip install 'byway[mkl]', or set "
            'run.precision = "float32" and run again.'
        )
    return fastest() if setting == "auto" else setting


@cache
def fastest() -> str:
    """As `precision.fastest`, with float16; measured once a process."""
    known = precision.fastest()
    if library() is None:
        return known
    other = precision.seconds(precision.product, precision.dtype(known))
    own = precision.seconds(lambda dtype: precision.product(dtype, product), torch.float16)
    return "float16" if other > precision.GAIN * own else known


def product(left_NK: Tensor, right_MK: Tensor, out_NM: Tensor | None = None) -> Tensor:
    """[N, M] `left @ right.T`, all in float16 with contiguous rows; into `out` where that is given."""
    (N, K), M = left_NK.shape, right_MK.shape[0]
    out_NM = torch.empty(N, M, dtype=torch.float16) if out_NM is None else out_NM
    mkl = library()
    mkl.MKL_Set_Num_Threads_Local(torch.get_num_threads())
    a, b, c = (ctypes.c_void_p(each.data_ptr()) for each in (left_NK, right_MK, out_NM))
    of = (a, left_NK.stride(0), b, right_MK.stride(0), ZERO, c, out_NM.stride(0))
    mkl.cblas_hgemm(ROW_MAJOR, AS_IS, TRANSPOSED, N, M, K, ONE, *of)
    return out_NM


class Linear(torch.nn.Module):
    """A linear layer whose product is this module's."""

    def __init__(self, layer: torch.nn.Linear):
        super().__init__()
        self.weight = torch.nn.Parameter(layer.weight.detach().half().contiguous(), requires_grad=False)
        bias = dict(layer.named_parameters()).get("bias")
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach().half(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        made = product(x.reshape(-1, x.shape[-1]).contiguous(), self.weight)
        if self.bias is not None:
            made += self.bias
        return made.view(*x.shape[:-1], -1)


class Gated(torch.nn.Module):
    """A gated feed-forward block, `down(act(gate(x)) * up(x))`, a few rows at a time."""

    def __init__(self, block: Any):
        super().__init__()
        both = torch.cat([block.gate_proj.weight, block.up_proj.weight]).detach().half()
        self.both = torch.nn.Parameter(both, requires_grad=False)
        self.down = torch.nn.Parameter(block.down_proj.weight.detach().half().contiguous(), requires_grad=False)
        self.act = block.act_fn

    def forward(self, x: Tensor) -> Tensor:
        flat, wide = x.reshape(-1, x.shape[-1]).contiguous(), self.down.shape[1]
        out, room = torch.empty_like(flat), torch.empty(min(ROWS, len(flat)), 2 * wide, dtype=torch.float16)
        for start in range(0, len(flat), ROWS):
            part = flat[start : start + ROWS]
            both = product(part, self.both, room[: len(part)])
            product(self.act(both[:, :wide]).mul_(both[:, wide:]), self.down, out[start : start + ROWS])
        return out.view(x.shape)


class Layer(torch.nn.Module):
    """A decoder layer of a Llama, whose queries, keys and values are one product and which adds up in place."""

    def __init__(self, layer: Any):
        super().__init__()
        self.last = False
        """Whether no layer follows: then only what is wanted is computed to its end."""
        attention = layer.self_attn
        self.layer_idx, self.d, self.scaling = attention.layer_idx, attention.head_dim, attention.scaling
        parts = [getattr(attention, f"{name}_proj").weight.detach() for name in "qkv"]
        self.heads = [len(part) // self.d for part in parts]
        self.three = torch.nn.Parameter(torch.cat(parts).half(), requires_grad=False)
        self.o = torch.nn.Parameter(attention.o_proj.weight.detach().half().contiguous(), requires_grad=False)
        self.before, self.between = layer.input_layernorm, layer.post_attention_layernorm
        self.gated = Gated(layer.mlp)

    def forward(
        self, x_1NH: Tensor, position_embeddings: tuple[Tensor, Tensor], passes: list[ForwardPass], **_: Any
    ) -> Tensor:
        x, (cos, sin) = x_1NH[0], (each[0, :, None, : self.d // 2] for each in position_embeddings)
        parts = [slice(start, start + ROWS) for start in range(0, len(x), ROWS)]
        three, turning = x.new_empty(len(x), len(self.three)), sum(self.heads[:2])
        for part in parts:
            made = product(_normed(self.before, x[part]), self.three, three[part]).view(-1, sum(self.heads), self.d)
            _turn(made[:, :turning], cos[part], sin[part])
        q, k, v = three.view(1, len(x), -1, self.d).transpose(1, 2).split(self.heads, dim=1)
        attended = attend(self, q, k, v, None, scaling=self.scaling, passes=passes)[0].reshape(len(x), -1)
        if self.last and (kept := kept_tokens(passes)) is not None:
            x, attended = x.index_select(0, kept), attended.index_select(0, kept)
            parts = [slice(start, start + ROWS) for start in range(0, len(x), ROWS)]
        out = torch.empty_like(x)
        for part in parts:
            here = torch.add(x[part], product(attended[part], self.o), out=out[part])
            here += self.gated(_normed(self.between, here))
        return out[None]


def _normed(norm: Any, x: Tensor) -> Tensor:
    """Divided by its root mean square, in float32 as the library does, with fewer tensors in between."""
    wide = x.float()
    size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    wide *= size.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    return wide.half().mul_(norm.weight)


def _turn(x_Nhd: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotary position embedding, in place."""
    left, right = x_Nhd.chunk(2, dim=-1)
    turned = (left * cos).addcmul_(right, sin, value=-1)
    right.mul_(cos).addcmul_(left, sin)
    left.copy_(turned)


def _llama(layer: torch.nn.Module) -> bool:
    """Whether a layer is a Llama's, without biases."""
    weights = {name for name, _ in layer.named_parameters()}
    return type(layer) is LlamaDecoderLayer and not any(name.endswith("bias") for name in weights)


def _gated(layer: torch.nn.Module) -> bool:
    """Whether a layer is the gated block of Llama, Mistral or Qwen: these three products, no bias, nothing else."""
    parts = dict(layer.named_children())
    linear = {
        name
        for name, part in parts.items()
        if type(part) is torch.nn.Linear and "bias" not in dict(part.named_parameters())
    }
    return linear == {"gate_proj", "up_proj", "down_proj"} and parts.keys() - linear == {"act_fn"}


def put(model: PreTrainedModel) -> PreTrainedModel:
    """Replace the layers of the model's body, in place; the model is for `passes` only from then on.

    A model on a GPU stays as it is, since torch multiplies float16 there.
    """
    if model.device.type != "cpu":
        return model
    body: Any = model.half().base_model
    _replace(body)
    last: Any = body.layers[-1] if type(body) is LlamaModel else None
    if type(last) is Layer:
        last.last = True
    return model


def _replace(parent: torch.nn.Module) -> None:
    for name, layer in list(parent.named_children()):
        if _llama(layer):
            setattr(parent, name, Layer(layer))
        elif _gated(layer):
            setattr(parent, name, Gated(layer))
        elif type(layer) is torch.nn.Linear:
            setattr(parent, name, Linear(layer))
        else:
            _replace(layer)
