"""10-multimodal-model: fine-tuning on serendipitous pairs (paper 2, sections 2 and 3.1).

The loss is on what is to be said: the answer, and before it the thought where the prompt makes the model think.
Beside it stands the choice among legal names, as in `language.tune`, whose target is what the log knows of the
context video and of its cluster: a single next cluster is mostly luck. `target = "paper"` is the paper's recipe.
Kinds of prompt take turns, a step each. Match rate and recall are measured for each of them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from byway.base import config
from byway.base.artifact import Gate, Outcome, Work
from byway.base.errors import UserError
from byway.base.ranking import best_first
from byway.data import media
from byway.language.training import MATCH_GATE, Optimiser, Progress, rate
from byway.multimodal import prompts
from byway.multimodal.contexts import Contexts, VisionLanguageModel, own, serendipitous
from byway.multimodal.curate import Pairs, PairSamples, posterior, rows_of
from byway.multimodal.model import new_model
from byway.multimodal.prompts import Kind

RECALLS = (1, 5, 10)
BATCH = 16
"""Samples a step: half of paper 2's, on a fraction of its log."""
LEARNING_RATE = 1e-3
"""Peak of the schedule."""
WARMUP = 10
"""Steps over which the learning rate climbs."""
NAMES_PER_STEP = 8
"""PairSamples a step whose names are learned whole; the others teach the choice among names."""
EVALUATE_EVERY = 100
"""Steps between evaluations of match rate and recall."""
EVALUATE_ON = 100
"""Prompts an evaluation, of each kind and part: no more than there are steps, for a short run is not worth them."""
FINAL_ON = 300
"""Held-out prompts of each kind that are measured at the end: of 300 recall has a standard error of 0.03 at most.
No more than five a step, for a short run is not worth them."""
CHECKPOINT_EVERY = 50
"""Steps between checkpoints from which an interrupted run goes on."""
AXES = 64
"""Axes of pictures that the simple opponent reads."""
ASKED_AT_ONCE = 32
"""Prompts a pass when looking."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """10-multimodal-model as read back; `multimodal.model.open_model` opens it."""

    path: Path
    settings: config.MultimodalModel
    curve: list[dict[str, Any]]

    @property
    def kind(self) -> Kind:
        """The prompt that is served."""
        return self.settings.prompts[0]


def load(path: Path) -> Tuned:
    """Read 10-multimodal-model."""
    curve = [json.loads(line) for line in (path / "curve.jsonl").read_text("utf-8").splitlines()]
    settings = msgspec.json.decode((path / "settings.json").read_bytes(), type=config.MultimodalModel)
    return Tuned(path, settings, curve)


def build(
    work: Work,
    settings: config.MultimodalModel,
    *,
    pairs: Pairs,
    asked: Contexts,
    weights: Path | str,
    arithmetic: str,
) -> Outcome:
    """Fine-tune, keep the checkpoint that recalls most of validation, measure each kind of prompt on held out."""
    if not settings.prompts or len(set(settings.prompts)) != len(settings.prompts):
        raise UserError("multimodal_model.prompts must name at least one kind of prompt, each once.")
    follows = posterior(pairs, asked.cluster, asked.parent)
    model = new_model(started_from(settings, weights), asked, follows, arithmetic, work.rng)
    started = time.perf_counter()
    curve, best = fine_tune(model, settings, pairs, asked, work)
    trained = time.perf_counter()
    model.save(work.out)
    (work.out / "settings.json").write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    (work.out / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve), "utf-8")
    final = {
        k: v for kind in settings.prompts for k, v in measure(model, kind, asked, pairs, settings, work.rng).items()
    }
    served = final[f"video.match_rate.{settings.prompts[0]}"]
    simple = baselines(pairs, asked)
    weighed = sum(p.numel() for p in model.trained().parameters() if p.requires_grad)
    return Outcome(
        counts={"steps": settings.steps, "weights": weighed},
        metrics={"video.curve": curve, "video.best_step": best["step"], **final, **simple},
        gates={"video.match_rate": Gate(value=served, at_least=MATCH_GATE)},
        timings={"tuning": trained - started, "measuring": time.perf_counter() - trained},
    )


def started_from(settings: config.MultimodalModel, weights: Path | str) -> config.MultimodalModel:
    """The settings with the model that is trained: where none is named, the language model of these `weights`."""
    return replace(settings, model=settings.model or str(weights))


def fine_tune(
    model: VisionLanguageModel,
    settings: config.MultimodalModel,
    pairs: Pairs,
    asked: Contexts,
    work: Work,
    *,
    every: int = EVALUATE_EVERY,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train `model`, look at it every so many steps, leave it with its best weights; the curve, its best."""
    seed = int(work.rng.integers(2**31))
    optimiser = Optimiser(model.trained())
    progress = Progress(work.scratch, optimiser)
    samples, usual, first = pairs.samples, None, settings.prompts[0]
    if settings.target == "posterior":
        # Every video that anything is known of: a look is told from many videos, not from those that say most.
        seen = asked.row[pairs.log.item] >= 0 if set(settings.prompts) & set(prompts.SEES) else True
        known = rows_of(pairs.log, np.flatnonzero((pairs.log.liked > 0) & seen))
        samples, usual = known if len(known) else samples, posterior(pairs, asked.cluster, asked.parent)

    def learn(step: int) -> None:
        rng = np.random.default_rng([seed, step])
        chosen = rng.choice(len(samples), min(BATCH, len(samples)), replace=False)
        kind = settings.prompts[step % len(settings.prompts)]
        item, label = samples.item[chosen], samples.label[chosen]
        if usual is None:
            # The paper's recipe speaks every answer and chooses none.
            none = np.zeros((len(item), pairs.clusters), np.float32)
            said, _ = model.loss(kind, item.tolist(), none, label.tolist())
            said.backward()
        else:
            said, choice = model.loss(kind, item.tolist(), usual(item), label[:NAMES_PER_STEP].tolist())
            (said + choice).backward()
        optimiser.step(rate(step, settings.steps, LEARNING_RATE, WARMUP))

    prompts_n = min(EVALUATE_ON, settings.steps)
    progress.run(
        settings.steps,
        learn,
        partial(evaluate, model, settings, pairs, asked, seed),
        partial(progress.keep_best, f"match_rate.{first}", f"recall_at_10.{first}", prompts_n),
        label="multimodal fine-tuning",
        evaluate_every=every,
        save_every=CHECKPOINT_EVERY,
    )
    return progress.curve, progress.best


def evaluate(
    model: VisionLanguageModel, settings: config.MultimodalModel, pairs: Pairs, asked: Contexts, seed: int
) -> dict[str, float]:
    """Match rate, distinct outputs and recall of each kind of prompt, on a few validation pairs."""
    rng = np.random.default_rng([seed, 1])
    some = pick(pairs.validation, min(EVALUATE_ON, settings.steps), rng)
    out: dict[str, float] = {}
    for kind in settings.prompts:
        if len(some):
            out |= {f"{name}.{kind}": value for name, value in _figures(model, kind, asked, some).items()}
    return out


def measure(
    model: VisionLanguageModel,
    kind: Kind,
    asked: Contexts,
    pairs: Pairs,
    settings: config.MultimodalModel,
    rng: np.random.Generator,
) -> dict[str, float]:
    """The figures of one kind of prompt on held-out pairs, under their stable keys (paper 2, section 3.1).

    Match rate: share of free greedy outputs that are exactly some cluster's description. Free recall, the paper's:
    share of them that are exactly the label. Recall: the same of outputs under the trie; beside it that of the
    first 5 and 10. `fresh` are context videos that no training saw, `rich` held-out ones with much to see.
    """
    most = min(FINAL_ON, 5 * settings.steps)
    some = pick(pairs.heldout, most, rng)
    if not len(some):
        return {f"video.match_rate.{kind}": 0.0}
    found = _figures(model, kind, asked, some)
    out = _named(found, kind)
    if len(new := pick(pairs.fresh, most, rng)):
        out |= _named(_figures(model, kind, asked, new), f"fresh.{kind}")
    return out


def _named(found: dict[str, float], kind: str) -> dict[str, float]:
    """Figures under the names that they have in the metrics."""
    out = {f"video.match_rate.{kind}": found["match_rate"], f"video.recall.{kind}": found["recall_at_1"]}
    known = "match_rate", "recall_at_1"
    return out | {f"video.{name}.{kind}": value for name, value in found.items() if name not in known}


def baselines(pairs: Pairs, asked: Contexts) -> dict[str, float]:
    """Recall of simple opponents on all held-out pairs, and on those of context videos that no training saw.

    Popularity says the same to everybody, its own cluster aside. Counts know the video's cluster and what followed
    it: what a model that looks may at best find out where the cluster says all.
    """
    some, log = pairs.heldout, pairs.log
    if not len(some):
        return {}
    popular = np.bincount(log.label, log.count, pairs.clusters)
    counts = posterior(pairs, asked.cluster, asked.parent)
    pictures = linear(pairs, asked)
    out: dict[str, float] = {}
    for part, those in (("", some), (".fresh", pairs.fresh)):
        if not len(those):
            continue
        excluded = own(asked, those.item)
        scores = {"popularity": np.broadcast_to(popular, excluded.shape), "counts": counts(those.item)}
        scores |= {"pictures": pictures(those.item)} if pictures else {}
        for name, score in scores.items():
            k = min(max(RECALLS), pairs.clusters)
            best = best_first(np.where(excluded, -np.inf, score).astype(np.float32), k)
            recalls = _recalls(best, those)
            out |= {f"video.baseline.{name}.{key}{part}": value for key, value in recalls.items()}
    return out


def linear(pairs: Pairs, asked: Contexts) -> Callable[[NDArray[np.int32]], NDArray[np.float32]] | None:
    """The simple opponent that looks: a logistic regression from an item's cluster and its pictures' mean vector.

    Fitted on the liked pairs of the log. None where the log has too few for one.
    """
    log = rows_of(pairs.log, np.flatnonzero((pairs.log.liked > 0) & (asked.row[pairs.log.item] >= 0)))
    items = np.unique(log.item)
    if len(items) <= AXES or len(np.unique(log.label)) < 2:
        return None

    def mean(of: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.stack([asked.pictures(i).mean(0) for i in of.tolist()])

    axes = make_pipeline(StandardScaler(), PCA(AXES, random_state=0), StandardScaler()).fit(mean(items))

    def features(of: NDArray[np.int32]) -> sparse.csr_array:
        each, row = np.unique(of, return_inverse=True)
        own = sparse.csr_array(np.eye(len(asked.names), dtype=np.float32))[asked.cluster[of]]
        return sparse.csr_array(sparse.hstack([own, axes.transform(mean(each))[row.reshape(-1)]]))

    model = LogisticRegression(C=0.1, max_iter=200).fit(features(log.item), log.label, sample_weight=log.liked)

    def scores(of: NDArray[np.int32]) -> NDArray[np.float32]:
        log_p = model.predict_log_proba(features(of)).astype(np.float32)
        # An answer that it has seen no example of is as likely as the least likely of the others.
        found = np.tile(log_p.min(axis=1, keepdims=True), (1, pairs.clusters))
        found[:, model.classes_] = log_p
        return np.where(serendipitous(asked, of), found, found - 1e6)

    return scores


def _recalls(clusters_Nn: NDArray[np.integer], some: PairSamples) -> dict[str, float]:
    """Share of the pairs, by their counts, whose label is among the first of the clusters."""
    if not len(some):
        return dict.fromkeys((f"recall_at_{k}" for k in RECALLS), 0.0)
    hit = clusters_Nn == some.label[:, None]
    return {f"recall_at_{k}": round(float(np.average(hit[:, :k].any(1), weights=some.count)), 4) for k in RECALLS}


def _figures(model: VisionLanguageModel, kind: Kind, asked: Contexts, some: PairSamples) -> dict[str, float]:
    items, row = np.unique(some.item, return_inverse=True)
    row = row.reshape(-1)
    parts = np.array_split(items, -(-len(items) // ASKED_AT_ONCE))
    found = [model.best(kind, p.tolist(), max(RECALLS), own(asked, p), free=True) for p in parts]
    clusters = np.concatenate([best.clusters for best in found])
    free = [said for best in found for said in best.free or []]
    legal = set(asked.names)
    right = np.array(free)[row] == np.array(asked.names)[some.label]
    thoughts = [thought for best in found for thought in best.thoughts]
    # A thought is true where its last line names the item's own clusters.
    about = [prompts.about(asked.item(i)) for i in items.tolist()]
    true = [said.rpartition("About:")[2].strip() == own for said, own in zip(thoughts, about, strict=True)]
    amount = media.variety(asked.seen, asked.row[items])[row]
    rich = amount > np.median(amount)
    near = np.take_along_axis(serendipitous(asked, items), clusters[:, :1], 1)
    return {
        "match_rate": round(float(np.mean([said in legal for said in free])), 4),
        "distinct_outputs": len(set(free)),
        "free_recall": round(float(np.average(right, weights=some.count)), 4),
        **_recalls(clusters[row], some),
        **{f"{name}.rich": value for name, value in _recalls(clusters[row[rich]], rows_of(some, rich)).items()},
        "serendipitous": round(float(near.mean()), 4),
        **({"thought_true": round(float(np.mean(true)), 4)} if kind == "thought" else {}),
    }


def pick(samples: PairSamples, n: int, rng: np.random.Generator) -> PairSamples:
    """At most n different pairs, drawn by their counts, each counted once."""
    if len(samples) <= n:
        return samples
    chosen = np.sort(rng.choice(len(samples), n, replace=False, p=samples.count / samples.count.sum()))
    ones = np.ones(n, np.int32)
    return replace(rows_of(samples, chosen), count=ones)
