"""The item policy beside RecTools' SASRec: same split, same candidates, equal time, one run.

    python -m venv peer && peer/bin/pip install 'rectools[torch]==0.19.0'
    python benchmarks/sequence.py W [W ...] --peer peer/bin/python --json

Each W is a workspace with a catalog and embeddings (byway run W --until embeddings). Of a tenth of the users the
last liked item that is new to them is held out; candidates are all items that they have not met. Ours trains by its
settings, the peer for as many seconds as ours took, at the same width, blocks, heads and history, with its own loss
and schedule. The peer runs in a process and an environment of its own (`sequence_peer.py`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from byway.base import config
from byway.base.errors import UserError
from byway.base.ranking import ndcg_at, recall_at
from byway.data import events as events_of
from byway.interests import embed
from byway.items import sequence, windows
from byway.workflow import pipeline


def figures(rank: np.ndarray, seconds: float, epochs: float) -> dict[str, float]:
    """Recall and NDCG at 10, and the cost."""
    return {
        "recall_at_10": round(recall_at(rank, 10), 5),
        "ndcg_at_10": round(ndcg_at(rank, 10), 5),
        "seconds": round(seconds, 1),
        "epochs": round(epochs, 2),
        "seconds_an_epoch": round(seconds / max(epochs, 1e-9), 2),
    }


def compare(workspace: Path, peer: Path, overrides: list[str], seed: int) -> dict[str, object]:
    """Both on one workspace."""
    made = config.load(workspace / "byway.toml", overrides)
    folders = {stage.name: workspace / stage.folder for stage in pipeline.STAGES}
    for name in ("catalog", "embeddings"):
        if not (folders[name] / "record.json").exists():
            raise UserError(f"{workspace} has no {name} yet; run: byway run {workspace} --until embeddings")
    log, vectors = events_of.load(folders["catalog"]), np.asarray(embed.load(folders["embeddings"]))
    settings = replace(made.item_policy, checkpoint_every=10**9)
    heldout = windows.hold_out(log, 0.1, np.random.default_rng(seed))
    seen = windows.sequences(log, heldout)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        model, _ = sequence.train(seen, vectors, settings, seed, Path(folder) / "checkpoint.safetensors")
        seconds = time.perf_counter() - started
        rank, popular = sequence.ranks(model, seen, log, heldout, settings.history)
        rows = np.flatnonzero(seen.seen())
        question = Path(folder) / "question.npz"
        np.savez(
            question,
            user=log.user[rows],
            item=log.item[rows],
            asked=heldout.user,
            target=log.item[heldout.at],
            n_items=log.n_items,
            seconds=seconds,
            dim=settings.dim,
            blocks=sequence.LAYERS,
            heads=sequence.HEADS,
            history=settings.history,
            threads=torch.get_num_threads(),
            seed=seed,
        )
        command = [str(peer), str(Path(__file__).with_name("sequence_peer.py")), str(question)]
        answer = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    return {
        "users": len(rank),
        "items": log.n_items,
        "events": len(rows),
        "byway": figures(rank, seconds, settings.epochs),
        "rectools": figures(np.array(answer["rank"]), answer["seconds"], answer["epochs"]),
        "popularity": figures(popular, 0.0, 1.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspaces", type=Path, nargs="+")
    parser.add_argument("--peer", type=Path, required=True, help="python of the environment that has RecTools")
    parser.add_argument("--set", action="append", default=[], help="section.setting=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        found = {w.name: compare(w, options.peer, options.set, options.seed) for w in options.workspaces}
    except UserError as error:
        sys.exit(str(error))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, row in found.items():
        print(name)
        for who in ("byway", "rectools", "popularity"):
            print(f"  {who:10} {row[who]}")


if __name__ == "__main__":
    main()
