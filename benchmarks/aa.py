"""How often identical segments differ by chance alone, so that an experiment's A/A control can be read.

    python benchmarks/aa.py W [--size 200] [--pairs 20] [--sets 100] [--json]

W is a workspace with 15-experiment. The accounts of its control arm, all deals together, are dealt to two segments
again and again, so that nothing but chance tells the two apart: nobody learned from one of them. Printed are the
share of comparisons that are significant at 5%, and its spread over sets of so many pairs as the control has.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from byway.simulation import controls
from byway.simulation.arms import CONTROL
from byway.simulation.tallies import Tally


def accounts(path: Path) -> Tally:
    """The control's sums, a place an account and deal."""
    table = pq.read_table(path / "tallies.parquet", filters=pc.field("arm") == CONTROL)
    rows = {name: table[name].to_numpy() for name in ("seed", "user", "numerator", "denominator")}
    metric = np.array(table["metric"].to_pylist())
    _, place = np.unique(np.column_stack([rows["seed"], rows["user"]]), axis=0, return_inverse=True)
    found: Tally = {}
    for name in np.unique(metric):
        here, sums = metric == name, np.zeros((2, place.max() + 1))
        for row, column in enumerate(("numerator", "denominator")):
            np.add.at(sums[row], place[here], rows[column][here])
        found[str(name)] = sums[0], sums[1]
    return found


def share(tally: Tally, size: int, pairs: int, draws: int, rng: np.random.Generator) -> float:
    """Of the comparisons of so many pairs of segments, the share that is significant."""
    n = len(next(iter(tally.values()))[0])
    found: list[bool] = []
    for _ in range(pairs):
        order = rng.permutation(n)[: 2 * size]
        # Places of both segments, each with nothing in the other's: as the platform's tallies are.
        in_one = np.arange(2 * size) < size
        one, other = (
            {name: (top[order] * own, below[order] * own) for name, (top, below) in tally.items()}
            for own in (in_one, ~in_one)
        )
        found += controls.different(one, other, draws, rng).values()
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--size", type=int, default=200, help="accounts a segment")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tally, rng = accounts(given.workspace / "15-experiment"), np.random.default_rng(0)
    found = [share(tally, given.size, given.pairs, given.draws, rng) for _ in range(given.sets)]
    result = {
        "accounts": len(next(iter(tally.values()))[0]),
        "metrics": len(tally),
        "share": round(float(np.mean(found)), 4),
        "spread": round(float(np.std(found)), 4),
        "sets_above_5_percent": float(np.mean(np.array(found) > 0.05)),
        "quantiles_50_90_95_99": np.quantile(found, [0.5, 0.9, 0.95, 0.99]).round(4).tolist(),
    }
    print(json.dumps(result) if given.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
