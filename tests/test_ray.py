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

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'byway[ray]'"
    ),
]
TOPICS = ["harbour", "violin", "glacier", "bakery", "chess", "orchid"]

RUN = """
import json, os, signal, sys, threading, time
from pathlib import Path
from byway import config, pipeline

folder, engine, kill = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "kill"

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
            if "Scan" in name or "Project" in name or "Filter" in name:
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
records = pipeline.run(folder, config.load(folder / "byway.toml", [f"run.engine={engine}"]), until="catalog")
print(json.dumps({"digest": records["catalog"].digest, "counts": records["catalog"].counts}))
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
    toml = '[catalog]\nsource = "csv"\nitems = "items.csv"\nevents = "events-*.csv"\n[run]\nthreads = 1\n'
    (folder / "byway.toml").write_text(toml, "utf-8")
    return folder


def run(folder: Path, engine: str, kill: str = "") -> subprocess.CompletedProcess[str]:
    """The catalog under one engine; in a process of its own, since a process has one runner."""
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder), engine, kill],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
    )


def made(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_cluster_makes_the_same_catalog_also_after_it_lost_a_worker(tmp_path: Path) -> None:
    """Daft does not replace a lost worker within a query: the stage ends with a sentence, nothing is half made."""
    folder = workspace(tmp_path / "ray")
    cut = run(folder, "ray", "kill")
    assert "killed ray::" in cut.stderr
    if cut.returncode:
        assert "The cluster lost a worker" in cut.stderr, cut.stderr[-3000:]
        assert not (folder / "01-catalog").exists()
    assert made(run(folder, "ray")) == made(run(workspace(tmp_path / "native"), "native"))
