"""The same stages on this machine and on a local Ray cluster: seconds, and whether the artifacts are the same.

    python benchmarks/cluster.py W [--until transition_table] [--set section.setting=value]... [--json]

Takes the source and the settings of workspace W and makes its artifacts three times in a temporary folder:
natively, on Ray, and on Ray while the first actor that is seen at work is killed. Two workers share this machine's
cores, so seconds show what the cluster costs and not what more machines would gain. Needs the extra `ray`.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from byway.base import config
from byway.workflow import pipeline

ACTOR = "_Actor"


def workers() -> list[tuple[int, str]]:
    """Processes of Ray's workers below this one, with what they are at."""
    found: list[tuple[int, str]] = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes()
            above: set[str] = set()
            at = process.name
            while at not in ("0", "1") and line.startswith(b"ray::"):
                at = (Path("/proc") / at / "stat").read_text().rsplit(")", 1)[1].split()[1]
                above.add(at)
            if str(os.getpid()) in above:
                found.append((int(process.name), line.split(b"\0")[0].decode()))
        except (OSError, IndexError):
            continue
    return found


def kill_first(tasks: tuple[str, ...]) -> None:
    """End the first worker that is seen at one of `tasks`, and say so."""
    while True:
        for pid, name in workers():
            if any(task in name for task in tasks):
                os.kill(pid, signal.SIGKILL)
                print("killed", name, file=sys.stderr, flush=True)
                return
        time.sleep(0.02)


def one(folder: Path, engine: str, until: str, overrides: list[str], tasks: tuple[str, ...]) -> None:
    """The stages in this process; prints digest, counts and seconds of every artifact."""
    if engine == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
        if tasks:
            threading.Thread(target=kill_first, args=(tasks,), daemon=True).start()
    settings = config.load(folder / "byway.toml", [*overrides, f"run.engine={engine}"])
    records = pipeline.run(folder, settings, until=until)
    print(json.dumps({name: [r.digest, r.counts, r.timings["seconds"]] for name, r in records.items()}))


def run(
    folder: Path, engine: str, until: str, *tasks: str, overrides: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The stages under one engine, in a process of its own, since a process has one runner.

    The first worker that is seen at one of `tasks` is killed.
    """
    command = [sys.executable, __file__, str(folder), "--one", engine, "--until", until]
    command += [part for text in overrides for part in ("--set", text)]
    command += [part for task in tasks for part in ("--kill", task)]
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=3600, check=False, env={**os.environ, **quiet}
    )


def made(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a run printed of its artifacts."""
    if done.returncode:
        sys.exit(f"a run ended with {done.returncode}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def digests(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Digest and counts of what a run made."""
    return {name: row[:2] for name, row in made(done).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--until", default="transition_table")
    parser.add_argument("--set", action="append", default=[], help="section.setting=value")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        one(options.workspace, options.one, options.until, options.set, tuple(options.kill))
        return
    found: dict[str, Any] = {}
    contents: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, engine, tasks in (("native", "native", ()), ("ray", "ray", ()), ("ray_killed", "ray", (ACTOR,))):
            folder = Path(place) / name
            folder.mkdir()
            for entry in options.workspace.iterdir():
                if not re.match(r"\d\d-|\.", entry.name):
                    (folder / entry.name).symlink_to(entry.resolve())
            began = time.perf_counter()
            done = run(folder, engine, options.until, *tasks, overrides=tuple(options.set))
            contents[name] = digests(done)
            found[name] = {stage: round(row[2], 1) for stage, row in made(done).items()}
            found[name]["wall"] = round(time.perf_counter() - began, 1)
            found[f"{name}.killed"] = [line for line in done.stderr.splitlines() if line.startswith("killed")]
    found["same"] = contents["ray"] == contents["native"]
    found["same_after_kill"] = contents["ray_killed"] == contents["native"]
    found["ratio.ray_over_native"] = round(found["ray"]["wall"] / found["native"]["wall"], 3)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
