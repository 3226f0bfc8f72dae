"""A picture by the encoder that installs with Byway: milliseconds on one core, on this machine and on a plain one.

    python benchmarks/picture.py [--pictures 64] [--json]

Batches of eight random pictures, nine rounds after one that does not count; each machine (`benchmarks/plain.py`) in
a process of its own. The median round and the slowest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plain import MACHINES

ROUNDS, BATCH = 9, 8


def here(pictures: int) -> list[float]:
    """Milliseconds a picture of each round, in this process."""
    import numpy as np
    import torch

    from byway.data import pictures as module

    torch.set_num_threads(1)
    encode = module.encoder(module.SHIPPED, 2)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (BATCH, 224, 224, 3), dtype=np.uint8) for _ in range(pictures // BATCH)]
    found: list[float] = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for batch in batches:
            encode(batch)
        found.append(1000 * (time.perf_counter() - began) / (len(batches) * BATCH))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(here(options.pictures)))
        return
    found: dict[str, float] = {}
    for machine, environment in MACHINES.items():
        command = [sys.executable, __file__, "--one", "--pictures", str(options.pictures)]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        rounds = json.loads(done.stdout)
        found |= {
            f"{machine}.median_ms": round(statistics.median(rounds), 2),
            f"{machine}.slowest_ms": round(max(rounds), 2),
        }
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
