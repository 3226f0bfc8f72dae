"""A few of the states of `benchmarks/faults.py`, which tries them all; and a defect that it has to find."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "faults.py"
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


def run(*options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_state_is_the_old_or_the_new_and_the_next_run_completes() -> None:
    code, found = run("--every", "23")
    assert (code, found["lost"], found["completed"]) == (0, 0, found["states"])
    assert found["states"] > 60
    killed = [count for name, count in found["small"]["exit_codes"].items() if name.endswith("-9")]
    assert sum(killed) == found["states"] // 2


def test_a_run_that_does_not_sync_is_found_out() -> None:
    code, found = run("--every", "7", "--without-sync", "--only", "power")
    assert code == 1
    assert found["lost"] > 0
