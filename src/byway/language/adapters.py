"""Low-rank adapters: small trained matrices beside frozen ones, and the weights with them merged in."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

RANK = 16
"""Rank of the adapters that a fine-tuning puts on a model."""


def adapt(model: Any, rng: np.random.Generator) -> Any:
    """Freeze `model` and put adapters, drawn from `rng`, on its linear layers."""
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    adapters = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    with torch.random.fork_rng():  # the library draws from the global state
        torch.manual_seed(int(rng.integers(2**31)))
        return inject_adapter_in_model(adapters, model)


def merged(model: Any) -> dict[str, Tensor]:
    """The model's weights with its adapters merged in, under the names that they had without."""
    for module in list(model.modules()):
        if hasattr(module, "merge") and hasattr(module, "lora_A") and not module.merged:
            module.merge()
    return {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if "lora_" not in k}
