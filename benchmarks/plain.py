"""A newcomer's first hour on a plain machine: `make demo` and the tests, in a fresh clone, with what is seen when.

    python benchmarks/plain.py [--machine plain] [--machine as-is] [--tests quick|all] [--revision HEAD] [--json]

The plain machine is this one, told to use nothing beyond AVX2 (`MACHINES`). On one of ours a picture in bfloat16
then takes eleven times as long as in float32, as on processors without AVX-512. The clone has no environment
yet, so that installation is in the times; downloads come from wherever pip has them here. Memory is that of all
processes together, without what they share, twice a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TypedDict

import psutil

MACHINES = {
    "plain": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "as-is": {},
}
"""What is set in the environment. MKL and ONNX Runtime choose by the processor and have no such switch on every
processor; what they compute here is in float32, which is fast either way."""
INSTALLED = "Building the embedded world"
"""The first line of the demo itself."""
SEEN = "interests, in the items' own words"
"""What says that there is something to look at."""
LOOK = 90.0
"""Seconds after the installation at which a newcomer looks at the screen."""
TESTS = {"quick": ["-m", "not slow"], "all": []}


class Watched(TypedDict):
    """A command that has ended."""

    seconds: float
    exit: int
    gigabytes: float
    """Peak of all its processes."""


def watched(
    command: list[str], folder: Path, environment: dict[str, str]
) -> tuple[Watched, list[tuple[float, str]]]:
    """Run a command to its end: what it took, and its lines with the second of each."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    peak = [0]

    def weigh() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], _memory(process.pid))
            time.sleep(0.5)

    scales = threading.Thread(target=weigh)
    scales.start()
    assert process.stdout is not None
    lines = [(time.perf_counter() - began, line.rstrip()) for line in process.stdout]
    code = process.wait()
    scales.join()
    return {"seconds": time.perf_counter() - began, "exit": code, "gigabytes": peak[0] / 1e9}, lines


def _memory(pid: int) -> int:
    """Bytes that a process and its children hold alone."""
    total = 0
    try:
        for process in [parent := psutil.Process(pid), *parent.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue
    except psutil.Error:
        return total
    return total


def demo(folder: Path, environment: dict[str, str]) -> dict[str, object]:
    """`make demo`: how long until it is installed, until something is seen, and in all; the screen at `LOOK`."""
    run, lines = watched(["make", "demo"], folder, environment)
    first = next((at for at, line in lines if INSTALLED in line), None)
    seen = next((at for at, line in lines if SEEN in line), None)
    out: dict[str, object] = {**run, "installed": first}
    if first is None or seen is None:
        return {**out, "said": [line for _, line in lines[-20:]]}
    screen = [f"{at - first:6.1f} s  {line}" for at, line in lines if first <= at <= first + LOOK and line]
    return {**out, "first_look_after_installation": seen - first, "screen": screen}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", choices=list(MACHINES), action="append")
    parser.add_argument("--tests", choices=list(TESTS))
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    source = Path(__file__).parents[1]
    found: dict[str, dict[str, dict[str, object]]] = {}
    for machine in options.machine or list(MACHINES):
        environment = MACHINES[machine]
        with tempfile.TemporaryDirectory() as temporary:
            clone = Path(temporary) / "byway"
            subprocess.run(["git", "clone", "--quiet", str(source), str(clone)], check=True)
            subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", options.revision], check=True)
            # What a former run unpacked would not be there for a newcomer.
            environment = {**environment, "XDG_CACHE_HOME": str(Path(temporary) / "cache")}
            figures: dict[str, dict[str, object]] = {"demo": demo(clone, environment)}
            if options.tests:
                arguments = " ".join(f"'{word}'" for word in TESTS[options.tests])
                run, lines = watched(["make", "test", f"PYTEST={arguments}"], clone, environment)
                said = [line for _, line in lines if "[info " not in line]
                figures["tests"] = {**run, "said": said[-1 if not run["exit"] else -60 :]}
        found[machine] = figures
        if not options.json:
            print(f"{machine}\n{json.dumps(figures, indent=2, ensure_ascii=False)}", flush=True)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    if any(part["exit"] for machine in found.values() for part in machine.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
