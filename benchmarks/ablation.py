"""What each choice in the language policy is worth: one is changed at a time, and a model fine-tuned anew.

    python benchmarks/ablation.py W [VARIANT …] [--seeds 1] [--first 0] [--keep FOLDER] [--set section.setting=value
    …]

W is a workspace that `byway run` has taken to 05-descriptions; nothing in it is changed. With `--keep` the
models stay in that folder: one that is done is taken as it is, and one that was cut off goes on from its last
checkpoint, so that a folder belongs to one commit. `--users 0.1` leaves a tenth of the people in the log. Every
variant is asked about the same held-out transitions, some (`--asked`) of those whose user had three interests
before, or with `--whole` about all that it keeps apart itself. Another level of the tree has other labels, so
that there only what stands on the same line is its measure.

Each figure is recall at 1, 5 and 10, that at 10 averaged over labels, and that at 10 on pairs that the log
never showed: of `alone`, the fine-tuned model by itself; of `calibrated`, the same with popularity, which it was
not taught, given back to the power that validation transitions ask for; of `served`, which weighs it with the
log's counts and the similarity of items, as the table does; of `turned`, the model asked with the two interests the
other way round; and of who does not read. Over several seeds follow means and 95% intervals (Student's t).
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import config, memory, models
from byway.base.artifact import Work
from byway.base.metrics import over_seeds
from byway.base.ranking import macro_recall_at, ranks_in, recall_at
from byway.data import events
from byway.data.events import Events
from byway.evaluation import baselines
from byway.evaluation.baselines import Guess
from byway.interests import describe, embed, tree
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.language import tune
from byway.language.fast import bulk
from byway.language.fast.generate import Policy
from byway.language.plan import open_policy
from byway.transitions import curate
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.curate import Samples, Transitions, pick
from byway.transitions.signals import Scorer

KS = (1, 5, 10)
SPOKEN = 1000
"""Prompts that the model answers freely."""
POWERS = (0.0, 0.5, 1.0, 2.0)
"""Exponents of popularity that are tried for `calibrated`: what the model says is sharpened."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "K=1": ("transitions.history=1",),
    "K=3": ("transitions.history=3",),
    "level=1": ("transitions.level=1",),
    "level=3": ("transitions.level=3",),
    "causal": ("language_model.attention='causal'",),
    "lora": ("language_model.method='lora'",),
    "counts_taught": ("language_model.target='counts'",),
    "diversified": ("transitions.curation='diversified'",),
    "random": ("transitions.curation='random'",),
    "paper": (
        "transitions.curation='diversified'",
        "language_model.attention='causal'",
        "language_model.recipe='paper'",
    ),
}


def place(folder: Path, seed: int) -> Work:
    """Where one stage of one variant is built."""
    for part in ("out", "scratch"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return Work(folder / "out", folder / "scratch", np.random.default_rng(seed))


def curated(folder: Path, settings: config.Transitions, log: Events, grown: Tree, seed: int) -> Transitions:
    """06-transitions with other settings."""
    here = place(folder, seed)
    curate.build(here, settings, log, grown)
    return curate.load(here.out)


def some_users(log: Events, share: float, seed: int) -> Events:
    """The log of a share of its users, drawn at random."""
    kept = np.random.default_rng([seed, 3]).random(log.n_users) < share
    here, number = kept[log.user], np.cumsum(kept) - 1
    return replace(
        log,
        user=number[log.user[here]].astype(np.int32),
        **{name: getattr(log, name)[here] for name in ("item", "time", "satisfaction")},
        n_users=int(number[-1]) + 1,
    )


def asked(heldout: Samples, K: int, n: int) -> Samples:
    """The same transitions, told by the last K interests of three."""
    return pick(Samples(heldout.context[:, -K:], heldout.label, heldout.count), n, np.random.default_rng(0))


def with_prior(policy: Policy, validation: Samples, successors: Successors) -> tuple[float, Guess]:
    """The power of popularity beside the model's probability that validation ranks best by, and that popularity."""
    some, usual = pick(validation.several(), 1500, np.random.default_rng(0)), np.log(successors.popularity_M)

    def prior(power: float) -> Guess:
        return lambda context: np.tile((power * usual).astype(np.float32), (len(context), 1))

    def found(power: float) -> float:
        parts = np.array_split(some.context, -(-len(some) // 250))
        best = [bulk.answer_some(policy, part, prior(power), 1.0, 10, 1)["cluster"] for part in parts]
        return float((np.concatenate(best) == some.label[:, None]).any(axis=1) @ some.count)

    power = max(POWERS, key=found)
    return power, prior(power)


@torch.no_grad()
def recalls(
    transitions: Transitions,
    some: Samples,
    names: Descriptions,
    tuned: tune.Tuned,
    alike: Any,
    settings: config.Config,
    seed: int,
) -> dict[str, Any]:
    """Figures of one variant, beside those who do not read."""
    policy = open_policy(tuned, transitions, names, settings.run.precision)
    successors = Successors.of(transitions)
    evidence, weight = bulk.fit(
        policy, transitions.validation, Scorer.from_counts(successors, alike), np.random.default_rng(0)
    )
    n, known = min(10, transitions.clusters), successors.seen(some.context)
    power, prior = with_prior(policy, transitions.validation, successors)
    first_answers: list[int] = []

    def told(rank: NDArray[np.int64]) -> dict[str, Any]:
        return {
            "recall": [recall_at(rank, k, some.count) for k in KS],
            "macro": macro_recall_at(rank, 10, some.label, some.count),
            "unseen": recall_at(rank[~known], 10, some.count[~known]),
        }

    def of_list(listed: NDArray[np.int32]) -> dict[str, Any]:
        return told(ranks_in(listed, some.label))

    @torch.no_grad()
    def answered() -> dict[str, Any]:
        """By the whole table of pairs where that is less to ask than each context by itself."""
        M, (N, K) = transitions.clusters, some.context.shape
        if K == 2 and M * M < 8 * N:
            rows = [range(start, min(start + bulk.TILE, M)) for start in range(0, M, bulk.TILE)]
            table = np.concatenate(list(map(bulk.row_answerer(policy, evidence, weight, n, n), rows)))
            one, two = some.context.T
            listed = {"alone": table["model"][one, two], "turned": table["model"][two, one]}
            given = listed["alone"]
            if power:
                every = list(map(bulk.row_answerer(policy, prior, 1.0, n, 1), rows))
                given = np.concatenate(every)["cluster"][one, two]
            first_answers.extend(np.unique(table["model"][:, :, 0]).tolist())
            return {**listed, "calibrated": given, "served": table["cluster"][one, two]}
        listed = {"alone": bulk.first(policy, some.context, n)}
        if K == 2:
            listed["turned"] = bulk.first(policy, some.context[:, ::-1].copy(), n)
        contexts, row = np.unique(some.context, axis=0, return_inverse=True)
        parts = np.array_split(contexts, max(1, len(contexts) // 250))
        given = [bulk.answer_some(policy, part, prior, 1.0, n, 1)["cluster"] for part in parts]
        listed["calibrated"] = np.concatenate(given)[row.reshape(-1)]
        if not weight:
            return {**listed, "served": bulk.by_evidence(some.context, evidence, M, n)[0]}
        found = [bulk.answer_some(policy, part, evidence, weight, n, n)["cluster"] for part in parts]
        return {**listed, "served": np.concatenate(found)[row.reshape(-1)]}

    legal = set(names.names[transitions.level - 1])
    few = pick(some, SPOKEN, np.random.default_rng(0)).context
    longest = max(map(len, policy.prompt.answers)) + 2
    spoken = tune.spoken_answers(policy, few, models.load_tokenizer(str(tuned.path)), longest)
    with torch.enable_grad():
        learned = baselines.neural(transitions, successors, seed)
    guesses = {
        "popularity": baselines.popularity(successors),
        "counts": successors.probability,
        "counts_fair": baselines.fair(successors),
        "nearest": baselines.nearest(alike),
        "neural": learned,
        "counts_alike": Scorer.from_counts(successors, alike).fitted_by_ndcg(
            transitions.validation, np.random.default_rng(0)
        ),
    }
    return {
        "clusters": transitions.clusters,
        "asked": int(some.count.sum()),
        "match_rate": round(float(np.mean([answer in legal for answer in spoken])), 4),
        "distinct": len(set(spoken) & legal),
        "weights": {**evidence.all_weights(), "language_model": weight},
        "prior_power": power,
        **{name: of_list(listed) for name, listed in answered().items()},
        # Clusters that are the model's first answer to some pair of all.
        "answers": len(first_answers) or None,
        **{name: told(ranks_of(guess(some.context), some)) for name, guess in guesses.items()},
    }


def pooled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and 95% interval over the seeds of one variant, of each figure."""
    found: dict[str, Any] = {}
    for name, value in rows[0].items():
        if isinstance(value, dict):
            found |= {
                f"{name}.recall_at_{k}": over_seeds([row[name]["recall"][i] for row in rows], share=True)
                for i, k in enumerate(KS)
            }
            found |= {
                f"{name}.{of}": over_seeds([r[name][of] for r in rows], share=True) for of in ("macro", "unseen")
            }
        elif name in ("match_rate", "distinct", "weight", "answers") and value is not None:
            found[name] = over_seeds([row[name] for row in rows], share=name == "match_rate")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--users", type=float, default=1.0)
    parser.add_argument("--asked", type=int, default=2000)
    parser.add_argument("--whole", action="store_true")
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
            settings = config.load(W / "byway.toml", [*given.set, *VARIANTS[name]])
            torch.set_num_threads(settings.run.threads or torch.get_num_threads())
            with tempfile.TemporaryDirectory(dir=W.resolve().parent) as folder:
                part = some_users(log, given.users, seed)
                transitions = curated(Path(folder) / "own", settings.transitions, part, grown, seed)
                K = settings.transitions.history
                three = config.load(W / "byway.toml", [*given.set, *VARIANTS[name], "transitions.history=3"])
                heldout = curated(Path(folder) / "three", three.transitions, log, grown, seed).heldout.several()
                here = place((given.keep or Path(folder)) / f"{name}-{seed}", seed)
                started = time.perf_counter()
                of = [*given.set, f"users={given.users}"]
                if (here.out / "of.json").exists() and json.loads((here.out / "of.json").read_text("utf-8")) != of:
                    raise SystemExit(f"{here.out} holds a model of other settings: give --keep another folder.")
                (here.out / "of.json").write_text(json.dumps(of), "utf-8")
                alike, arithmetic = grown.similarity(vectors, transitions.level), settings.run.precision
                if not (here.out / "policy.json").exists():
                    tune.build(here, settings.language_model, transitions, names, alike, arithmetic=arithmetic)
                seconds = round(time.perf_counter() - started, 1)
                some = transitions.heldout.several() if given.whole else asked(heldout, K, given.asked)
                found = recalls(transitions, some, names, tune.load(here.out), alike, settings, seed)
            counts = {"seed": seed, "transitions": int(transitions.train.count.sum()), "seconds": seconds}
            rows.append({"variant": name, **counts, **found})
            print(json.dumps(rows[-1]), flush=True)
    every = {name: pooled([row for row in rows if row["variant"] == name]) for name in given.variants}
    if given.json:
        print(json.dumps({"rows": rows, "pooled": every}))
        return
    for name, figures in every.items():
        for figure, found in figures.items():
            between = "" if found["low"] is None else f" ({found['low']} to {found['high']})"
            print(f"{name:12} {figure:28} {found['mean']}{between}")


if __name__ == "__main__":
    main()
