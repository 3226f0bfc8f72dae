"""What looks at a video and names a cluster: two backends, one protocol.

A causal language model by name is given the vectors of pictures that 01-media made (`embedded`): vectors of
pictures, a projector that is trained here, soft tokens. An image-text-to-text model by name has its own (`hub`).
Both answer under the trie of legal names. Owns the protocol, what both are asked with, and which backend a name
means.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config, known_models, models, precision
from byway.base.errors import UserError
from byway.multimodal.contexts import Contexts, Follows, VisionLanguageModel


def is_hub(name: str) -> bool:
    """Whether `name` is an image-text-to-text model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if name in known_models.KNOWN:  # these are causal language models, all of them
        return False
    try:
        model, revision = known_models.split(name)
        found: Any = AutoConfig.from_pretrained(model, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"multimodal_model.model = {name!r} cannot be loaded: give {models.SHIPPED!r}, a folder, or a hub name "
            f"that can be reached ({str(error).splitlines()[0]})."
        ) from error
    return found.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def new_model(
    settings: config.MultimodalModel, asked: Contexts, follows: Follows, arithmetic: str, rng: np.random.Generator
) -> VisionLanguageModel:
    """The model that `settings` name, ready to be trained; what `follows` is for a first lesson."""
    dtype = precision.dtype(arithmetic)
    if is_hub(settings.model):
        from byway.multimodal import hub

        return hub.new(settings, asked, dtype, rng)
    from byway.multimodal import embedded

    return embedded.new(settings, asked, follows, dtype, rng)


def open_model(path: Path, asked: Contexts, arithmetic: str) -> VisionLanguageModel:
    """The fine-tuned model in the artifact at `path`."""
    dtype = precision.dtype(arithmetic)
    made = json.loads((path / "backend.json").read_text("utf-8"))
    if made["backend"] == "hub":
        from byway.multimodal import hub

        return hub.open_saved(path, asked, dtype)
    from byway.multimodal import embedded

    return embedded.open_saved(path, asked, dtype)
