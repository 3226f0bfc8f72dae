"""19-views: what the multimodal model is asked with and shown, compared (paper 2, section 3.1, figures 3, 4 and 5).

Four prompts, one to eight frames, and the thumbnail beside one frame: a model is fine-tuned for each and for each
seed, on the same pairs, for as many steps of as large a batch. It takes as long as so many runs of 10, so it is
made when it is asked for. Who appears in two comparisons is trained once.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.base.metrics import over_seeds
from byway.data import media
from byway.data.catalog import Catalog
from byway.data.media import Media
from byway.evaluation.comparison import Runs, place, trained
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.multimodal import tune
from byway.multimodal.contexts import contexts
from byway.multimodal.curate import Pairs, posterior
from byway.multimodal.model import new_model
from byway.multimodal.prompts import Kind

PROMPT: Kind = "thought"
"""The prompt that frames and pictures are compared with, as in paper 2: chain of thought."""
EVALUATE_EVERY = 20
"""Steps between evaluations of match rate and recall: the curves are compared, not only where they end."""
CURVES = ("free_recall", "recall_at_1", "recall_at_10", "match_rate")
FIGURES = ("recall_at_1", "recall_at_10", "recall_at_1.rich", "free_recall", "recall_at_10.fresh", "match_rate")


@dataclass(frozen=True, slots=True)
class View:
    """One way to ask."""

    kind: Kind
    frames: int
    """Uniformly sampled; 0 shows the thumbnail."""
    noise: bool = False
    """Whether noise is shown instead: the control."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.frames}{'-noise' * self.noise}"

    def of(self, settings: config.MultimodalModel) -> config.MultimodalModel:
        """The settings of a model that is asked this way."""
        pictures = "frames" if self.frames else "thumbnail"
        return replace(settings, prompts=(self.kind,), pictures=pictures)


def compared(each: config.Comparison) -> dict[str, View]:
    """Who is compared."""
    if each == "prompts":
        kinds: dict[str, Kind] = {
            "text": "text",
            "video": "video",
            "video and text": "both",
            "chain of thought": "thought",
        }
        return {name: View(of, 4) for name, of in kinds.items()} | {"noise and text": View("both", 4, noise=True)}
    if each == "frames":
        return {f"{n} frame{'s' * (n > 1)}": View(PROMPT, n) for n in (1, 2, 4, 8)}
    return {"thumbnail": View(PROMPT, 0), "one frame": View(PROMPT, 1)}


CLAIMS: dict[config.Comparison, list[tuple[str, str, str]]] = {
    "prompts": [
        ("video", "text", "recall_at_10"),
        ("video and text", "text", "recall_at_10"),
        ("video and text", "noise and text", "recall_at_10"),
        ("chain of thought", "text", "recall_at_10"),
        ("chain of thought", "video", "match_rate"),
    ],
    "frames": [("4 frames", "1 frame", "recall_at_10")],
    "pictures": [("thumbnail", "one frame", "recall_at_10")],
}
"""What is better than what in paper 2: recall at the end, match rate on the way there."""


def build(
    work: Work,
    settings: config.Views,
    *,
    catalog: Catalog,
    tree: Tree,
    descriptions: Descriptions,
    seen: Media,
    pairs: Pairs,
    weights: Path | str,
    sections: config.Config,
) -> Outcome:
    """Compare; each finished model's figures are kept in the scratch, so that a stopped run goes on."""
    if not (len(pairs.validation) and len(pairs.heldout)):
        raise UserError("19-views needs pairs that training does not see: use more log.")
    base = tune.started_from(sections.multimodal_model, weights)
    views = {view.name: view for each in settings.compare for view in compared(each).values()}
    most = max(view.frames for view in views.values())
    seen = with_more_frames(work.scratch / "media", replace(sections.media, frames=most), catalog, seen)

    def one(name: str, seed: int, folder: Path) -> dict[str, Any]:
        own = views[name].of(base)
        asked = contexts(
            own,
            pairs,
            catalog=catalog,
            tree=tree,
            descriptions=descriptions,
            seen=media.noise(seen, np.random.default_rng(seed)) if views[name].noise else seen,
            frames=views[name].frames or 1,
        )
        here = place(folder, seed)
        follows = posterior(pairs, asked.cluster, asked.parent)
        model = new_model(own, asked, follows, sections.run.precision, here.rng)
        curve, _ = tune.fine_tune(model, own, pairs, asked, here, every=EVALUATE_EVERY)
        # The held-out pairs are the same for every view and seed.
        final = tune.measure(model, own.prompts[0], asked, pairs, own, np.random.default_rng(0))
        return {"curve": [_plain(point, "") for point in curve], "final": _plain(final, "video.")}

    runs = trained(work, list(views), one)
    metrics: dict[str, Any] = {}
    for each in settings.compare:
        metrics |= _figures(each, compared(each), runs)
    return Outcome(counts={"models": sum(map(len, runs.values())), "steps": base.steps}, metrics=metrics)


def with_more_frames(folder: Path, settings: config.Media, catalog: Catalog, seen: Media) -> Media:
    """The media, looked at again in `folder` where fewer frames were kept than `settings` asks for."""
    if seen.frames >= settings.frames:
        return seen
    here = place(folder, 0)
    media.build(here, settings, catalog, seen.folder)
    return replace(media.load(here.out), folder=seen.folder)


def _plain(found: dict[str, float], before: str) -> dict[str, float]:
    """The figures, and the step where there is one, without the kind of prompt in their names."""
    short = {key.removeprefix(before).rsplit(".", 1)[0]: value for key, value in found.items()}
    # Held-out recall at 1 is plain `recall` under its stable key.
    return {"recall_at_1" if key == "recall" else key: value for key, value in short.items()}


def _figures(each: config.Comparison, of_name: dict[str, View], runs: Runs) -> dict[str, Any]:
    """Final figures, curves over the steps, and paper 2's claims as differences, seed by seed, with intervals."""
    metrics: dict[str, Any] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, view in of_name.items():
        of = runs[view.name]
        for figure in FIGURES:
            metrics[f"views.{each}.{name}.{figure}"] = over_seeds([run["final"][figure] for run in of], share=True)
        curves[name] = [
            {
                "step": points[0]["step"],
                **{f: over_seeds([point[f] for point in points], share=True) for f in CURVES},
            }
            for points in zip(*(run["curve"] for run in of), strict=True)
        ]
    metrics[f"views.{each}.curves"] = curves
    claims: list[dict[str, Any]] = []
    for better, worse, figure in CLAIMS[each]:
        pairs = zip(runs[of_name[better].name], runs[of_name[worse].name], strict=True)
        apart = [_of(one, figure) - _of(other, figure) for one, other in pairs]
        claims.append({"better": better, "worse": worse, "figure": figure, "difference": over_seeds(apart)})
    metrics[f"views.{each}.claims"] = claims
    return metrics


def _of(run: dict[str, Any], figure: str) -> float:
    """Recall on held-out pairs at the end; match rate, which all reach, as its mean over the evaluations."""
    if figure == "match_rate":
        return float(np.mean([point[figure] for point in run["curve"]]))
    return run["final"][figure]
