"""Where language must matter: what a language model knows of the next interest that a thin log does not tell.

    python benchmarks/knows.py W [--share 0.02 | --new-interests 0.2 | --from W1,W2 [--share 0]]
        [--lessons untuned,transitions,evidence,paper] [--seeds 3] [--first 0] [--steps N] [--evaluate 1000]
        [--set language_model.setting=value …] [--folder FOLDER] [--json PATH]

W is a workspace that was built to 06-transitions; it is only read. Transitions are found in its events anew, and
parted in time as its settings say.

--share P          only this share of the people, drawn anew with each seed, is in training and validation. Held out
                   are the later transitions of everybody, those people included.
--new-interests P  no transition of this share of the clusters, drawn anew with each seed, is in training or
                   validation, neither as label nor in a context. Held out are later transitions into them: among
                   all clusters, where whatever counts says that they never come, and `among_new` alone.
--from W1,W2       the model is fine-tuned on the transitions of these workspaces, under their own names, and on
                   those of W where --share leaves any (--share 0: none). Without them, weights are those that fit
                   W1 and W2.

The tree and the names are those of W, so that they have seen the whole catalog and its traffic, also with --share.
Each lesson is fine-tuned for --steps (0: as many as `byway run` takes) and its last weights are asked. Rows:
`counts`, `similarity` (its scale fitted), `bilinear` (similarity learned on what the model learns from, those of
--from among them, by `baselines.bilinear`), `offset` (counts, similarity and popularity, weights fitted by
likelihood), `bilinear+offset`, and of every lesson itself (its sharpness fitted), `+offset` (its weight fitted),
and where it was taught beside the offset `as_taught`.
Everything fitted is fitted on validation. `nats` is the log-probability of what followed, a transition, among the
clusters outside the context; `over_offset` that less the offset's. `unseen` are contexts that training does not
show. Intervals of a run are of 95% by bootstrap over transitions; those over seeds, by Student's t, are of all that
a seed draws: people or interests, and the fine-tuning. A run that is done is a JSON in --folder and is not done
again.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.base import artifact, config, memory, metrics, models, precision
from byway.data import events
from byway.data.heldout import split
from byway.evaluation import baselines
from byway.interests import describe, embed, tree
from byway.interests.partition import centroids
from byway.language import gain, head, lesson, offset, prompts, tune
from byway.language.fast.bulk import WEIGHTS
from byway.language.fast.generate import Policy, make_policy
from byway.language.training import Optimiser, rate
from byway.transitions import curate
from byway.transitions.counts import ranks_of
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Scorer

LESSONS: dict[str, tuple[str, ...] | None] = {
    "untuned": None,
    "transitions": ("language_model.target='transitions'",),
    "evidence": (),
    "paper": (
        "language_model.attention='causal'",
        "language_model.recipe='paper'",
    ),
}
SHARPER = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Powers that are tried of what speaks alone; similarity, a cosine, wants large ones."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Platform:
    """A workspace as one seed leaves it."""

    names: list[str]
    transitions: Transitions
    alike_MM: Floats
    middle_Md: NDArray[np.float32]
    new_M: NDArray[np.bool_]
    """Which clusters are new: nothing is known of them. None is, but with --new-interests."""

    @property
    def empty(self) -> bool:
        return not len(self.transitions.train)


def read(folder: Path, share: float, new: float, seed: int) -> Platform:
    """The workspace with a share of its people, or without a share of its interests."""
    record = artifact.read_record(folder / "06-transitions")
    assert record is not None, f"{folder} was not built to 06-transitions"
    level, history = record.settings["level"], record.settings["history"]
    log, grown = events.load(folder / "01-catalog"), tree.load(folder / "04-tree")
    vectors, M = embed.load(folder / "02-embeddings"), grown.size(level)
    found = curate.find(log, grown.assign(level), M, history)
    part = split(found.time, found.progress, found.user, log.clock, curate.HELDOUT, curate.VALIDATION)
    rng = np.random.default_rng([seed, 3])
    people = rng.random(log.n_users) < share
    new_M = np.zeros(M, bool)
    new_M[rng.choice(M, round(new * M), replace=False)] = True
    known = people[found.user] & ~new_M[found.label] & ~new_M[found.context].any(axis=1)
    rows = [known & (part == 0), known & (part == 1), (part == 2) & (new_M[found.label] | (not new))]
    train, validation, heldout = (curate.count(found.context[each], found.label[each], M) for each in rows)
    return Platform(
        describe.load(folder / "05-descriptions").names[level - 1],
        Transitions(level, M, True, train, validation, heldout, train),
        grown.similarity(vectors, level),
        centroids(vectors, grown.assign(level), M),
        new_M,
    )


def offsets(asked: Platform, others: list[Platform]) -> list[Scorer]:
    """Counts, similarity and popularity of each, fitted; of one without a log as the others are on the average."""
    found = [
        offset.fitted_by_likelihood(
            Scorer.from_log(p.transitions, p.alike_MM), p.transitions.validation, np.random.default_rng(0)
        )
        for p in (asked, *others)
    ]
    if others and not len(asked.transitions.validation):
        weights = [scorer.all_weights() for scorer in found[1:]]
        found[0] = found[0].weighed(**{key: float(np.mean([w[key] for w in weights])) for key in weights[0]})
    return found


def learned(platforms: list[Platform], others: list[Scorer] | None, rng: np.random.Generator) -> baselines.Guess:
    """Similarity learned on the logs of all platforms, alone or beside their offsets, for the first.

    Vectors are those of the clusters' items, beside the mean of their own platform, all by one encoder.
    """
    starts = np.cumsum([0, *(p.transitions.clusters for p in platforms)]).astype(np.int32)
    M = int(starts[-1])

    def part(name: str) -> Samples:
        several = [getattr(p.transitions, name) for p in platforms]
        moved = [some.context + start for some, start in zip(several, starts, strict=False)]
        labels = [some.label + start for some, start in zip(several, starts, strict=False)]
        return Samples(
            np.concatenate(moved), np.concatenate(labels), np.concatenate([some.count for some in several])
        )

    def offset_of(context: NDArray[np.int32]) -> Floats:
        """[N, all clusters] the platform's own offset, and next to nothing for the clusters of the others."""
        base, at = np.full((len(context), M), -1e9), np.searchsorted(starts, context[:, 0], side="right") - 1
        for i, (begin, end) in enumerate(pairwise(starts.tolist())):
            rows = np.flatnonzero(at == i)
            base[rows, begin:end] = others[i](context[rows] - begin) if others else 0.0
        return base

    joint = replace(platforms[0].transitions, clusters=M, train=part("train"), validation=part("validation"))
    vectors = np.concatenate([p.middle_Md - p.middle_Md.mean(axis=0) for p in platforms])
    guess = baselines.bilinear(joint, vectors, offset_of, rng)
    return lambda context: guess(context)[:, : starts[1]]


def taught(
    name: str, platforms: list[Platform], others: list[Scorer], given: argparse.Namespace, seed: int
) -> list[Policy]:
    """A policy for every platform, all by one model, which was fine-tuned on those that have a log, in turn."""
    overrides = LESSONS[name]
    chosen = config.load(Path("-"), [*(overrides or ()), *given.set])
    settings = config.with_own(chosen.language_model)
    tokenizer = models.load_tokenizer(settings.model)
    model = models.load(settings.model, precision.dtype(chosen.run.precision))
    ending, attention = (settings.attention, settings.attention) if overrides is not None else ("block", "causal")
    history = platforms[0].transitions.train.context.shape[1]
    prompted = [prompts.tokenise(p.names, history, tokenizer, prompts.ENDINGS[ending]) for p in platforms]
    policies = [make_policy(model, prompt, attention) for prompt in prompted]
    if overrides is None:
        return policies
    logs: list[tuple[Policy, Transitions, Scorer]] = []
    for policy, platform, other in zip(policies, platforms, others, strict=True):
        log = platform.transitions
        if platform.empty:
            continue
        if name == "paper":
            some = curate.diversified(log.train.several(), 10, log.clusters, np.random.default_rng([seed, 4]))
            log = replace(log, whole_log=False, samples=some)
        elif settings.target == "evidence":
            other = Scorer.from_log(log, platform.alike_MM).fitted_by_ndcg(log.validation, np.random.default_rng(0))
            other = other.weighed(popularity=0.0)
        logs.append((policy, log, other))
    assert logs, "there is no log to learn from: give --from, or a larger --share"
    tune.freeze(model, tune.frozen(settings))
    head.learn(model, [answer for prompt in prompted for answer in prompt.answers])
    optimiser = Optimiser(model)
    steps = given.steps or max(100, 2 * platforms[0].transitions.clusters)
    for step in range(steps):
        policy, log, other = logs[step % len(logs)]
        draws = np.random.default_rng([seed, step])
        batch = lesson.draw(log, other, policy.trie.goes_on(), settings, draws)
        choice_weight, further_weight = tune.RECIPES[settings.recipe]
        named, choice = tune.loss(policy, batch, choice_weight, further_weight)
        (named + choice_weight * choice).backward()
        optimiser.step(rate(step, steps, settings.learning_rate, tune.WARMUP))
    return policies


@dataclass(frozen=True)
class Asked:
    """Transitions of which something is said, and what the offset says of them."""

    some: Samples
    offset_NM: Floats

    def of(self, log_p_NM: NDArray[np.floating]) -> Floats:
        """[N] log-probability of what followed."""
        return log_p_NM[np.arange(len(self.some)), self.some.label].astype(np.float64)

    def both(self, base: Any, score_NM: NDArray[np.floating], weight: float) -> Floats:
        return offset.normalised(base + weight * score_NM, self.some.context)


def best_weight(said: list[tuple[Asked, NDArray[np.floating]]], tried: tuple[float, ...], beside: bool) -> float:
    """The weight of what is said, beside the offset or alone, under which all these transitions are most likely."""

    def likely(weight: float) -> float:
        return sum(
            float(a.of(a.both(a.offset_NM if beside else 0.0, score, weight)) @ a.some.count) for a, score in said
        )

    return max(tried, key=likely)


def figures(asked: Asked, log_p_NM: Floats, slices: dict[str, NDArray[np.bool_]]) -> dict[str, dict[str, Any]]:
    """Nats, the gain over the offset and recall at 10, with intervals, on parts of the transitions."""
    told: dict[str, dict[str, Any]] = {}
    of, base = asked.of(log_p_NM), asked.of(asked.offset_NM)
    hit = ranks_of(log_p_NM, asked.some) < 10
    for name, rows in slices.items():
        count = asked.some.count[rows]
        told[name] = {"transitions": int(count.sum())}
        if not len(count):
            continue
        draws = metrics.bootstrap_weights(len(count), 500, np.random.default_rng(0))
        for figure, value in (("nats", of), ("over_offset", of - base), ("recall_at_10", hit)):
            one = metrics.ratio(value[rows] * count, count, draws)
            told[name][figure] = {k: round(getattr(one, k), 5) for k in ("mean", "low", "high")}
    return told


def run(name: str, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The rows of one lesson, or of all that does not read, with one seed."""
    began = time.perf_counter()
    asked = read(given.workspace, given.share, given.new_interests, seed)
    platforms = [asked, *(read(folder, 1.0, 0.0, seed) for folder in given.sources)]
    others = offsets(asked, platforms[1:])
    seen = {tuple(each) for each in asked.transitions.train.context.tolist()}

    def of(place: int, part: str) -> Asked:
        every = getattr(platforms[place].transitions, part).several()
        some = curate.sampled(every, given.evaluate, np.random.default_rng(0))
        return Asked(some, offset.normalised(others[place](some.context), some.context))

    # Whoever has no validation is weighed by the others'.
    fit_on = [0] if len(asked.transitions.validation.several()) else list(range(1, len(platforms)))
    fitted, held = [of(place, "validation") for place in fit_on], of(0, "heldout")
    unseen = np.array([tuple(each) not in seen for each in held.some.context.tolist()])
    slices = {"all": np.ones(len(unseen), bool), "unseen": unseen}
    rows: dict[str, Floats] = {}
    weights: dict[str, float] = {}

    def weighed(row: str, said: list[NDArray[np.floating]], own: NDArray[np.floating]) -> None:
        """What is said alone, its scale fitted, and beside the offset."""
        pairs = list(zip(fitted, said, strict=True))
        ways = (
            ((row, SHARPER, False),)
            if row == "similarity"
            else ((row, SHARPER, False), (f"{row}+offset", WEIGHTS, True))
        )
        for title, tried, beside in ways:
            weights[title] = best_weight(pairs, tried, beside) if pairs else 1.0
            rows[title] = held.both(held.offset_NM if beside else 0.0, own, weights[title])

    seconds: dict[str, float] = {}
    if name == "signals":
        counts = Scorer.from_log(asked.transitions).weighed(popularity=0.0)
        rows["counts"] = held.both(0.0, counts(held.some.context), 1.0)
        alike = [platforms[place].alike_MM for place in fit_on]
        said = [matrix[a.some.context].mean(axis=1) for matrix, a in zip(alike, fitted, strict=True)]
        weighed("similarity", said, asked.alike_MM[held.some.context].mean(axis=1))
        rows["offset"] = held.offset_NM
        for title, beside in (("bilinear", None), ("bilinear+offset", others)):
            guess = learned(platforms, beside, np.random.default_rng(seed))
            rows[title] = held.both(0.0, guess(held.some.context), 1.0)
        weights |= {f"offset.{key}": round(value, 3) for key, value in others[0].all_weights().items()}
    else:
        policies = taught(name, platforms, others, given, seed)
        seconds["teaching"] = round(time.perf_counter() - began, 1)
        said = [gain.log_p(policies[place], a.some.context) for place, a in zip(fit_on, fitted, strict=True)]
        own = gain.log_p(policies[0], held.some.context)
        weighed(name, said, own)
        if name == "transitions":
            rows["transitions as_taught"] = gain.as_taught(policies[0].trie, own, held.offset_NM, held.some.context)
    found = {title: figures(held, log_p, slices) for title, log_p in rows.items()}
    if given.new_interests:
        outside = np.where(asked.new_M, 0.0, -1e9)
        among = replace(held, offset_NM=held.both(held.offset_NM, outside, 1.0))
        for title, log_p in rows.items():
            every = {"among_new": slices["all"]}
            found[title] |= figures(among, offset.normalised(log_p + outside, held.some.context), every)
    seconds["run"] = round(time.perf_counter() - began, 1)
    log = asked.transitions
    parts = {part: int(getattr(log, part).count.sum()) for part in ("train", "validation", "heldout")}
    return {
        "lesson": name,
        "seed": seed,
        "transitions": parts,
        "weights": weights,
        "seconds": seconds,
        "rows": found,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every row: each figure's mean over seeds and its interval by Student's t."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for one in runs:
        for row, parts in one["rows"].items():
            for part, told in parts.items():
                for figure in ("nats", "over_offset", "recall_at_10"):
                    if figure in told:
                        place = values.setdefault(row, {}).setdefault(part, {})
                        place.setdefault(figure, []).append(told[figure]["mean"])
    return {
        row: {
            part: {figure: metrics.over_seeds(each, figure == "recall_at_10") for figure, each in told.items()}
            for part, told in parts.items()
        }
        for row, parts in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--new-interests", type=float, default=0.0)
    parser.add_argument(
        "--from", dest="sources", type=lambda text: [Path(each) for each in text.split(",")], default=[]
    )
    parser.add_argument("--lessons", default=",".join(LESSONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--evaluate", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    memory.keep()
    setting = {
        key: [str(each) for each in value] if key == "sources" else str(value) if key == "workspace" else value
        for key, value in vars(given).items()
        if key not in ("lessons", "seeds", "first", "folder", "json")
    }
    runs: list[dict[str, Any]] = []
    for seed in range(given.first, given.first + given.seeds):
        for name in ("signals", *given.lessons.split(",")):
            path = given.folder / f"{name}-{seed}.json" if given.folder else None
            if path is not None and path.exists():
                one: dict[str, Any] = json.loads(path.read_text("utf-8"))
                assert one["asked"] == setting, (
                    f"{path} is of other settings: {one['asked']}; give another --folder"
                )
            else:
                one = {"asked": setting, **run(name, given, seed)}
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    artifact.write_atomic(path, json.dumps(one).encode())
            runs.append(one)
            for row, parts in one["rows"].items():
                told = "  ".join(
                    f"{part} {of['over_offset']['mean']:+.3f} nats, recall {of['recall_at_10']['mean']:.3f}"
                    for part, of in parts.items()
                    if "nats" in of
                )
                print(f"{seed} {row:24} {told}", flush=True)
    result = {"asked": setting, "table": summary(runs), "runs": runs}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
