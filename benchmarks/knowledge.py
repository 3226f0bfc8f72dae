"""What a language model has to know to be worth asking: the positive control beside the negative ones.

    python -m benchmarks.knowledge W [--reliabilities 0,0.25,0.5,0.75,1] [--deals 3] [--users 500] [--json PATH]
    python -m benchmarks.knowledge W --worth 6000 [--seeds 3] [--json PATH]    # what `byway worth` says of each
    python -m benchmarks.knowledge --new-areas 3 W OUT      # a workspace like W whose log never saw three areas

W is a workspace on an embedded world, built as far as 06-transitions and 12-item-policy, whose log cannot know
much: of few people, or without some areas. A server on loopback answers like any model, by chat and JSON schema.
It knows the world's own rule: how people drawn anew from it, who like both interests, like each other. So often as
its reliability says it ranks by that, else at random. Everything behind it is what a real model would meet: the
questions, the fit of the signals, the planner, and the simulated people, who answer for themselves.
"""

import argparse
import json
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from benchmarks import mask
from numpy.typing import NDArray

from byway.base import config, metrics
from byway.interests import describe, tree
from byway.language import questions
from byway.simulation import people, world
from byway.simulation.pooling import measure
from byway.transitions import curate
from byway.transitions import table as tables
from byway.workflow import asking, pipeline

ARMS = "byway,table,model"
ASKED = ("answers.candidates=40",)
questions.FAR, questions.RANKED = 0.5, 0.25  # half of them far, and the best ten ranked
PEOPLE = 20_000
"""Drawn anew from the world, to know its rule and not its people."""
SHARP = 4
"""Power of a liking by which somebody speaks for a pair: who likes both a lot. 1 to 4 foretell turns alike."""


def rule(workspace: Path, source: Path) -> tuple[list[str], NDArray[np.float32]]:
    """The names of the clusters, and [M, M, M] how people who like C1 and C2 like each other one, on average."""
    made = world.load(source)
    own = made.settings.n_users
    # With another seed other areas and appeals would be popular; the first are nearly the world's own people.
    drawn = people.make_users(replace(made.settings, n_users=own + PEOPLE), made.topics, made.seed).affinity[own:]
    level = curate.load(workspace / "06-transitions").level
    cluster = tree.load(workspace / "04-tree").assign(level)
    names = describe.load(workspace / "05-descriptions").names[level - 1]
    mix = np.zeros((len(names), len(made.topics)), np.float32)
    ids = pq.read_table(workspace / "01-catalog" / "items.parquet")["item"].to_pylist()
    place = {item: row for row, item in enumerate(made.items.ids)}
    np.add.at(mix, (cluster, made.items.topic[[place[item] for item in ids]]), 1)
    mix /= np.maximum(mix.sum(axis=1, keepdims=True), 1)
    liking = (drawn @ mix.T).astype(np.float32)
    much = liking**SHARP
    score = np.empty((len(names),) * 3, np.float32)
    for c in range(len(names)):
        both = much[:, c : c + 1] * much
        score[c] = (both.T @ liking) / np.maximum(both.sum(axis=0)[:, None], 1e-9)
    return names, score


def serve(names: list[str], score: NDArray[np.float32], reliability: float) -> ThreadingHTTPServer:
    """A server that knows so much; chance is drawn from the question, so that it answers the same again."""
    number = {name: c for c, name in enumerate(names)}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = [line[2:].split(" (for example ")[0] for line in body["messages"][1]["content"].splitlines()]
            first, second = ([number[name] for name in told if name in number] * 2)[:2]
            if "enjoyed this interest" in body["messages"][1]["content"]:
                second = first
            legal = body["response_format"]["json_schema"]["schema"]["properties"]["next"]["items"]["enum"]
            rng = np.random.default_rng([first, second, round(1000 * reliability)])
            own = rng.random(len(legal))
            if rng.random() < reliability:
                own = score[first, second][[number[name] for name in legal]]
            ranked = [legal[i] for i in np.argsort(-own)]
            answer = {"choices": [{"message": {"content": json.dumps({"next": ranked})}}]}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answered(source: Path, folder: Path, reliability: float, settings: list[str]) -> Path:
    """A copy of the workspace whose table holds what a server of this reliability said."""
    path = folder / f"knows-{reliability:g}"
    if not (path / "08-transition-table" / "record.json").exists():
        shutil.copytree(source, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("07-*", "08-*", "1[3-9]*"))
        server = serve(*rule(source, source / "source"), reliability)
        own = [
            "language_model.answers=server", f"answers.model=knows-{reliability:g}",
            f"answers.url=http://127.0.0.1:{server.server_port}/v1", *ASKED, *settings,
        ]  # fmt: skip
        pipeline.run(path, config.load(path / "byway.toml", own), until="transition_table")
        server.shutdown()
    return path


def worth(workspace: Path, reliabilities: list[float], seeds: int, pairs: int) -> dict[str, Any]:
    """By reliability and part, what the model adds; mean and interval over seeds, which draw turns, interests."""
    names, score = rule(workspace, workspace / "source")
    by: dict[str, Any] = {}
    for reliability in reliabilities:
        server = serve(names, score, reliability)
        found: list[dict[str, Any]] = []
        for seed in range(seeds):
            own = config.load(workspace / "byway.toml", [*ASKED, f"run.seed={seed}"])
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "w"
                shutil.copytree(workspace, path, ignore=shutil.ignore_patterns("0[78]-*", "1[2-9]*", "source"))
                address = f"http://127.0.0.1:{server.server_port}/v1"
                found.append(asking.worth(path, own, f"knows-{reliability:g}", address, pairs))
        server.shutdown()
        by[f"{reliability:g}"] = {
            part: {
                name: metrics.over_seeds([one["parts"][part]["adds"][name]["mean"] for one in found])
                for name in found[0]["parts"][part]["adds"]
            }
            for part in found[0]["parts"]
        }
        print(reliability, json.dumps(by[f"{reliability:g}"]), flush=True)
    return by


def lived(path: Path, settings: config.Config, deals: int, names: Sequence[str], processes: int) -> dict[str, Any]:
    """What each arm came to: `measure`, and the weights of the planner and of the table."""
    folder = path / "lived"
    folder.mkdir(exist_ok=True)
    setup, trained, planner = mask.made(path, settings, folder)
    runs = [(s, name) for s in range(deals) for name in names]
    parts = [part for part in (runs[i::processes] for i in range(processes)) if part]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(mask.live, str(path), settings, str(folder), part) for part in parts]:
            done.result()
    found = {name: [mask.lived(setup, trained, s, name) for s in range(deals)] for name in names}
    fitted = tables.load(path / "08-transition-table").fitted
    assert fitted is not None
    return {
        "figures": measure(setup, found, np.random.default_rng(0)),
        "planner": {name: round(value, 4) for name, value in planner["planner.weights"].items()},
        "table": fitted.weights,
    }


def without_areas(source: Path, out: Path, areas: int, settings: list[str]) -> None:
    """A workspace like `source` from whose log every event in some areas is gone; its items are there."""
    made = world.load(source / "source")
    gone = np.random.default_rng(0).permutation(len(made.topics.areas))[:areas]
    hidden = np.isin(made.topics.topic_area[made.items.topic], gone)
    ids = pa.array([item for item, away in zip(made.items.ids, hidden, strict=True) if away])
    (out / "source").mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "source" / "truth", out / "source" / "truth", dirs_exist_ok=True)
    shutil.copy(source / "source" / "items.parquet", out / "source")
    shutil.copy(source / "byway.toml", out)
    log = pq.read_table(source / "source" / "events.parquet")
    pq.write_table(log.filter(pc.invert(pc.is_in(log["item"], ids))), out / "source" / "events.parquet")
    print(f"without {', '.join(made.topics.areas[a] for a in gone)}: {len(ids)} items", flush=True)
    read = config.load(out / "byway.toml", settings)
    pipeline.run(out, read, until="transitions")
    pipeline.run(out, read, only="item_policy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument(
        "out", type=Path, nargs="?", help="where the workspaces of this run are; beside W without it"
    )
    parser.add_argument("--new-areas", type=int, default=0)
    parser.add_argument("--reliabilities", default="0,0.25,0.5,0.75,1")
    parser.add_argument("--worth", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--deals", type=int, default=3)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.new_areas:
        without_areas(given.workspace, given.out, given.new_areas, given.set)
        return
    levels = [float(each) for each in given.reliabilities.split(",")]
    if given.worth:
        found = worth(given.workspace, levels, given.seeds, given.worth)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1), "utf-8")
        return
    folder = given.out or given.workspace.with_name(f"{given.workspace.name}-knowledge")
    folder.mkdir(parents=True, exist_ok=True)
    arms = given.arms.split(",")
    result: dict[str, Any] = {"setting": {"deals": given.deals, "users": given.users, "days": given.days}, "by": {}}
    for reliability in levels:
        path = answered(given.workspace, folder, reliability, given.set)
        read = config.load(path / "byway.toml", given.set)
        own = replace(read.experiment, users=given.users, days=given.days, seeds=given.deals)
        settings = replace(read, experiment=own)
        found = lived(path, settings, given.deals, ("control", "ease", *arms), given.processes)
        rows = {
            name: {
                "pleased": mask.rounded(found["figures"]["arms"][name].get("positive_rate")),
                "by deal": [round(one["positive_rate"], 4) for one in found["figures"]["seeds"][name]],
                "over ease": mask.rounded(found["figures"]["lift"]["ease"].get(name, {}).get("positive_rate")),
            }
            for name in ("ease", *arms)
        }
        weights = {"planner": found["planner"], "table": found["table"]}
        result["by"][f"{reliability:g}"] = {"arms": rows, "weights": weights}
        print(reliability, json.dumps(rows), json.dumps(weights), flush=True)
        if given.json:
            given.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
