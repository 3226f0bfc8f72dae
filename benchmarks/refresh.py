"""What a refresh costs beside the full run: a built workspace is copied and takes in new items and events.

    python benchmarks/refresh.py W [--share 0.01] [--json]

W is a workspace with a bundle, on parquet or CSV tables. New items are copies of old ones under new ids, so it is
known where they belong; new events are drawn from the log, later by a week, a tenth of them on new items.
`seconds` is the whole refresh, publication included; `share_of_full_run` is over the seconds of all stages in W's
records. `servable` is the share of new items that the bundle knows, `same_cluster` that of those in the cluster
of what they copy.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from byway.base import config
from byway.data import catalog, events
from byway.data.text import compute
from byway.serving import bundle
from byway.serving.person import Seen
from byway.serving.recommend import recommend
from byway.workflow import pipeline, refresh, stages


def tables(workspace: Path, folder: Path, share: float, rng: np.random.Generator) -> tuple[Path, Path, list[int]]:
    """New items and new events as files of the workspace's own kind, and the row that each new item copies."""
    path = workspace / stages.CATALOG.folder
    items, log, users = catalog.load(path).items, events.load(path), events.load_users(path)
    settings = pipeline.records(workspace)["catalog"].settings
    copied = rng.choice(len(items), max(1, int(share * len(items))), replace=False)
    fresh = items.take(pa.array(copied))
    names = [f"new-{name}" for name in fresh["item"].to_pylist()]
    fresh = fresh.set_column(0, "item", pa.array(names))
    drawn = np.sort(rng.choice(len(log), max(1, int(share * len(log))), replace=False))
    old = items["item"].to_pylist()
    new = rng.random(len(drawn)) < 0.1
    columns = {
        "user": [users[u] for u in log.user[drawn]],
        "item": [
            names[rng.integers(len(names))] if n else old[i] for i, n in zip(log.item[drawn], new, strict=True)
        ],
        "satisfaction": log.satisfaction[drawn],
    }
    if log.clock:
        columns["time"] = log.time.max() - log.time[drawn].min() + log.time[drawn] + 7 * events.DAY
        late = int(columns["time"].max()) - time.time_ns() // 1000
        columns["time"] = columns["time"] - max(0, late)
    found: list[Path] = []
    for name, table in (("items", fresh), ("events", pa.table(columns))):
        mapped = settings[f"{name[:-1]}_columns"]
        table = table.rename_columns([mapped.get(ours, ours) for ours in table.column_names])
        if settings["source"] == "csv":
            if "hashtags" in table.column_names:
                at = table.column_names.index("hashtags")
                table = table.set_column(at, "hashtags", compute.binary_join(table["hashtags"], "|"))
            pc.write_csv(table, folder / f"{name}.csv")
        else:
            pq.write_table(table, folder / f"{name}.parquet")
        found.append(folder / f"{name}.{settings['source']}")
    return found[0], found[1], copied.tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    records = pipeline.records(options.workspace)
    full = sum(record.timings["seconds"] for record in records.values())
    with tempfile.TemporaryDirectory(dir=options.workspace.resolve().parent) as name:
        folder = Path(name) / "w"
        shutil.copytree(options.workspace, folder)
        items, log, copied = tables(folder, Path(name), options.share, rng)
        settings = config.load(folder / "byway.toml")
        began = time.perf_counter()
        found, text = refresh.run(folder, settings, items, log)
        seconds = time.perf_counter() - began
        opened = bundle.load(folder / stages.BUNDLE.folder)
        old = catalog.load(folder / stages.CATALOG.folder).ids()
        places = [(opened.position(f"new-{old[row]}"), opened.position(old[row])) for row in copied]
        known = [(a, b) for a, b in places if a is not None and b is not None]
        answers = [
            recommend(opened, [Seen(f"new-{old[row]}"), Seen(old[0])], np.random.default_rng(row)).items
            for row in copied[:20]
        ]
    result: dict[str, Any] = {
        "items": len(old),
        "new_items": len(copied),
        "seconds": round(seconds, 2),
        "full_run_seconds": round(full, 1),
        "share_of_full_run": round(seconds / full, 4),
        "servable": round(len(known) / len(copied), 4),
        "same_cluster": round(float(np.mean([opened.cluster(a) == opened.cluster(b) for a, b in known])), 4),
        "answers": sum(map(bool, answers)),
        "of": len(answers),
        **found,
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2) + "\n\n" + text)
    sys.exit(result["servable"] < 1)


if __name__ == "__main__":
    main()
