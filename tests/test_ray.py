"""The same artifacts from a Ray cluster as from this machine. Ray takes a minute to start: marked slow."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway.base import models
from byway.workflow.recommendations import PART
from tests.language.conftest import make_tiny
from tests.serving import house

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'byway[ray]'"
    ),
]
TOML = """
[catalog]
source = "csv"
items = "items.csv"
events = "events-*.csv"
[tree]
items_per_cluster = 20
[language_model]
model = "{model}"
steps = 2
[run]
threads = 1
"""
TOPICS = ["harbour", "violin", "glacier", "bakery", "chess", "orchid"]


def workspace(folder: Path) -> Path:
    """A small log in several files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    items = [f'{i},"{TOPICS[i % 6]} {TOPICS[i // 6 % 6]} {i}"' for i in range(300)]
    (folder / "items.csv").write_text("\n".join(["item,title", *items]), "utf-8")
    for part in range(4):
        rows = [
            f"u{rng.integers(90)},{rng.integers(310)},{1_700_000_000 + rng.integers(10**6)}" for _ in range(2500)
        ]
        (folder / f"events-{part}.csv").write_text("\n".join(["user,item,time", *rows]), "utf-8")
    (folder / "byway.toml").write_text(TOML.format(model=folder.parent / "model"), "utf-8")
    make_tiny().save_pretrained(folder.parent / "model")
    models.load_tokenizer("smollm2-135m").save_pretrained(folder.parent / "model")
    return folder


@pytest.fixture
def cluster() -> Any:
    """`benchmarks/cluster.py`, which times what is compared here."""
    path = Path(__file__).parents[1] / "benchmarks" / "cluster.py"
    spec = importlib.util.spec_from_file_location("cluster", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cluster_makes_the_same_artifacts_also_after_it_lost_a_worker(tmp_path: Path, cluster: Any) -> None:
    """Daft does not replace a worker that is lost within a query: the stage ends with a sentence, nothing is half
    made."""
    folder = workspace(tmp_path / "ray")
    cut = cluster.run(folder, "ray", "catalog", "Scan", "Project", "Filter")
    assert "killed ray::" in cut.stderr
    if cut.returncode:
        assert "The cluster lost a worker" in cut.stderr, cut.stderr[-3000:]
        assert not (folder / "01-catalog").exists()
    native = cluster.digests(cluster.run(workspace(tmp_path / "native"), "native", "transition_table"))
    assert cluster.digests(cluster.run(folder, "ray", "catalog"))["catalog"] == native["catalog"]

    # An actor that is lost at a batch of texts or at rows of the table costs its task alone.
    again = cluster.run(folder, "ray", "transition_table", "_Actor")
    assert "killed ray::_Actor" in again.stderr
    assert cluster.digests(again) == native


def test_a_cluster_answers_everybody_with_the_same_table(tmp_path: Path) -> None:
    """In two parts, of which either may be done first."""
    house.build(tmp_path / "w", users=PART + 500)
    script = Path(__file__).parents[1] / "benchmarks" / "recommend_all.py"
    command = [sys.executable, str(script), str(tmp_path / "w"), "--k", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["same_table"]
    assert found["ray.users"] == PART + 500
