"""The planner beside the simple thing: hiding what somebody knows. All arms that show new interests, several deals.

    python benchmarks/mask.py WORKSPACE [--arms byway,ease,…] [--deals 5] [--users 1000] [--days 30] [--json PATH]

The workspace is built as far as 06-transitions and 12-item-policy. Where it has no 08-transition-table, one is made
of counts, similarity and popularity, without a language model; the arms `paper` and `model` need one. The planner
is fitted as 12-planner is. Every arm lives with the same accounts and the same chance (`experiment.design`). What
is done stands in a folder beside the workspace, and a run that was cut goes on.
"""

import argparse
import json
import shlex
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from byway.base import config
from byway.base.artifact import Work
from byway.data import catalog, events
from byway.interests import describe, embed, tree
from byway.items import sequence
from byway.language.fast import bulk
from byway.language.plan import TOP
from byway.planner import fit, regression
from byway.simulation import arms, experiment, truth
from byway.simulation.pooling import measure
from byway.simulation.runs import Setup, run_arm
from byway.transitions import curate
from byway.transitions import table as tables
from byway.transitions.signals import Scorer
from byway.transitions.table import Table
from byway.transitions.triples import row_of
from byway.workflow.artifacts import Inputs
from byway.workflow.stages import EXPERIMENT

ARMS = ("byway", "one", "ease", "masked", "most_liked", "table", "counts", "placebo")
WORDS = {
    "byway": "`byway`, the planner",
    "one": "`one`, the planner with one new cluster a page",
    "ease": "`ease`, known clusters hidden",
    "masked": "`masked`: item policy, known clusters hidden",
    "most_liked": "`most_liked`, known clusters hidden",
    "table": "`table`: planning by pairs",
    "counts": "`counts` by pair",
    "paper": "`paper`: the pair's first answer, known or not",
    "placebo": "`placebo`: a random new cluster",
    "hierarchical_bandit": "`hierarchical_bandit`, known or not",
}
"""Arms as a row of the results names them."""
OWN = ("--folder", "--json", "--processes", "--run", "--place")
METRICS = (
    "positive_rate", "new_positive_rate", "novel_impressions", "platform.serendipity", "new_clusters",
    "platform.positive_rate", "watch_minutes", "interests_found", "interests_kept",
)  # fmt: skip


def made(workspace: Path, settings: config.Config, folder: Path) -> tuple[Setup, dict[str, Any], dict[str, Any]]:
    """What the experiment stage would be given, the encoders, and the planner's figures."""
    log, vectors = events.load(workspace / "01-catalog"), embed.load(workspace / "02-embeddings")
    whole, forest = catalog.load(workspace / "01-catalog"), tree.load(workspace / "04-tree")
    transitions = curate.load(workspace / "06-transitions")
    names = describe.load(workspace / "05-descriptions")
    answered = workspace / "08-transition-table"
    if (answered / "record.json").exists():
        table = tables.load(answered)
    else:
        table = by_evidence(transitions, forest, vectors, TOP)
    work = Work(folder, folder / "scratch", np.random.default_rng(0))
    work.scratch.mkdir(parents=True, exist_ok=True)
    known = folder / "planner.json"
    if not known.exists():
        outcome = fit.build(
            work,
            settings,
            events=log,
            vectors=vectors,
            tree=forest,
            table=table,
            level=transitions.level,
            item_policy=sequence.load(workspace / "12-item-policy"),
        )
        known.write_text(json.dumps(outcome.metrics), "utf-8")
    context = experiment.arm_context(
        folder,
        settings.run.seed,
        catalog=whole,
        events=log,
        vectors=vectors,
        tree=forest,
        descriptions=names,
        transitions=transitions,
        table=table,
        contexts=None,
        planned=fit.load(folder),
        sections=settings,
    )
    inputs = Inputs(workspace, settings, EXPERIMENT)
    users = events.load_users(workspace / "01-catalog")
    environment, people, missing = truth.open_truth(inputs.truth_folder, whole.ids(), users, log, 10)
    setup = Setup(context, environment, people, missing, None, folder)
    return setup, arms.encoders(context, ("masked",)), json.loads(known.read_text("utf-8"))


def by_evidence(transitions: curate.Transitions, forest: tree.Tree, vectors: np.ndarray, top: int) -> Table:
    """The table of the log's signals alone."""
    M, K = transitions.clusters, transitions.train.context.shape[1]
    scorer = Scorer.from_log(transitions, forest.similarity(vectors, transitions.level))
    scorer = scorer.fitted_by_ndcg(transitions.validation, np.random.default_rng(0))
    rows = [bulk.by_evidence(row_of(c, M, K), scorer, M, min(top, M))[0] for c in range(M)]
    ranking = np.stack(rows).astype(np.int32)
    return Table(ranking, np.zeros(ranking.shape, np.float32), np.full((M, M, 1), -1, np.int32))


def live(workspace: str, settings: config.Config, folder: str, runs: list[tuple[int, str]]) -> None:
    """Live some runs, each of which is kept in the folder."""
    torch.set_num_threads(1)
    setup, trained, _ = made(Path(workspace), settings, Path(folder))
    for s, name in runs:
        lived(setup, trained, s, name)
        print(f"deal {s}: {name}", flush=True)


def lived(setup: Setup, trained: dict[str, Any], s: int, name: str) -> Any:
    seed = setup.context.seed
    dealt = experiment.dealt_to(setup.settings, setup.users, 1, experiment._rng(seed, s, "segments"))
    return run_arm(setup, trained, name, dealt[0], experiment._seed(seed, s), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--deals", type=int, default=5)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="where runs are kept; beside the workspace without it")
    parser.add_argument(
        "--pleasing", type=float, help="how much what pleases counts in the weights: see planner.regression"
    )
    parser.add_argument("--aa", type=int, default=0, help="pairs of identical arms to compare, beside")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help="name of a file in results/ to write")
    parser.add_argument("--data", default="", help="what the world or log is, in words, for that file")
    parser.add_argument("--place", type=float, default=33, help="its place on the page of results")
    given = parser.parse_args()
    if given.pleasing is not None:
        regression.PLEASING = given.pleasing
    settings = config.load(given.workspace / "byway.toml", given.set)
    own = replace(settings.experiment, users=given.users, days=given.days, seeds=given.deals)
    settings = replace(settings, experiment=own)
    folder = given.folder or given.workspace.with_name(f"{given.workspace.name}-mask-{given.users}-{given.days}")
    setup, trained, planner = made(given.workspace, settings, folder)
    names = ["control", *(name for name in given.arms.split(",") if name != "control")]
    runs = [(s, name) for s in range(given.deals) for name in names]
    parts = [runs[i :: given.processes] for i in range(given.processes)]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(live, str(given.workspace), settings, str(folder), part) for part in parts]:
            done.result()
    found = {name: [lived(setup, trained, s, name) for s in range(given.deals)] for name in names}
    figures = measure(setup, found, np.random.default_rng(0))
    kept: dict[str, Any] = {
        name: {
            **{metric: rounded(figures["arms"][name].get(metric)) for metric in METRICS},
            **{
                f"over {reference}": {metric: rounded(rows[name].get(metric)) for metric in METRICS if name in rows}
                for reference, rows in figures["lift"].items()
                if reference in ("control", "ease", "masked") and name in rows
            },
        }
        for name in names
    }
    for name in names:
        kept[name]["traffic"] = figures["traffic"][name]
        rows = kept[name]
        print(f"{name:10s}", *(f"{m} {(rows[m] or [None])[0]}" for m in METRICS[:6]))
    result: dict[str, Any] = {
        "setting": {"users": given.users, "days": given.days, "deals": given.deals, "design": own.design},
        "planner": planner,
        "arms": kept,
        "deals": {name: [one.get("positive_rate") for one in of] for name, of in figures["seeds"].items()},
    }
    if given.aa:
        result["aa"] = experiment.identical(setup, given.aa, setup.context.seed)
        print("A/A", result["aa"]["share"])
    if given.json:
        given.json.write_text(json.dumps(result, indent=1), "utf-8")
    if given.run:
        shown = as_result(given.run, given.data, given.place, result, names)
        text = json.dumps(shown, indent=2, ensure_ascii=False)
        (Path("results") / f"{given.run}.json").write_text(f"{text}\n", "utf-8")


def as_result(run: str, data: str, place: float, result: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The same as a file of `results/`: a row an arm."""

    def interval(row: list[float] | None) -> dict[str, float] | None:
        if row is None or row[0] is None:
            return None
        return dict(zip(("mean", "low", "high"), (round(value, 3) for value in row), strict=True))

    def lift(row: list[float] | None) -> str | None:
        return None if row is None or row[0] is None else f"{row[0]:+.1%} ({row[1]:+.1%} to {row[2]:+.1%})"

    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        own = result["arms"][name]
        control, ease = own.get("over control", {}), own.get("over ease", {})
        found = {
            "pleased": interval(own["positive_rate"]),
            "over EASE": lift(ease.get("positive_rate")),
            "new and liked, over the control": lift(control.get("platform.serendipity")),
            "new clusters liked, over the control": lift(control.get("new_clusters")),
            "watch time, over the control": lift(control.get("watch_minutes")),
            "interests found": interval(own["interests_found"]),
            "interests kept": interval(own["interests_kept"]),
            "Gini of traffic at the end": round(own["traffic"][-1], 3) if "traffic" in own else None,
        }
        figures[f"{data}: {WORDS.get(name, name)}"] = {k: v for k, v in found.items() if v is not None}
    git = ["git", "rev-parse", "--short=7", "HEAD"]
    setting = result["setting"]
    return {
        "run": run,
        "subject": "new interests",
        "command": " ".join(["python", "benchmarks/mask.py", *quoted(sys.argv[1:])]),
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "machine": processor(),
        "date": datetime.now(UTC).date().isoformat(),
        "place": place,
        "figures": figures,
        "planner": result["planner"],
        "deals": result["deals"],
        **({"aa": {k: v for k, v in result["aa"].items() if k != "by_pair"}} if "aa" in result else {}),
        "note": f"{setting['users']} accounts, {setting['days']} days, {setting['deals']} deals, the same accounts "
        "and the same chance for every arm. Every arm but the control shows new clusters alone.",
    }


def quoted(words: list[str]) -> list[str]:
    """The command's words without folders of this machine, and without where it keeps and writes things."""
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if word not in OWN and before not in OWN:
            kept.append(shlex.quote(Path(word).name if word.startswith("/") else word))
    return kept


def processor() -> str:
    """The processor in words, as the other results have it."""
    flags = Path("/proc/cpuinfo").read_text("utf-8")
    maker = "AMD EPYC" if "AuthenticAMD" in flags else "Intel Xeon"
    if "avx512f" not in flags:
        return f"2 cores of an {maker} without AVX-512, 24 GB"
    wide = "AVX-512 bfloat16" if "avx512_bf16" in flags else "AVX-512"
    return f"2 cores of an {maker} with {wide}{'' if 'amx_tile' in flags else ' and without AMX'}, 24 GB"


def rounded(row: dict[str, float | None] | None) -> list[float | None] | None:
    """Mean, low and high."""
    if row is None:
        return None
    return [None if row[k] is None else round(float(row[k] or 0), 4) for k in ("mean", "low", "high")]


if __name__ == "__main__":
    main()
