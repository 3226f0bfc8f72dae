"""What every stage costs as a log grows: seconds at three sizes, a factor of ten apart, and the exponent.

    python benchmarks/stages.py [--sizes 300 3000 30000] [--events 20] [--json]

Planted catalogs and logs: a title of made words that tell topic, subtopic and kind; `events` an item and a person
every forty. Fine-tuning (a fixed number of steps) and the table (every pair of clusters) do not grow with the log
and are left out, and so is what follows from them. `exponent` is the slope of log seconds over log size from the
second size to the largest, since the least is loading and little else; that of n log n is 1.1 between 3,000 and
30,000. A size runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAGES = ("catalog", "embeddings", "graph", "tree", "descriptions", "transitions", "item_policy")
TOML = """
[catalog]
source = "parquet"
items = "items.parquet"
events = "events.parquet"
[item_policy]
epochs = 1
"""
EVENTS_A_USER = 40
CONSONANTS, VOWELS = "bdfghjklmnprstvwxyzc", "aeiou"


def word(number: int) -> str:
    """A made word of its own for each number."""
    parts: list[str] = []
    for _ in range(4):
        number, at = divmod(number, len(CONSONANTS))
        parts.append(CONSONANTS[at] + VOWELS[at % len(VOWELS)])
    return "".join(parts)


def titles(truth: list[NDArray[np.int32]], rng: np.random.Generator) -> list[str]:
    """A title an item: a word each for its topic, subtopic and kind, and two that say nothing."""
    noise = rng.integers(60_000, 70_000, (len(truth[0]), 2))
    told = np.column_stack([truth[0], 1_000 + truth[1], 10_000 + truth[2], noise])
    return [" ".join(map(word, row)) for row in told.tolist()]


def one(n: int, events: int, seed: int) -> dict[str, Any]:
    """Seconds of every stage on n items."""
    import planted
    import pyarrow as pa
    import pyarrow.parquet as pq

    from byway.base import config
    from byway.workflow import pipeline

    rng = np.random.default_rng(seed)
    _, truth = planted.topics(n, rng, dim=8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = pa.array([str(i) for i in range(n)])
        pq.write_table(pa.table({"item": ids, "title": pa.array(titles(truth, rng))}), folder / "items.parquet")
        written = planted.write_raw(
            folder / "events.parquet", n * events, n * events // EVENTS_A_USER, truth[1], rng
        )
        (folder / "byway.toml").write_text(TOML)
        settings = config.load(folder / "byway.toml")
        records = pipeline.run(folder, settings, until="transitions")
        records |= pipeline.run(folder, settings, only="item_policy")
    return {
        "items": n,
        "events": written,
        "seconds": {stage: records[stage].timings["seconds"] for stage in STAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 3_000, 30_000])
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.events, options.seed)))
        return
    runs: list[dict[str, Any]] = []
    for n in sorted(options.sizes):
        command = [sys.executable, __file__, "--one", str(n)]
        command += ["--events", str(options.events), "--seed", str(options.seed)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        runs.append(json.loads(printed.splitlines()[-1]))
    result: dict[str, Any] = {"runs": runs}
    if len(runs) > 1:
        sizes = np.log([run["items"] for run in runs[-2:]])
        slope = {
            stage: np.polyfit(sizes, np.log([max(1e-3, run["seconds"][stage]) for run in runs[-2:]]), 1)[0]
            for stage in STAGES
        }
        result["exponent"] = {stage: round(float(each), 3) for stage, each in slope.items()}
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
