"""Nothing that is read can run code: no pickle, no weights but safetensors, no remote code, no archives."""

import ast
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byway.base import config, models
from byway.base.errors import UserError
from byway.data import catalog
from byway.interests import embed, encoders, graph, tree
from byway.items import sequence
from byway.serving import bundle
from byway.transitions import standing
from byway.transitions import table as tables
from byway.transitions.signals import TableWeights
from tests.language.conftest import make_tiny

SOURCES = sorted((Path(__file__).resolve().parents[1] / "src" / "byway").rglob("*.py"))
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "zipfile", "tarfile", "runpy"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"unpack_archive", "extractall"}


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


def found_in(source: str) -> set[str]:
    """What a module does that it must not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]} & MODULES
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            owner = (
                called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
            )
            by_itself = isinstance(called, ast.Name) and name in BUILTINS
            if by_itself or name in CALLS or (owner, name) in (("torch", "load"), ("torch", "save")):
                found.add(f"{owner}.{name}".strip("."))
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ("allow_pickle", "trust_remote_code") and constant is not False:
                    found.add(f"{keyword.arg}")
                if keyword.arg == "use_safetensors" and constant is not True:
                    found.add("use_safetensors")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_module_unpickles_unpacks_or_evaluates(path: Path) -> None:
    text = path.read_text("utf-8")
    # EfficientNet's weights come inside an installed package, in torch's own format; it reads tensors alone.
    allowed = {"torch.load"} if path.name == "pictures.py" and text.count("weights_only=True") == 1 else set[str]()
    # A log that is the only member of a zip archive is read as a stream: no name in the archive becomes a path.
    allowed |= {"zipfile"} if path.name == "containers.py" and ".extract" not in text else set[str]()
    assert found_in(text) == allowed


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from tarfile import open",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)",
        "AutoModel.from_pretrained(n, use_safetensors=False)",
        "eval(text)",
        "shutil.unpack_archive(p)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert found_in(line)


ARRAYS: list[tuple[Callable[[Path], Any], str]] = [
    (embed.load, "vectors"),
    (graph.load, "indptr"),
    (tree.load, "order"),
    (tables.load, "clusters"),
    (standing.load_standing, "user-starts"),
    (sequence.load, "items"),
    (sequence.load, "content"),
    (bundle.load, "ids"),
]


@pytest.mark.parametrize(("load", "name"), ARRAYS, ids=lambda part: getattr(part, "__module__", part))
def test_an_array_with_a_pickle_in_it_is_not_read(load: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    folder = tmp_path / "artifact"
    folder.mkdir()
    for other in ("indices", "weights", "scores", "model", "user-touched", "user-recent", "content", "items",
                  "ids_offsets", *(f"level-{i}" for i in range(1, 5))):  # fmt: skip
        np.save(folder / f"{other}.npy", np.zeros(1))
    manifest = bundle.Manifest(2, [], 1, False, {})
    (folder / "manifest.json").write_bytes(bundle.msgspec.json.encode(manifest))
    (folder / "fitted.json").write_bytes(bundle.msgspec.json.encode(TableWeights({})))
    np.save(folder / f"{name}.npy", np.array([Bomb(bomb)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle|Python objects"):
        load(folder)
    assert not bomb.exists()


def pickled_weights(folder: Path, bomb: Path) -> None:
    """Replace the safetensors of a model's folder by a pickle that does harm."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with (folder / "pytorch_model.bin").open("wb") as f:
        pickle.dump(Bomb(bomb), f)


def test_a_language_model_of_pickled_weights_is_refused(tmp_path: Path) -> None:
    make_tiny().save_pretrained(tmp_path / "model")
    pickled_weights(tmp_path / "model", tmp_path / "exploded")
    with pytest.raises(UserError, match="safetensors"):
        models.load(str(tmp_path / "model"))
    assert not (tmp_path / "exploded").exists()


def test_a_language_model_that_brings_code_does_not_run_it(tmp_path: Path) -> None:
    folder, bomb = tmp_path / "model", tmp_path / "exploded"
    make_tiny().save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    settings |= {"model_type": "own", "auto_map": own}
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    (folder / "own.py").write_text(f"import os; os.mkdir({str(bomb)!r})", "utf-8")
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load(str(folder))
    assert not bomb.exists()


@pytest.mark.parametrize("harm", ["weights", "module"])
def test_an_encoder_that_brings_harm_is_refused(tmp_path: Path, harm: str) -> None:
    folder, bomb = tmp_path / "encoder", tmp_path / "exploded"
    packaged = encoders.packaged_minilm()
    folder.mkdir()
    for file in packaged.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(packaged)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    if harm == "weights":
        pickled_weights(folder, bomb)
    else:
        parts = json.loads((folder / "modules.json").read_text("utf-8"))
        parts.append({"idx": len(parts), "name": "own", "path": "", "type": "own.Module"})
        (folder / "modules.json").write_text(json.dumps(parts), "utf-8")
        (folder / "own.py").write_text(f"import os; os.mkdir({str(bomb)!r})", "utf-8")
    with pytest.raises((UserError, ImportError)):
        embed.sentence_encoder(config.Embeddings(model=str(folder)))
    assert not bomb.exists()


def test_a_checkpoint_is_no_pickle(tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    (tmp_path / "checkpoint").write_bytes(pickle.dumps(Bomb(bomb)))
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(sequence.safetensors.SafetensorError):
        sequence.restore(tmp_path / "checkpoint", layer, torch.optim.Adam(layer.parameters()))
    assert not bomb.exists()


def test_paths_of_an_input_are_never_opened(tmp_path: Path) -> None:
    """Thumbnails and media are columns: the catalog keeps them and opens none."""
    (tmp_path / "items.csv").write_text("item,title,media\n../../x,A title,/etc/shadow\n", "utf-8")
    (tmp_path / "events.csv").write_text("user,item\n../u,../../x\n", "utf-8")
    settings = config.Catalog(source="csv", items="items.csv", events="events.csv")
    (tmp_path / "out").mkdir()
    work = catalog.Work(tmp_path / "out", tmp_path, np.random.default_rng(0))
    catalog.build(work, settings, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.csv", "items.csv", "out"]
    assert catalog.load(tmp_path / "out").items["media"].to_pylist() == ["/etc/shadow"]


def test_versions_are_pinned_exactly() -> None:
    lines = (Path(__file__).resolve().parents[1] / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s=*]+", line)] == []
    names = [line.split("==")[0].lower() for line in pins]
    assert len(names) == len(set(names))
