"""`byway recommend W --all` on this machine and on a local Ray cluster: users a second, memory, the same table.

    python benchmarks/recommend_all.py W [--k 10] [--alone 500] [--ray-workers 2] [--json]

Answers every user of the log of workspace W, from what is opened to the file that is whole, each time in a process
of its own; and some of them one after the other by `recommend`, which is what the batches save. Rates are by the
clock and by processor time, which a busy machine disturbs less. Peaks are those of the process that writes.

Where Ray is installed its table is compared with the native one, byte for byte; its workers share this machine's
cores, so seconds show what the cluster costs and not what more machines would gain.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from byway.base import artifact, engine
from byway.serving.recommend import recommend
from byway.workflow import recommendations, showing


def everybody(workspace: Path, out: Path, k: int, chosen: engine.Engine, workers: int) -> dict[str, Any]:
    """One run of the verb in this process."""
    if chosen == "ray":
        import ray

        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
        engine.use(chosen, 1)
    before = {"imported_mb": peak()}
    began = clocks()
    found = recommendations.write(workspace, out, k)
    return {**found, **rates(found["users"], began), **before, "digest": artifact.hash_file(out)}


def alone(workspace: Path, users: int, k: int) -> dict[str, Any]:
    """Users a second where each is answered alone, with everything open."""
    opened, log = showing.served(workspace), recommendations.open_log(workspace)
    chosen = range(0, len(log.users), max(1, len(log.users) // users))
    began = clocks()
    for user in chosen:
        seen, now = log.history(user)
        recommend(opened, seen, recommendations.generator(0, log.users[user]), k, now)
    return rates(len(chosen), began)


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def rates(users: int, began: tuple[float, float]) -> dict[str, float]:
    seconds, busy = (now - then for now, then in zip(clocks(), began, strict=True))
    by_clock = {"seconds": seconds, "users_per_second": users / seconds}
    return {**by_clock, "users_per_cpu_second": users / busy, "peak_mb": peak()}


def peak() -> float:
    """Most resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--alone", type=int, default=500, help="users that are answered one after the other")
    parser.add_argument("--ray-workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=["native", "ray", "alone"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one == "alone":
        print(json.dumps(alone(given.workspace, given.alone, given.k)))
        return
    if given.one:
        print(json.dumps(everybody(given.workspace, given.out, given.k, given.one, given.ray_workers)))
        return
    kinds = ["native", "alone"] + (["ray"] if importlib.util.find_spec("ray") else [])
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            out = Path(folder) / f"{kind}.parquet"
            command = [sys.executable, __file__, *sys.argv[1:], "--one", kind, "--out", str(out)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[kind] = json.loads(done.stdout.splitlines()[-1])
    result = {f"{kind}.{name}": value for kind, own in found.items() for name, value in own.items()}
    if "ray" in found:
        result["same_table"] = found["ray"]["digest"] == found["native"]["digest"]
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:.5g}" if isinstance(value, float) else f"{name:28} {value}")
    if not result.get("same_table", True):
        sys.exit("The two tables differ.")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
