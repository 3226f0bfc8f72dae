"""Kill the demo at random moments, start it again each time, and compare with an undisturbed run.

    python benchmarks/kill.py [--full] [--kills 10] [--json]

Prints, for every artifact, whether its files are the same byte for byte, and the figures, timings aside.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def records(workspace: Path) -> dict[str, dict]:
    """The records of all artifacts, without what tells the time: digests of files, settings, inputs, figures."""
    found = {p.parent.name: json.loads(p.read_text()) for p in sorted(workspace.glob("*/record.json"))}
    for record in found.values():
        for name in ("timings", "created"):
            del record[name]
        # Media files are told apart by their time of change, and each run makes its own.
        if record["inputs"].pop("files", None) is not None:
            del record["fingerprint"]
        record["metrics"] = {k: v for k, v in record["metrics"].items() if "second" not in k}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    byway = str(Path(sys.executable).with_name("byway"))
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:

        def start(name: str) -> subprocess.Popen[bytes]:
            command = [byway, "demo", str(Path(folder) / name), *(["--full"] if options.full else [])]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        began = time.perf_counter()
        if start("whole").wait():
            sys.exit("The undisturbed run failed.")
        seconds = time.perf_counter() - began
        killed: list[dict[str, object]] = []
        while len(killed) < options.kills:
            process = start("killed")
            # Ten such parts are five sixths of a run, less what each kill costs: it is not over before the last.
            try:
                process.wait(timeout=rng.uniform(1, seconds / 6))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                there = [p.name for p in sorted((Path(folder) / "killed").glob("[01]*")) if p.is_dir()]
                killed.append({"kill": len(killed) + 1, "at": there[-1] if there else "before the first artifact"})
                continue
            break
        while start("killed").wait():
            sys.exit("The run did not complete after the kills.")
        whole, after = records(Path(folder) / "whole"), records(Path(folder) / "killed")
        differ = [name for name in sorted(whole.keys() | after.keys()) if whole.get(name) != after.get(name)]
    result = {"kills": killed, "artifacts": len(whole), "differ": differ, "undisturbed_seconds": round(seconds, 1)}
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    sys.exit(bool(differ) or len(killed) < options.kills)


if __name__ == "__main__":
    main()
