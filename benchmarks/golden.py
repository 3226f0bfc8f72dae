"""Whether two workspaces made from the same input hold the same: every array and table, every figure, every answer.

    python benchmarks/golden.py BEFORE AFTER [--json]

For a change that should change no result: run the same workspace before and after it, on one machine. Names of
settings and figures that were renamed are listed as missing on one side; seconds and paths are not compared.
Exit code 1 where anything differs.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

TIMED = ("seconds", "per_second", "peak", "created")
"""Parts of the names of figures that differ from run to run."""


def same(one: Path, other: Path) -> bool:
    """Whether two files of artifacts hold the same values."""
    if one.read_bytes() == other.read_bytes():
        return True
    if one.suffix == ".npy":
        a, b = np.load(one), np.load(other)
        return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if one.suffix == ".parquet":
        return pq.read_table(one).equals(pq.read_table(other))
    return False


def figures(folder: Path) -> dict[str, Any]:
    """Counts and metrics of every artifact, by artifact and name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/record.json")):
        record = json.loads(path.read_text("utf-8"))
        for part in ("counts", "metrics"):
            found |= {f"{path.parent.name}: {name}": value for name, value in record[part].items()}
    return {name: value for name, value in found.items() if not any(word in name for word in TIMED)}


def compare(before: Path, after: Path) -> dict[str, Any]:
    """Files and figures that are equal, that differ, and that stand on one side alone."""
    files = [
        {p.relative_to(folder).as_posix() for p in folder.glob("[0-9]*/**/*") if p.is_file()}
        for folder in (before, after)
    ]
    both = sorted(name for name in files[0] & files[1] if not name.endswith("record.json"))
    different = [name for name in both if not same(before / name, after / name)]
    one, other = figures(before), figures(after)
    shared = sorted(one.keys() & other.keys())
    changed = {name: [one[name], other[name]] for name in shared if one[name] != other[name]}
    return {
        "files": len(both),
        "files that differ": different,
        "files before alone": sorted(files[0] - files[1]),
        "files after alone": sorted(files[1] - files[0]),
        "figures": len(shared),
        "figures that differ": changed,
        "figures before alone": sorted(one.keys() - other.keys()),
        "figures after alone": sorted(other.keys() - one.keys()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = compare(options.before, options.after)
    print(json.dumps(found, indent=None if options.json else 2, ensure_ascii=False))
    sys.exit(bool(found["files that differ"] or found["figures that differ"]))


if __name__ == "__main__":
    main()
