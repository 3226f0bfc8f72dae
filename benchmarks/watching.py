"""What there is to see, whether it is learned, and whether it pleases: the world in which pictures decide.

    python -m benchmarks.watching world W                   # the world with looks, and its workspace to 09-pairs
    python -m benchmarks.watching evidence W [--json PATH]   # before training: what can be found, fault by fault
    python -m benchmarks.watching models W [--steps 60] [--seeds 3] [--json PATH]   # text, pictures, noise, thought
    python -m benchmarks.watching models W --kinds video,frames-1,frames-2,frames-8,thumbnail   # pictures alone
    python -m benchmarks.watching arms W [--table NAME=PATH …] [--deals 5] [--users 500] [--json PATH]

`evidence` asks how often the cluster that pleased next is found by the log's own counts, in the way before and in
the way now; by a linear model that looks; and by who is told each item's look. `arms` lives the same rankings as
tables of the multimodal arm, inside the visit and, as before, when a visit begins. A further table is a folder
11-context-table, or what `models` leaves of its first seed: KIND-alone.npy, and KIND-fitted.npy beside counts.
`models` fine-tunes 07-language-model of the workspace on each kind of prompt, asks it about all held-out and new
videos, and says what it adds to counts and pictures (`multimodal.weigh`). What is done stands in a folder beside
the workspace, and a run that was cut goes on.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benchmarks import mask
from benchmarks.placebo import WATCHED
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from byway.base import config, metrics
from byway.base.artifact import Work
from byway.data import catalog, events, media
from byway.data.media import Media
from byway.evaluation.views import View, with_more_frames
from byway.interests import describe, embed, tree
from byway.language import tune as language
from byway.multimodal import curate, plan, tune, weigh
from byway.multimodal.contexts import Contexts, contexts, serendipitous
from byway.multimodal.curate import Evidence, Pairs, PairSamples
from byway.multimodal.model import new_model
from byway.simulation import arms, loop, visual, world
from byway.simulation.pooling import measure
from byway.simulation.runs import Run
from byway.workflow import pipeline

TOML = """\
[catalog]
source = "parquet"
items = "source/items.parquet"
events = "source/events.parquet"

[embeddings]
# The tree is of words: what is seen is left to whoever looks.
pictures = 0.0
sound = 0.0

[tree]
items_per_cluster = 13

[media]
frames = 4

[language_model]
steps = 100
block_clusters = 8
batch = 40

[experiment]
retrain_every = 15
"""
language.EVALUATE_ON = 60  # it spells the names here, and is judged nowhere
STAGES = ("catalog", "media", "embeddings", "graph", "tree", "descriptions", "transitions", "pairs", "item_policy")
SURE = 1e6
"""Liked pairs that a cluster's weigh as much as, where a video's own are to count for nothing."""
DEPTH = 10
Scores = Callable[[NDArray[np.int32]], NDArray[np.floating]]
KINDS = {
    "text": View("text", 4),
    "video": View("video", 4),
    "both": View("both", 4),
    "noise": View("both", 4, noise=True),
    "thought": View("thought", 4),
}
"""Ways to ask, by what they are called here: noise is shown in the place of the pictures, as both are."""
SHOWN = {f"frames-{n}": View("video", n) for n in (1, 2, 8)} | {"thumbnail": View("video", 0)}
"""Beside `video`, which has four frames (paper 2, figures 4 and 5)."""
METRICS = ("positive_rate", "serendipity", "new_positive_rate", "novel_impressions", "platform.positive_rate")


@dataclass(frozen=True, slots=True)
class Known:
    """A workspace of the world with looks, and the truth about its items."""

    pairs: Pairs
    asked: Contexts
    seen: Media
    look: NDArray[np.int8]
    """[items]."""
    shown: PairSamples
    """The log's pairs with all that was shown for evidence, liked or not, as it was taken before."""


@cache
def looked_at(path: Path, frames: int) -> Media:
    """The videos, with so many frames at least."""
    kept, items = media.load(path / "01-media"), catalog.load(path / "01-catalog")
    more = replace(config.load(path / "byway.toml").media, frames=frames)
    folder = path.with_name(f"{path.name}-{frames}-frames")
    return with_more_frames(folder, more, items, replace(kept, folder=path / "source"))


def opened(path: Path, view: View = KINDS["video"]) -> Known:
    """Read a workspace that was built as far as 09-pairs, its videos as they are shown here."""
    settings = config.load(path / "byway.toml")
    items, pairs = catalog.load(path / "01-catalog"), curate.load(path / "09-pairs")
    seen = looked_at(path, view.frames)
    asked = contexts(
        view.of(settings.multimodal_model),
        pairs,
        catalog=items,
        tree=tree.load(path / "04-tree"),
        descriptions=describe.load(path / "05-descriptions"),
        seen=seen,
        frames=view.frames or 1,
    )
    made = world.load(path / "source")
    at = {name: i for i, name in enumerate(made.items.ids)}
    look = made.items.look[[at[name] for name in items.ids()]]
    return Known(pairs, asked, seen, look, replace(pairs.log, liked=pairs.log.count.astype(np.float32)))


def rankers(known: Known) -> dict[str, Scores]:
    """Who could say what pleases next, from who knows least to who is told the look."""
    pairs, asked = known.pairs, known.asked

    def evidence(log: PairSamples) -> Evidence:
        return Evidence.of(log, asked.cluster, asked.parent, pairs.clusters)

    liked, shown = evidence(pairs.log), evidence(known.shown)
    linear = tune.linear(pairs, asked)
    assert linear is not None

    def noise(items: NDArray[np.int32]) -> NDArray[np.floating]:
        return np.random.default_rng(0).random((len(asked.cluster), pairs.clusters))[items]

    return {
        "chance": noise,
        "what was shown, weight 20 (before)": lambda items: shown.next(items, 20.0),
        "what was shown, weight fitted": lambda items: shown.next(items, pairs.back_off),
        "what was liked, weight 20": lambda items: liked.next(items, 20.0),
        "what was liked, weight fitted (now)": lambda items: liked.next(items, pairs.back_off),
        "the cluster alone": lambda items: liked.next(items, SURE),
        "linear, pictures": linear,
        "who is told the look": told(known, liked),
    }


def told(known: Known, liked: Evidence) -> Scores:
    """The cluster's evidence, times how much likelier each cluster is after the item's look."""
    log, M = known.pairs.log, known.pairs.clusters
    after = np.zeros((int(known.look.max()) + 2, M))
    np.add.at(after, (known.look[log.item], log.label), log.liked)
    usual = (after.sum(0) + 5) / (after.sum(0) + 5).sum()
    drawn = after + 5 * usual
    gain = drawn / drawn.sum(1, keepdims=True) / usual
    return lambda items: liked.next(items, SURE) * gain[known.look[items]]


def recalls(known: Known, scores: Scores) -> dict[str, float]:
    """Recall of later liked pairs, of items with a look and without one, and of items that no log has."""
    found: dict[str, float] = {}
    for part, samples in (("heldout", known.pairs.heldout), ("fresh", known.pairs.fresh)):
        possible = serendipitous(known.asked, samples.item)
        order = np.argsort(-np.where(possible, scores(samples.item), -np.inf), axis=1, kind="stable")
        for name, rows in (("look", known.look[samples.item] >= 0), ("none", known.look[samples.item] < 0)):
            hit = order[rows] == samples.label[rows][:, None]
            for k in (1, 3):
                share = np.average(hit[:, :k].any(1), weights=samples.count[rows])
                found[f"{part}.{name}.recall_at_{k}"] = round(float(share), 3)
    return found


def probe(known: Known) -> dict[str, float]:
    """How often a linear model reads the look from an item's mean picture vector, over five folds; by chance."""
    seen, own = known.seen, known.look[known.seen.item] >= 0
    rows = StandardScaler().fit_transform(media.vectors(seen)[own])
    look = known.look[seen.item][own]
    found = cross_val_score(LogisticRegression(C=0.01, max_iter=500), rows, look, cv=5)
    return {"look": round(float(found.mean()), 3), "chance": round(float((np.bincount(look) / len(look)).max()), 3)}


def felt(path: Path) -> dict[str, float]:
    """Mean satisfaction with the next item of a visit, by kind of pair and whether the item before had a look."""
    known, forest = opened(path), tree.load(path / "04-tree")
    found = curate.find(events.load(path / "01-catalog"), curate.GAP_HOURS)
    level = known.pairs.level
    kind = curate.kinds(found, forest.assign(level), forest.assign(level - curate.DELTA))
    look = known.look[found.context] >= 0
    names = {"similar": curate.SIMILAR, "serendipitous": curate.SERENDIPITOUS, "unrelated": curate.UNRELATED}
    return {
        f"{name}, {words}": round(float(found.satisfaction[(kind == number) & own].mean()), 3)
        for name, number in names.items()
        for words, own in (("after a look", look), ("none", ~look))
    }


def ranking(known: Known, scores: Scores) -> NDArray[np.int32]:
    """[items, DEPTH] serendipitous clusters of every item, best first, -1 where fewer are."""
    items = np.arange(len(known.asked.cluster), dtype=np.int32)
    open_NM = serendipitous(known.asked, items)
    score = np.where(open_NM, scores(items), -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")[:, :DEPTH]
    return np.where(np.take_along_axis(open_NM, order, 1), order, -1).astype(np.int32)


def live(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Every table as the multimodal arm, beside the control and the planner: paired, several deals."""
    torch.set_num_threads(1)
    known, settings = opened(path), config.load(path / "byway.toml")
    own = replace(settings.experiment, users=given.users, days=given.days, seeds=given.deals)
    settings = replace(settings, experiment=own)
    folder = path.with_name(f"{path.name}-arms-{given.users}-{given.days}")
    setup, trained, _ = mask.made(path, settings, folder)
    score = visual.interest(known.seen, np.asarray(embed.load(path / "02-embeddings")))
    assert score is not None
    setup = replace(setup, bucket=metrics.buckets(score))
    tables = {name: ranking(known, scores) for name, scores in rankers(known).items()}
    for word in given.table:
        name, _, place = word.partition("=")
        if place.endswith(".npy"):
            tables[name] = np.load(place)
        else:
            made = plan.load(Path(place))
            tables[name] = np.where((made.via < 0)[:, None], -1, made.clusters[made.via]).astype(np.int32)
    now = "what was liked, weight fitted (now)"
    usual = settings.bundle
    strict = replace(usual, surprise="never_met")
    variants: dict[str, tuple[str, NDArray[np.int32] | None, config.Bundle, bool]] = {
        name: (name, None, usual, False) for name in ("control", "byway", "sequence")
    }
    variants |= {name: (arms.MULTIMODAL, table, usual, True) for name, table in tables.items()}
    variants[f"{now}, asked before the visit"] = (arms.MULTIMODAL, tables[now], usual, False)
    variants[f"{now}, never met alone"] = (arms.MULTIMODAL, tables[now], strict, True)
    variants[f"{now}, both as before"] = (arms.MULTIMODAL, tables[now], strict, False)
    found: dict[str, list[Run]] = {}
    trained |= arms.encoders(setup.context, ("sequence",))
    for number, (name, (arm, table, bundle, follows)) in enumerate(variants.items()):
        scratch = folder / f"variant-{name.replace(' ', '-').replace(',', '')}"
        scratch.mkdir(exist_ok=True)
        context = replace(setup.context, watching=table, sections=replace(settings, bundle=bundle))
        each = replace(setup, context=context, scratch=scratch)
        with patch.object(arms, "FOLLOWS", (arms.MULTIMODAL,) if follows else ()):
            found[name] = [mask.lived(each, trained, s, arm) for s in range(given.deals)]
        print(f"{number + 1} of {len(variants)}: {name}", flush=True)
    figures = measure(setup, found, np.random.default_rng(0))
    over = figures["lift"]["control"]
    return {
        "setting": {"users": given.users, "days": given.days, "deals": given.deals},
        "arms": {
            name: {
                **{m: mask.rounded(figures["arms"][name].get(m)) for m in METRICS},
                "over control": mask.rounded(over.get(name, {}).get("platform.positive_rate")),
                "by bucket": [mask.rounded(row) for row in figures["by_bucket"].get(name, [])],
            }
            for name in variants
        },
    }


def taught(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of models that are told words, shown pictures, both, noise instead, or think first, for each seed.

    Beside them stand counts and pictures, and the projector's second token alone, before the model is trained.
    """
    known = opened(path)
    pairs, real = known.pairs, known.asked
    follows = curate.posterior(pairs, real.cluster, real.parent)
    policy = np.unique(np.concatenate([pairs.heldout.item, pairs.fresh.item, pairs.validation.item]))
    policy = policy[real.row[policy] >= 0].astype(np.int32)
    depth = int(serendipitous(real, np.arange(len(real.cluster), dtype=np.int32)).sum(1).max())
    some = tune.pick(pairs.heldout, 200, np.random.default_rng(0))
    none = curate.rows_of(pairs.fresh, np.zeros(0, np.intp))
    found: dict[str, list[dict[str, float]]] = {}
    kept = path.with_name(f"{path.name}-models-{given.steps}")
    kept.mkdir(exist_ok=True)
    names: list[str] = given.kinds.split(",")
    for seed, name in product(range(given.seeds), names):
        view, done = (KINDS | SHOWN)[name], kept / f"{name}-{seed}.json"
        if done.exists():
            found.setdefault(name, []).append(json.loads(done.read_text("utf-8")))
            continue
        kind = view.kind
        # One seed's model is asked about every video, for `arms`.
        every = seed == 0 and name in KINDS
        items = np.flatnonzero(real.row >= 0).astype(np.int32) if every else policy
        shown = opened(path, view).asked
        if view.noise:
            shown = replace(shown, seen=media.noise(shown.seen, np.random.default_rng(seed)))
        settings = view.of(config.MultimodalModel(model=str(path / "07-language-model"), steps=given.steps))
        with tempfile.TemporaryDirectory() as folder:
            work = Work(Path(folder), Path(folder), np.random.default_rng(seed))
            model = new_model(settings, shown, follows, "auto", work.rng)
            figures = token(known, model, items) if name == "both" else {}
            tune.fine_tune(model, settings, pairs, shown, work, every=given.steps)
        own = tune.measure(model, kind, shown, replace(pairs, heldout=some, fresh=none), settings, work.rng)
        figures |= {key: own[f"video.{key}.{kind}"] for key in ("match_rate", "free_recall")}
        clusters = np.full((len(items), depth), -1, np.int32)
        scores = np.full((len(items), depth), -np.inf, np.float32)
        for part in np.array_split(np.arange(len(items)), -(-len(items) // tune.ASKED_AT_ONCE)):
            best = model.best(kind, items[part].tolist(), depth, ~serendipitous(real, items[part]))
            clusters[part], scores[part] = best.clusters, best.scores
        if every:
            whole = np.full((2, len(real.cluster), DEPTH), -1, np.int32)
            whole[0, items] = np.where(scores > -np.inf, clusters, -1)[:, :DEPTH]
            whole[1, items] = weigh.ranked(pairs, real, items, (clusters, scores), DEPTH)[0]
            for which, each in zip(("alone", "fitted"), whole, strict=True):
                np.save(kept / f"{name}-{which}.npy", each)
        for part in ("heldout", "fresh"):
            asked = replace(pairs, heldout=getattr(pairs, part))
            weighed = weigh.ranked(asked, real, items, (clusters, scores), DEPTH)[2]
            figures |= {f"{part}.{who}": value for who, value in weighed["video.table.recall_at_1"].items()}
            figures |= {f"weight.{who}": value for who, value in weighed["video.table.weights"].items()}
        found.setdefault(name, []).append(figures)
        done.write_text(json.dumps(figures), "utf-8")
        print(name, seed, figures, flush=True)
    return {
        name: {key: metrics.over_seeds([each[key] for each in runs]) for key in runs[0]}
        for name, runs in found.items()
    }


def token(known: Known, model: Any, items: NDArray[np.int32]) -> dict[str, float]:
    """Recall of what the projector's second token alone points to."""
    projector, prompt = model.projector, model.policy.prompt
    table = model.policy.model.get_input_embeddings().weight.detach().float()
    names = torch.stack([table[answer[:-1]].mean(0) for answer in prompt.answers]) - projector.centre
    scores = np.zeros((len(known.asked.cluster), len(names)), np.float32)
    means = torch.from_numpy(np.stack([known.asked.pictures(i).mean(0) for i in items.tolist()]))
    with torch.no_grad():
        pointed = torch.nn.functional.normalize(projector.follows(projector.placed(means)), dim=1)
    scores[items] = (pointed @ torch.nn.functional.normalize(names, dim=1).T).numpy()
    return {f"token.{key}": value for key, value in recalls(known, lambda of: scores[of]).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("world", "evidence", "models", "arms"))
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--table", action="append", default=[])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--deals", type=int, default=5)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    path: Path = given.workspace
    if given.what == "world":
        made = world.build(given.seed, WATCHED)
        loop.write(made, loop.simulate(made), path / "source")
        loop.media.film(made, path / "source")
        (path / "byway.toml").write_text(TOML, "utf-8")
        for stage in STAGES:
            pipeline.run(path, config.load(path / "byway.toml"), only=stage)
        return
    if given.what == "evidence":
        known = opened(path)
        found: dict[str, Any] = {
            "pairs": {name: len(getattr(known.pairs, name)) for name in ("log", "heldout", "fresh")},
            "back_off": known.pairs.back_off,
            "probe": probe(known),
            "felt": felt(path),
            "recall": {name: recalls(known, scores) for name, scores in rankers(known).items()},
        }
    elif given.what == "models":
        found = taught(path, given)
    else:
        found = live(path, given)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if given.json:
        given.json.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
