"""What each choice in the language policy is worth: one is changed at a time, and a model fine-tuned anew.

    python benchmarks/ablation.py W [VARIANT …] [--seeds 1] [--first 0] [--keep FOLDER] [--set section.knob=value …]

W is a workspace that `byway run` has taken to 05-descriptions; nothing in it is changed. With `--keep` the
models stay in that folder, and one that was cut off goes on from its last checkpoint. Every variant is asked
about the same held-out transitions, some (`--asked`) of those whose user had three interests before. Another
level of the tree has other labels, so that there only popularity, counting and chance on the same line are its
measure. Recall at 1 and at 10: `alone` is the fine-tuned model by itself; `served` weighs it with the log's
counts and the likeness of items, as the table does; `turned` is the model asked with the two interests the
other way round.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway import config, memory
from byway.artifact import Work
from byway.data import events
from byway.data.events import Events
from byway.evaluation import baselines
from byway.evaluation.baselines import ranks_of
from byway.interests import describe, embed, tree
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import bulk, curate, models, tune
from byway.language.counts import Evidence, Successors
from byway.language.curate import Samples, Transitions, pick
from byway.language.plan import open_policy
from byway.ranking import recall_at

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "K=1": ("transitions.history=1",),
    "K=3": ("transitions.history=3",),
    "level=1": ("transitions.level=1",),
    "level=3": ("transitions.level=3",),
    "causal": ("language_model.attention='causal'",),
    "lora": ("language_model.method='lora'",),
    "diversified": ("transitions.curation='diversified'",),
    "random": ("transitions.curation='random'", "language_model.balance=0"),
    "paper": (
        "transitions.curation='diversified'",
        "language_model.attention='causal'",
        "language_model.choice_weight=0",
        "language_model.further_weight=1",
    ),
}


def place(folder: Path, seed: int) -> Work:
    """Where one stage of one variant is built."""
    for part in ("out", "scratch"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return Work(folder / "out", folder / "scratch", np.random.default_rng(seed))


def curated(folder: Path, knobs: config.Transitions, log: Events, grown: Tree, seed: int) -> Transitions:
    """06-transitions with other knobs."""
    here = place(folder, seed)
    curate.build(here, knobs, log, grown)
    return curate.load(here.out)


def asked(heldout: Samples, K: int, n: int) -> Samples:
    """The same transitions, told by the last K interests of three."""
    return pick(Samples(heldout.context[:, -K:], heldout.label, heldout.count), n, np.random.default_rng(0))


@torch.no_grad()
def recalls(
    transitions: Transitions,
    some: Samples,
    names: Descriptions,
    tuned: tune.Tuned,
    alike: Any,
    knobs: config.Config,
    seed: int,
) -> dict[str, Any]:
    """Figures of one variant, beside those who do not read."""
    policy = open_policy(tuned, transitions, names, knobs.transition_table)
    successors = Successors.of(transitions)
    fitted = bulk.fit(policy, transitions.validation, Evidence(successors, alike), np.random.default_rng(0))
    evidence = Evidence(successors, alike, fitted.pull)
    n = min(10, transitions.clusters)

    def found(context: Any, column: str) -> list[float]:
        parts = np.array_split(context, max(1, len(context) // 250))
        listed = [bulk.answer_some(policy, part, evidence, fitted.weight, n, n)[column] for part in parts]
        hit = np.concatenate(listed) == some.label[:, None]
        return at(np.where(hit.any(axis=1), hit.argmax(axis=1), n))

    def at(rank: NDArray[np.int64]) -> list[float]:
        return [recall_at(rank, k, some.count) for k in (1, 10)]

    spoken = tune.look(
        policy, names.names[transitions.level - 1], models.load_tokenizer(str(tuned.path)), {"h": some}
    )
    with torch.enable_grad():
        learned = baselines.neural(transitions, successors, seed)
    guesses = {
        "popularity": baselines.popularity(successors),
        "counts": successors.probability,
        "neural": learned,
        "counts_alike": baselines.alike(Evidence(successors, alike), transitions.validation.several()),
    }
    return {
        "clusters": transitions.clusters,
        "match_rate": spoken["match_rate"],
        "distinct": spoken["distinct_outputs"],
        "alone": found(some.context, "model"),
        "turned": found(some.context[:, ::-1].copy(), "model") if some.context.shape[1] == 2 else None,
        "served": found(some.context, "cluster"),
        "weight": fitted.weight,
        **{name: at(ranks_of(guess(some.context), some)) for name, guess in guesses.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--asked", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    memory.keep()
    W = given.workspace
    log, names = events.load(W / "01-catalog"), describe.load(W / "05-descriptions")
    vectors, grown = np.array(embed.load(W / "02-embeddings")), tree.load(W / "04-tree")
    rows: list[dict[str, Any]] = []
    for seed in range(given.first, given.first + given.seeds):
        for name in given.variants:
            knobs = config.load(W / "byway.toml", [*given.set, *VARIANTS[name]])
            torch.set_num_threads(knobs.run.threads or torch.get_num_threads())
            with tempfile.TemporaryDirectory(dir=W.resolve().parent) as folder:
                transitions = curated(Path(folder) / "own", knobs.transitions, log, grown, seed)
                K = knobs.transitions.history
                three = config.load(W / "byway.toml", [*given.set, *VARIANTS[name], "transitions.history=3"])
                heldout = curated(Path(folder) / "three", three.transitions, log, grown, seed).heldout.several()
                here = place((given.keep or Path(folder)) / f"{name}-{seed}", seed)
                started = time.perf_counter()
                tune.build(here, knobs.language_model, transitions, names)
                seconds = round(time.perf_counter() - started, 1)
                alike = grown.alike(vectors, transitions.level)
                some = asked(heldout, K, given.asked)
                found = recalls(transitions, some, names, tune.load(here.out), alike, knobs, seed)
            rows.append({"variant": name, "seed": seed, "seconds": seconds, **found})
            print(json.dumps(rows[-1]), flush=True)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
