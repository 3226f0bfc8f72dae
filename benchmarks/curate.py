"""Curation of a large log: cleaning it, finding its transitions, counting and curating them; time and memory.

    python benchmarks/curate.py [--sizes 1000000 10000000 100000000] [--items 100000] [--json]

Every size runs in a process of its own, on a planted log (people with interests, Zipf inside a cluster).
`seconds` is cleaning and curation together; `peak_gb` the process's greatest resident memory, `exponent` the
slope of log seconds over log size. Up to a million events the transitions are compared with a straightforward
reference, one user and one event at a time.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

CLUSTERS = 761
HISTORY = 2
EVENTS_A_USER = 40
COMPARED = 1_000_000


def reference(user: list[int], cluster: list[int], good: list[bool]) -> Counter[tuple[int, ...]]:
    """Every transition of a log in order of user and time, counted the slow way."""
    found: Counter[tuple[int, ...]] = Counter()
    now, touched, liked = -1, set[int](), list[int]()
    for u, c, fine in zip(user, cluster, good, strict=True):
        if u != now:
            now, touched, liked = u, set(), []
        if fine and c not in touched and liked:
            recent = list(dict.fromkeys(reversed(liked)))[:HISTORY]
            recent += recent[-1:] * (HISTORY - len(recent))
            found[(*reversed(recent), c)] += 1
        touched.add(c)
        if fine:
            liked.append(c)
    return found


def one(n: int, items: int, seed: int) -> dict[str, Any]:
    """All figures of one size."""
    import planted
    import pyarrow as pa
    import pyarrow.parquet as pq

    from byway.base import config
    from byway.data import events, sources
    from byway.data.heldout import split
    from byway.data.quarantine import Quarantine
    from byway.transitions import curate
    from byway.transitions.standing import where_users_stand

    rng = np.random.default_rng(seed)
    cluster_of = rng.integers(CLUSTERS, size=items).astype(np.int32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = planted.write_raw(folder / "raw.parquet", n, max(1, n // EVENTS_A_USER), cluster_of, rng)
        ids = pa.array([str(i) for i in range(items)])
        titles = pa.table({"item": ids, "title": pa.array([f"item {i}" for i in range(items)])})
        pq.write_table(titles, folder / "items.parquet")
        # Positive from 0.5 on, which is what the planted satisfaction of 0 and 1 means.
        settings = config.Catalog(items="items.parquet", events="raw.parquet")
        began = time.perf_counter()
        kept_out = Quarantine(folder / "quarantine.parquet")
        log = events.cleaned(
            sources.read(settings, folder, folder / "copies"), ids, kept_out, time.time_ns() // 1000
        )
        kept_out.close()
        log.write(folder, 0.5)
        assert len(log) == written, kept_out.reasons
        del log
        cleaned = time.perf_counter() - began
        began = time.perf_counter()
        read = events.load(folder)
        found = curate.find(read, cluster_of, CLUSTERS, HISTORY)
        part = split(found.time, found.progress, found.user, read.clock, 0.2, 0.1)
        counted = [curate.count(found.context[part == i], found.label[part == i], CLUSTERS) for i in range(3)]
        several = counted[0].several()
        samples = curate.diversified(several, 10, CLUSTERS, rng)
        standing = where_users_stand(read, cluster_of, CLUSTERS, HISTORY)
        curated = time.perf_counter() - began
        same = None
        if n <= COMPARED:
            columns = read.user.tolist(), cluster_of[read.item].tolist(), read.good().tolist()
            rows = Counter(map(tuple, np.column_stack([found.context, found.label]).tolist()))
            same = rows == reference(*columns)
    return {
        "events": written,
        "users": len(standing.starts) - 1,
        "transitions": len(found.label),
        "different_pairs": len(several),
        "samples": len(samples),
        "seconds": round(cleaned + curated, 2),
        "seconds_cleaning": round(cleaned, 2),
        "seconds_curation": round(curated, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "same_as_reference": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.items, options.seed)))
        return
    runs: list[dict[str, Any]] = []
    for n in sorted(options.sizes):
        command = [sys.executable, __file__, "--one", str(n), "--items", str(options.items)]
        command += ["--seed", str(options.seed)]
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    result = {**runs[-1], "runs": runs}
    if len(runs) > 1:
        sizes, seconds = (np.log([run[name] for run in runs]) for name in ("events", "seconds"))
        result["exponent"] = round(float(np.polyfit(sizes, seconds, 1)[0]), 3)
    result["same_as_reference"] = all(run["same_as_reference"] is not False for run in runs)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    sys.exit(not result["same_as_reference"])


if __name__ == "__main__":
    main()
