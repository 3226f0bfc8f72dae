"""What looks at a video and names a cluster: two doors, one protocol.

A causal language model by name is given the eyes of 01-media (`eyes`): vectors of pictures, a projector that is
trained here, soft tokens. An image-text-to-text model by name has its own (`hub`). Both answer under the trie of
legal names. Owns the protocol, what both are asked with, and which door a name leads through.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config, models, precision
from byway.base.errors import UserError
from byway.multimodal.contexts import Contexts, Seer


def is_hub(name: str) -> bool:
    """Whether `name` is an image-text-to-text model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if name == models.SHIPPED:
        return False
    try:
        found: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"multimodal_model.model = {name!r} cannot be loaded: give {models.SHIPPED!r}, a folder, or a hub name "
            f"that can be reached ({str(error).splitlines()[0]})."
        ) from error
    return found.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def new_seer(knobs: config.MultimodalModel, asked: Contexts, rng: np.random.Generator) -> Seer:
    """The model that `knobs` name, ready to be trained."""
    dtype = precision.dtype(knobs.precision)
    if is_hub(knobs.model):
        from byway.multimodal import hub

        return hub.new(knobs, asked, dtype, rng)
    from byway.multimodal import eyes

    return eyes.new(knobs, asked, dtype, rng)


def open_seer(path: Path, asked: Contexts, arithmetic: str) -> Seer:
    """The fine-tuned model in the artifact at `path`."""
    dtype = precision.dtype(arithmetic)
    made = json.loads((path / "seer.json").read_text("utf-8"))
    if made["door"] == "hub":
        from byway.multimodal import hub

        return hub.open_saved(path, made, asked, dtype)
    from byway.multimodal import eyes

    return eyes.open_saved(path, made, asked, dtype)
