"""The same artifacts from a Ray cluster as from this machine. Ray takes a minute to start: marked slow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway.language import models
from tests.language.conftest import make_tiny

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
evaluate_on = 4
[transition_table]
rows_per_chunk = 4
[run]
threads = 1
"""
TOPICS = ["harbour", "violin", "glacier", "bakery", "chess", "orchid"]

RUN = """
import json, os, signal, sys, threading, time
from pathlib import Path
from byway import config, pipeline

folder, engine, until, kill = Path(sys.argv[1]), *sys.argv[2:4], sys.argv[4:]

def workers():
    "Processes of Ray's workers below this one."
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes()
            parents, at = set(), process.name
            while at not in ("0", "1") and line.startswith(b"ray::"):
                at = (Path("/proc") / at / "stat").read_text().rsplit(")", 1)[1].split()[1]
                parents.add(at)
            if str(os.getpid()) in parents:
                found.append((int(process.name), line.split(b"\\0")[0].decode()))
        except (OSError, IndexError):
            continue
    return found

killed = []
def killer():
    "End the first worker that is seen at a task."
    while not killed:
        for pid, name in workers():
            if any(task in name for task in kill):
                os.kill(pid, signal.SIGKILL)
                killed.append(name)
                print("killed", name, file=sys.stderr, flush=True)
                return
        time.sleep(0.02)

if engine == "ray":
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    if kill:
        threading.Thread(target=killer, daemon=True).start()
records = pipeline.run(folder, config.load(folder / "byway.toml", [f"run.engine={engine}"]), until=until)
print(json.dumps({name: [record.digest, record.counts] for name, record in records.items()}))
"""


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


def run(folder: Path, engine: str, until: str, *kill: str) -> subprocess.CompletedProcess[str]:
    """The road under one engine; in a process of its own, since a process has one runner.

    The first worker that is seen at one of the tasks `kill` is killed.
    """
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder), engine, until, *kill],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
    )


def made(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_cluster_makes_the_same_artifacts_also_after_it_lost_a_worker(tmp_path: Path) -> None:
    """Daft does not replace a worker that is lost within a query: the stage ends with a sentence, nothing is half
    made."""
    folder = workspace(tmp_path / "ray")
    cut = run(folder, "ray", "catalog", "Scan", "Project", "Filter")
    assert "killed ray::" in cut.stderr
    if cut.returncode:
        assert "The cluster lost a worker" in cut.stderr, cut.stderr[-3000:]
        assert not (folder / "01-catalog").exists()
    native = made(run(workspace(tmp_path / "native"), "native", "transition_table"))
    assert made(run(folder, "ray", "catalog"))["catalog"] == native["catalog"]

    # An actor that is lost at a batch of texts or at rows of the table costs its task alone.
    again = run(folder, "ray", "transition_table", "_Actor")
    assert "killed ray::_Actor" in again.stderr
    assert made(again) == native
