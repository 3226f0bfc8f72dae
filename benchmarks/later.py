"""A workspace whose people answer with what they rated later: a log of one's own, cut in two.

    python benchmarks/later.py WORKSPACE OUT [--share 0.3] [--at-least 20]

Reads the finished 01-catalog of WORKSPACE, of whatever source, and makes the workspace OUT: in `source/` the
earlier part of the log as tables and the last share of each person's events as `later.parquet`, and a `byway.toml`
that reads them. Other settings of WORKSPACE are to be copied there by hand. Prints the counts as JSON; what it
reads stays as it is. Then `byway run OUT`, and `byway experiment OUT --set experiment.days=1`.
"""

import argparse
import json
from pathlib import Path

from byway.base.artifact import write_atomic
from byway.base.errors import UserError
from byway.data import events, later
from byway.workflow import folder
from byway.workflow.artifacts import Inputs
from byway.workflow.stages import CATALOG


def begin(workspace: Path, out: Path, share: float, at_least: int) -> dict[str, int]:
    """Make the workspace `out`; UserError where there is one already."""
    if (out / folder.CONFIG).exists():
        raise UserError(f"{out / folder.CONFIG} is there already; choose another directory.")
    settings = folder.settings(workspace)
    catalog = workspace / CATALOG.folder
    found = later.split(catalog, out / "source", share, at_least, Inputs(workspace, settings, CATALOG).media_folder)
    text = (
        '[catalog]\nsource = "parquet"\nitems = "source/items.parquet"\nevents = "source/events.parquet"\n'
        f"positive = {events.load(catalog).positive}\n"
    )
    write_atomic(out / folder.CONFIG, text.encode())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--at-least", type=int, default=20, help="events of a person whose log is cut")
    given = parser.parse_args()
    print(json.dumps(begin(given.workspace, given.out, given.share, given.at_least)))


if __name__ == "__main__":
    main()
