"""One log through several text encoders: tree, names, held-out recall of what needs no language model.

    python benchmarks/encoders.py ../shared/data/kuairec --source kuairec [--models minilm auto]
    python benchmarks/encoders.py ../shared/data/kuairec --captions

The first, for each encoder: `byway init`, `byway run --until transitions`, then, of the tree, its balance and
coherence at each level; of names, the scripts of their letters and some of them; of held-out transitions, recall at
10 of popularity, counts, similarity of items, and counts with similarity (what 14-metrics has as baselines).
Coherence is in an encoder's own vectors and does not compare them; recall does, though of other clusters.

The second, on 1,500 captions of `videos.csv` (different ones, seed 0), nothing else being read: of ten nearest
captions the share of the same category, and milliseconds a caption on one thread.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import artifact, config
from byway.evaluation import baselines
from byway.evaluation.offline import recalls
from byway.interests import describe, embed, encoders, ngrams, projection, tree
from byway.transitions import curate
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.signals import Scorer

CAPTIONS, NEAREST, NAMES = 1500, 10, 12
LEVELS = ("first", "second", "third")


def through(source: str, folder: Path, model: str, settings: list[str]) -> dict[str, Any]:
    """The stages until 06 with one encoder."""
    with tempfile.TemporaryDirectory() as place:
        space = Path(place) / "W"
        run = [sys.executable, "-m", "byway"]
        subprocess.run([*run, "init", space, "--from", source, folder], check=True, capture_output=True)
        given = [f"--set=embeddings.model={model}", *(f"--set={each}" for each in settings)]
        subprocess.run([*run, "run", space, "--until", "transitions", *given], check=True, stdout=sys.stderr)
        records = {
            name: artifact.read_record(space / name) for name in ("02-embeddings", "04-tree", "06-transitions")
        }
        grown, vectors = tree.load(space / "04-tree"), np.array(embed.load(space / "02-embeddings"))
        transitions = curate.load(space / "06-transitions")
        names = describe.load(space / "05-descriptions").names
    read, cut = records["02-embeddings"], records["04-tree"]
    assert read is not None
    assert cut is not None
    heldout, successors = transitions.heldout.several(), Successors.of(transitions)
    alike = grown.similarity(vectors, transitions.level)
    guesses: dict[str, baselines.Guess] = {
        "popularity": baselines.popularity(successors),
        "successor": successors.probability,
        "nearest": baselines.nearest(alike),
        "successor_alike": Scorer.from_counts(successors, alike).fitted_by_ndcg(
            transitions.validation, np.random.default_rng(0)
        ),
    }
    known = successors.seen(heldout.context)
    figures: dict[str, float] = {}
    for name, guess in guesses.items():
        figures |= recalls(f"baseline.{name}", ranks_of(guess(heldout.context), heldout), heldout, known)
    level_2 = names[transitions.level - 1]
    return {
        "asked": model,
        **{name: read.metrics[f"embeddings.{name}"] for name in ("model", "why", "variance")},
        "counts": read.counts,
        "distinct": read.gates["embeddings.distinct"].value,
        "seconds_encode": read.timings["encode"],
        **{name: cut.metrics[f"tree.{name}"] for name in ("levels", "balance_blended", "coherence")},
        "coherence_kmeans": cut.metrics["tree.coherence_kmeans"],
        "letters_of_names": {k: round(v, 3) for k, v in encoders.script_shares(level_2).items()},
        "names_1": names[0][:NAMES],
        "names_2": level_2[:: max(1, len(level_2) // NAMES)][:NAMES],
        "heldout": int(heldout.count.sum()),
        **figures,
    }


def captions(folder: Path) -> dict[str, Any]:
    """Each encoder on captions alone."""
    with (folder / "videos.csv").open(encoding="utf-8", newline="") as f:
        rows = {row["caption"]: row for row in csv.DictReader(f) if row["caption"].strip()}
    texts = list(rows)
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:CAPTIONS]]
    kinds = {level: np.array([rows[t][f"{level}_level_category_id"] or f"-{t}" for t in texts]) for level in LEVELS}
    torch.set_num_threads(1)
    found: dict[str, Any] = {"captions": len(texts)}
    for model in encoders.SCRIPTS:
        encoder = (
            ngrams.fit(texts) if model == encoders.NGRAMS else encoders.sentence_encoder(config.Embeddings(model))
        )
        encoder(texts[:10])
        started = time.perf_counter()
        encoded = encoder(texts)
        seconds = time.perf_counter() - started
        vectors = projected(encoded)
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -2)
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
        found[model] = {
            "same_category": [round(float((kind[near] == kind[:, None]).mean()), 4) for kind in kinds.values()],
            "vectors": len(np.unique(projection.group_equal(vectors))),
            "ms": round(1e3 * seconds / len(texts), 2),
        }
    return found


def projected(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """As 02-embeddings projects them."""
    return projection.project([rows], np.ones(len(rows)), config.Embeddings().dim)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", default="kuairec")
    parser.add_argument("--models", nargs="+", default=["minilm", "auto"])
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--captions", action="store_true")
    given = parser.parse_args()
    if given.captions:
        print(json.dumps(captions(given.folder)))
        return
    for model in given.models:
        found = through(given.source, given.folder.resolve(), model, given.settings)
        print(json.dumps(found, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
