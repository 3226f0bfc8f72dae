"""One request in process, without HTTP or a store: how long each part takes, and what two steps of search miss.

    python benchmarks/inside.py [--small] [--requests 300] [--leaves 16,64,256] [--workspace DIR] [--json]

On the workspace that `request.py` makes, or one that is published. Two kinds of people with 20 events each: whose
items come from anywhere, and whose items come from five leaves. `recall` is the share of the ten best of all items
outside the interests of a person that are among the candidates, with so many leaves and without EASE over items,
which there is none of where the search has two steps. Milliseconds are medians of processor time.
"""

import argparse
import cProfile
import json
import os
import pstats
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
from made import HISTORY, SIZES, workspace_of

from byway.planner import search
from byway.planner.planner import Planner
from byway.serving import plan, service
from byway.serving.answers import Places
from byway.serving.bundle import Bundle
from byway.serving.person import Person, Seen, read
from byway.serving.recommend import recommend

TASTES = 5
BEST = 10


def histories(bundle: Bundle, coherent: bool, count: int) -> list[list[Seen]]:
    """What so many people did; equal for equal arguments."""
    rng, n = np.random.default_rng(7), len(bundle.ids)
    found: list[list[Seen]] = []
    for _ in range(count):
        rows = rng.integers(n, size=HISTORY)
        if coherent:
            leaf = np.asarray(bundle.planner.leaf) if bundle.planner else np.zeros(n)
            own = rows[rng.integers(TASTES, size=HISTORY)]
            rows = np.array([int(rng.integers(*np.searchsorted(leaf, [leaf[r], leaf[r] + 1]))) for r in own])
        joy = rng.random(HISTORY)
        found.append([Seen(bundle.ids[int(r)], None, float(s)) for r, s in zip(rows, joy, strict=True)])
    return found


def milliseconds(bundle: Bundle, asked: list[list[Seen]]) -> dict[str, float]:
    """Medians of the whole and of its parts, and the 99th percentile of the whole."""
    took: dict[str, list[float]] = {}
    for history in asked:
        for name, seconds in _parts(bundle, history):
            took.setdefault(name, []).append(seconds)
    found = {name: float(np.median(one)) * 1e3 for name, one in took.items()}
    return found | {"whole_p99": float(np.percentile(took["whole"], 99)) * 1e3}


def _parts(bundle: Bundle, history: list[Seen]) -> Iterator[tuple[str, float]]:
    rng = np.random.default_rng(0)
    started = time.thread_time()
    recommend(bundle, history, rng)
    yield "whole", time.thread_time() - started
    started = time.thread_time()
    person = read(bundle, history, None, (), None, [])
    yield "person", time.thread_time() - started
    started = time.thread_time()
    state = bundle.encode(person.positions)
    yield "encode", time.thread_time() - started
    started = time.thread_time()
    page = plan.page_of(bundle, person, rng, BEST, state)
    yield "page", time.thread_time() - started
    started = time.thread_time()
    plan.chances(bundle, page, Places.drawn(BEST, 1.0, rng))
    yield "chances", time.thread_time() - started
    started = time.thread_time()
    plan.explain(bundle, page, [])
    yield "reasons", time.thread_time() - started


def recall(bundle: Bundle, planner: Planner, people: list[Person]) -> float:
    """Mean share of the ten best of all open items that are candidates."""
    shares: list[float] = []
    for person in people:
        asker = plan.asker_of(bundle, person)
        score = np.where(person.open[planner.cluster], planner.scores(asker), -np.inf)
        score[person.apart] = -np.inf
        best = np.argsort(-score, kind="stable")[:BEST]
        may_show = partial(plan.showable, planner, person)
        considered = search.considered(planner, asker, person.open, may_show)[0]
        shares.append(float(np.isin(best, considered).mean()))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--people", type=int, default=30, help="whose recall is measured")
    parser.add_argument("--leaves", default=str(search.LEAVES))
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"))
    parser.add_argument("--profile", action="store_true", help="print where the time goes, and measure nothing")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    workspace = given.workspace or workspace_of(given.folder, *SIZES["small" if given.small else "large"][:3])
    opened = service.open_current(workspace).bundle
    bundle = replace(opened, settings=replace(opened.settings, mode="person"))
    planner = bundle.planner
    if planner is None:
        raise SystemExit("The bundle has no planner.")
    result: dict[str, float] = {"items": len(bundle.ids)}
    for kind in ("anywhere", "coherent"):
        asked = histories(bundle, kind == "coherent", given.requests)
        milliseconds(bundle, asked[:20])
        if given.profile:
            with cProfile.Profile() as profile:
                for history in asked:
                    recommend(bundle, history, np.random.default_rng(0))
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            continue
        result |= {f"{kind}.ms.{name}": value for name, value in milliseconds(bundle, asked).items()}
        people = [read(bundle, history, None, (), None, []) for history in asked[: given.people]]
        usual = search.EXACT, search.LEAVES
        search.EXACT = 0
        for leaves in map(int, given.leaves.split(",")):
            search.LEAVES = leaves
            result[f"{kind}.recall.{leaves}"] = recall(bundle, replace(planner, items=None), people)
        search.EXACT, search.LEAVES = usual
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:.4g}")


if __name__ == "__main__":
    main()
