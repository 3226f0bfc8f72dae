"""The item policy beside its opponents: the same people, questions and candidates for all.

    python -m benchmarks.sequence split WORKSPACE FOLDER
    python -m benchmarks.sequence answer FOLDER popularity counts ease policy policy-converged
    python -m venv peer && peer/bin/pip install 'rectools[torch]==0.19.0'
    peer/bin/python -m benchmarks.sequence_peer FOLDER flatsasrec unisrec
    python -m benchmarks.sequence table FOLDER --run items-peers-demo --data "demo world" --machine "2 cores"

The workspace has a catalog, embeddings and a tree (byway run WORKSPACE --until tree). `questions.py` has the
protocol; each answer is a file in the folder, so that a long one can be added or repeated alone. What can be chosen
(λ, window, epochs) is chosen by validation. Closed forms and peers read and learn what was liked; the policy reads
all events, as it is served, and with `--liked` the same as they. Seconds are of the processor (one thread unless
`--threads`): equal time means equal work, whoever else is on the machine.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from benchmarks import questions
from benchmarks.questions import KINDS, PLACES, Floats, Ints, Score, Split
from scipy import linalg, sparse

from byway.base import config
from byway.base.errors import UserError
from byway.data import events as events_of
from byway.interests import embed, tree
from byway.items import sequence
from byway.items.transformer import SequenceModel
from byway.items.windows import Sequences

RIDGES = tuple(float(round(10 * 2**k)) for k in range(13))
"""λ that EASE tries, upwards, until validation falls twice."""
NEAR = (1, 3, 10, 30)
"""Liked events that count as near, before and after."""
RECENT = (1, 3, 10, 30, 1000)
"""Latest liked items that counts read."""
LONGEST = 512
"""Epochs that are tried at most."""


def split(workspace: Path, folder: Path, share: float, most: int, seed: int) -> None:
    """Write the split of a workspace's log."""
    for stage in ("01-catalog", "02-embeddings", "04-tree"):
        if not (workspace / stage / "record.json").exists():
            raise UserError(f"{workspace} has no {stage} yet; run: byway run {workspace} --until tree")
    log = events_of.load(workspace / "01-catalog")
    user, item, good = log.user.astype(np.int64), log.item.astype(np.int64), log.good()
    cluster = tree.load(workspace / "04-tree").assign(2).astype(np.int64)
    held = questions.hold_out(user, item, good, cluster, share=share, most=most, seed=seed)
    start = np.searchsorted(user, np.arange(log.n_users))
    stop = np.append(start[1:], len(user))
    for rows in held.values():
        np.minimum.at(stop, user[rows], rows)
    vectors = np.asarray(embed.load(workspace / "02-embeddings"), np.float32)
    made = Split(user, item, log.satisfaction, good, start, stop, cluster, vectors, **held)
    made.save(folder)
    print(f"{len(held['test_item']):,} people asked, {len(made.rows(False)):,} of {len(user):,} events to train on")


def liked(made: Split, at: Ints | None = None) -> sparse.csr_array:
    """[people, items] 1 where somebody liked an item: all in training, or those of some questions before these."""
    if at is None:
        rows = made.rows(liked=True)
        who, item, n = made.user[rows], made.item[rows], len(made.start)
    else:
        (who, item), n = made.pairs(at, liked=True), len(at)
    found = sparse.csr_array((np.ones(len(who), np.float32), (who, item)), shape=(n, made.n_items))
    found.data[:] = 1
    return found


def ease(liked_UN: sparse.csr_array, ridge: float) -> Floats:
    """B = I - P diag(1 / diag P) with P = (X'X + λI)^-1 (Steck, WWW 2019), [N, N] with a zero diagonal.

    In float32: 19,220 items take 1.5 GB, and their inverse is made in place.
    """
    gram = (liked_UN.T @ liked_UN).toarray(order="F")
    own = np.diag_indices(len(gram))
    gram[own] += ridge
    factor, failed = linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, singular = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise ValueError(f"X'X + {ridge} I has no inverse in float32")
    for column in range(len(inverse)):
        inverse[column, column + 1 :] = inverse[column + 1 :, column]
    # The transpose of a symmetric matrix in columns is the same one in rows, which a product with X reads.
    found = inverse.T
    found /= -found[own]
    found[own] = 0
    return found


def near(made: Split, window: int) -> sparse.csr_array:
    """Item-to-item counts: how often two were liked within `window` liked events, over the roots of both counts."""
    rows = made.rows(liked=True)
    user, item = made.user[rows], made.item[rows]
    total = sparse.csr_array((made.n_items, made.n_items), dtype=np.float32)
    for step in range(1, window + 1):
        same = user[step:] == user[:-step]
        ones = np.ones(int(same.sum()), np.float32)
        total = total + sparse.csr_array((ones, (item[:-step][same], item[step:][same])), shape=total.shape)
    scale = sparse.diags_array(np.maximum(np.bincount(item, minlength=made.n_items), 1).astype(np.float32) ** -0.5)
    return sparse.csr_array(scale @ (total + total.T) @ scale)


def latest(made: Split, recent: int, to: sparse.csr_array) -> Score:
    """The sum of the rows of `to` over the latest liked items."""

    def score(at: Ints) -> Floats:
        history = made.history(at, min(recent, len(made.item)), liked=True)
        who, place = np.nonzero(history)
        read = sparse.csr_array(
            (np.ones(len(who), np.float32), (who, history[who, place] - 1)), shape=(len(at), made.n_items)
        )
        return (read @ to).toarray()

    return score


def popularity(made: Split) -> tuple[Score, dict[str, object]]:
    count = np.bincount(made.item[made.rows(liked=True)], minlength=made.n_items).astype(np.float32)
    return lambda at: np.tile(count, (len(at), 1)), {}


def counts(made: Split) -> tuple[Score, dict[str, object]]:
    """The best of some windows and histories."""
    tried: dict[tuple[int, int], float] = {}
    for window in NEAR:
        to = near(made, window)
        tried |= {(window, recent): questions.validation(made, latest(made, recent, to)) for recent in RECENT}
    window, recent = max(tried, key=tried.__getitem__)
    said = {"settings": f"within {window}, the latest {recent}", "tried": {str(k): v for k, v in tried.items()}}
    return latest(made, recent, near(made, window)), said


def closed_form(made: Split) -> tuple[Score, dict[str, object]]:
    """EASE with the best λ; only the best B is kept."""
    x = liked(made)
    best, kept, tried, worse = -1.0, np.empty((0, 0), np.float32), dict[float, float](), 0
    for ridge in RIDGES:
        b = ease(x, ridge)
        tried[ridge] = questions.validation(made, lambda at, b=b: liked(made, at) @ b)
        print(f"λ {ridge}: {tried[ridge]:.4f}", file=sys.stderr)
        worse = worse + 1 if tried[ridge] < best else 0
        if worse == 2:
            break
        if tried[ridge] > best:
            best, kept = tried[ridge], b
    said: dict[str, object] = {"settings": f"λ {max(tried, key=tried.__getitem__):.0f}", "tried": tried}
    return lambda at: liked(made, at) @ kept, said


def sequences(made: Split, only_liked: bool) -> Sequences:
    """What the policy trains on."""
    rows = np.flatnonzero(made.good) if only_liked else np.arange(len(made.item))
    reward = np.where(made.good, made.satisfaction, np.float32(0))[rows]
    start, stop = np.searchsorted(rows, made.start), np.searchsorted(rows, made.stop)
    return Sequences(made.item[rows].astype(np.int32), reward, start, stop, made.n_items)


def asked(made: Split, model: SequenceModel, history: int, only_liked: bool) -> Score:
    """A trained policy's scores."""

    def score(at: Ints) -> Floats:
        with torch.inference_mode():
            read = torch.from_numpy(made.history(at, history, only_liked))
            return (model(read)[:, -1] @ model.vectors_ND.T).numpy()

    return score


def policy(
    made: Split, settings: config.ItemPolicy, seed: int, only_liked: bool, converged: bool
) -> tuple[Score, dict[str, object]]:
    """The item policy as its settings have it, or with its epochs doubled until validation no longer rises.

    Each number of epochs is a training of its own, since the learning rate falls along the whole of it.
    """
    seen, tried = sequences(made, only_liked), dict[int, float]()
    best: tuple[Score, dict[str, object]] | None = None
    while True:
        started = time.process_time()
        model, _ = sequence.train(seen, made.vectors, settings, seed)
        spent = time.process_time() - started
        score = asked(made, model, settings.history, only_liked)
        found = questions.validation(made, score)
        print(f"{settings.epochs} epochs, {spent:.0f} s: {found:.4f}", file=sys.stderr)
        better = not tried or found > max(tried.values())
        tried[settings.epochs] = found
        if better:
            best = score, {"epochs": settings.epochs, "seconds": round(spent, 1), "tried": tried}
        if not (converged and better and 2 * settings.epochs <= LONGEST):
            assert best is not None
            return best
        settings = replace(settings, epochs=2 * settings.epochs)


def answer(folder: Path, names: list[str], options: argparse.Namespace) -> None:
    """Let some models answer; `as_name` says under which name a policy with other settings is kept."""
    made = questions.load(folder)
    changed = {name: type(getattr(config.ItemPolicy(), name))(value) for name, value in options.set}
    settings = replace(config.ItemPolicy(), **changed)
    for name in names:
        started = time.process_time()
        if name in ("policy", "policy-converged"):
            converged = name == "policy-converged"
            score, said = policy(made, settings, options.seed, options.liked, converged)
        else:
            score, said = {"popularity": popularity, "counts": counts, "ease": closed_form}[name](made)
        said.setdefault("seconds", round(time.process_time() - started, 1))
        said["searched"] = round(time.process_time() - started, 1)
        said["validation"] = questions.validation(made, score)
        questions.answer(folder, options.as_name or name, made, score, {"threads": options.threads, **said})


def figure(values: Floats) -> dict[str, float]:
    """A mean with its 95% interval, 1.96 standard errors to either side."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    found = {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
    return {name: round(value, 4) for name, value in found.items()}


TITLES = {"item": "next new item", "cluster": "next item in a new cluster"}


def table(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """All answers in the form of `results/`, best first."""
    answers = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    figures: dict[str, dict[str, object]] = {}
    for kind in KINDS:
        rank = {name: np.array(each["rank"][kind]) for name, each in answers.items()}
        for name in sorted(rank, key=lambda name: -questions.gains(rank[name], 50).mean()):
            row: dict[str, object] = {}
            for k in PLACES:
                row[f"recall at {k}"] = figure((rank[name] < k).astype(np.float32))
                row[f"NDCG at {k}"] = figure(questions.gains(rank[name], k).astype(np.float32))
            cost = {"epochs", "seconds", "searched", "settings", "threads"} & answers[name].keys()
            figures[f"{TITLES[kind]}: {name}"] = row | {one: answers[name][one] for one in sorted(cost)}
    made = questions.load(folder)
    commit = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"],
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        "run": options.run,
        "subject": "item policy",
        "command": "python -m benchmarks.sequence, and sequence_peer for the peers, as their heads say",
        "commit": commit.stdout.strip(),
        "machine": options.machine,
        "date": datetime.now(UTC).date().isoformat(),
        "place": options.place,
        "figures": figures,
        "shown": [f"{TITLES['item']}: {name}" for name in ("ease", "policy")],
        "note": f"{options.data}: {len(made.test_item):,} people, {made.n_items:,} items, {len(made.rows(False)):,}"
        f" events to train on; in brackets 95% intervals over people. {options.note}".strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("split")
    one.add_argument("workspace", type=Path)
    one.add_argument("folder", type=Path)
    one.add_argument("--share", type=float, default=0.3, help="of the people, for the test")
    one.add_argument("--most", type=int, default=5000, help="people for the test")
    one.add_argument("--seed", type=int, default=0)
    one = verbs.add_parser("answer")
    one.add_argument("folder", type=Path)
    one.add_argument("models", nargs="+")
    one.add_argument("--as-name", help="under which the answer is kept, where settings are changed")
    one.add_argument("--liked", action="store_true", help="the policy reads and learns liked events only")
    one.add_argument("--set", type=lambda text: text.split("="), action="append", default=[], help="epochs=30")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--threads", type=int, default=1)
    one = verbs.add_parser("table")
    one.add_argument("folder", type=Path)
    one.add_argument("--run", required=True)
    one.add_argument("--data", required=True, help="name of the data set")
    one.add_argument("--machine", default="not recorded")
    one.add_argument("--place", type=int, default=30)
    one.add_argument("--note", default="")
    options = parser.parse_args()
    try:
        if options.verb == "split":
            split(options.workspace, options.folder, options.share, options.most, options.seed)
        elif options.verb == "answer":
            torch.set_num_threads(options.threads)
            answer(options.folder, options.models, options)
        else:
            print(json.dumps(table(options.folder, options), indent=2))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
