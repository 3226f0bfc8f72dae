"""The arms of an experiment by name: what each adds to the same control.

Whoever adds an arm adds a row to `ARMS` and a branch to `source`. All of them pass the conformance suite.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from byway.base import config
from byway.base.errors import UserError
from byway.data.events import Events
from byway.planner import fit as planner
from byway.simulation import neural
from byway.simulation.hierarchical import HierarchicalBandit
from byway.simulation.neural import Encoded
from byway.simulation.neural_linear import NeuralLinear
from byway.simulation.personal import MostLiked, Personal, PublishedEase
from byway.simulation.planned import Keywords, Planned, RandomCluster, Ranking, Scored, Stored, Tabled, Watching
from byway.simulation.source import Ints, Known, Logged, Source, by_user
from byway.transitions import curate
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.table import Table
from byway.transitions.triples import Triples, look_up, unkey

CONTROL = "control"
REFERENCE = "hierarchical_bandit"
"""What paper 1's figures 4b and 4c measure from."""
PLACEBO = "placebo"
PAPER = "paper"
"""Paper 1's serving to the letter."""
MASKED, EASE, MOST_LIKED = "masked", "ease", "most_liked"
"""What an engineer does in an afternoon: a recommender of one's own, and what is known hidden."""
MULTIMODAL = "multimodal"
"""Only where items have been looked at."""
FOLLOWS = (MULTIMODAL,)
"""Arms that are asked after each item of a visit."""

ARMS: dict[str, str] = {
    CONTROL: "nothing is added",
    "two_tower": "exploitation: two towers, mixed negatives (paper 1 [35])",
    "sequence": "exploitation: transformer with off-policy correction (paper 1 [8], [27])",
    "novelty": "exploration: the sequence model, rewards of new clusters times 4, entropy, surprises (paper 1 [9])",
    REFERENCE: "exploration: a LinUCB a level, from the root of the tree, restricted item policy (paper 1 [28])",
    "neural_linear": "exploration: neural linear bandit on the next novel cluster (paper 2)",
    "context": "exploration: similar to what was watched last (paper 2)",
    "keyword": "the table's novel cluster, items by keyword search over titles",
    PLACEBO: "a random novel cluster, restricted item policy",
    "counts": "the log's successor counts alone as the table, counted anew weekly, restricted item policy",
    "model": "the language model alone as the table, restricted item policy",
    PAPER: "the pair's one answer of the language model, known or not, restricted item policy (paper 1 as printed)",
    "table": "the table's first new cluster of a drawn pair, restricted item policy (paper 1, fitted)",
    MASKED: "the item policy, clusters that somebody has met hidden: the simple thing",
    EASE: "a linear autoencoder over items (Steck, WWW 2019), clusters that somebody has met hidden",
    MOST_LIKED: "what most people liked, the same for everybody, clusters that somebody has met hidden",
    "one": "the planner, all items of a page from one new cluster",
    "byway": "the planner as served: all that is known of a person, clusters that somebody has met hidden",
    MULTIMODAL: "what was watched last, as a multimodal model saw it, restricted item policy (paper 2)",
}
"""Every arm in words."""

TOGETHER = 4096
"""Contexts whose counts are looked up at a time."""
EXPLOITATION = ("two_tower", "sequence")
EXPLORATION = ("novelty", REFERENCE, "neural_linear", "context")


@dataclass(frozen=True, slots=True)
class ArmContext:
    """What arms are made from: logs, content and tables, and nothing of the truth."""

    known: Known
    log: Logged
    titles: list[str]
    names: list[str]
    """[M] descriptions."""
    tables: dict[str, Ranking]
    """What the table says of each context, by arm: `table`, `model`, `counts`."""
    planned: planner.FittedPlanner
    table: Table
    leaf: Ints
    """[N] finest cluster of each item."""
    watching: NDArray[np.int32] | None
    """[N, n] serendipitous clusters of each item, best first; None where no item has been looked at."""
    popularity: NDArray[np.int32]
    """[M] clusters, the one most turned to first."""
    sections: config.Config
    """How the experiment is made, encoders are trained and the planner is served."""
    seed: int
    folder: Path
    """Where trained encoders are kept."""


def check(names: tuple[str, ...], looked: bool) -> tuple[str, ...]:
    """The arms by name, control first; all that can be run where none is named.

    `looked` says whether there is a context table. Raises UserError for a name that is no arm, or one that cannot
    be run.
    """
    for name in names:
        if name not in ARMS:
            raise UserError(f"There is no arm {name!r}; set experiment.arms to some of {', '.join(ARMS)}.")
    if MULTIMODAL in names and not looked:
        raise UserError(
            f"The arm {MULTIMODAL!r} needs items with videos or thumbnails, and transitions.level 2 or "
            "deeper; take it out of experiment.arms."
        )
    there = [name for name in ARMS if looked or name != MULTIMODAL]
    return tuple(name for name in there if not names or name == CONTROL or name in names)


def encoders(context: ArmContext, names: tuple[str, ...]) -> dict[str, nn.ModuleDict]:
    """Train, on the log before the experiment, every encoder that these arms need."""
    # Who has no encoder of its own shares the one of the restricted item policy.
    kinds = {name if name in neural.KINDS else "restricted" for name in names if name != CONTROL}
    return {
        kind: neural.trained(
            kind,
            context.known,
            context.log,
            context.sections.item_policy,
            context.seed + place,
            (context.sections.item_policy.epochs + 1) // 2,
            checkpoint=context.folder / f"encoder-{kind}.safetensors",
        )
        for place, kind in enumerate(sorted(kinds))
    }


def source(name: str, context: ArmContext, trained: dict[str, nn.ModuleDict], seed: int) -> Source | None:
    """The source that the arm adds, afresh; None for the control."""
    bundle, every = context.sections.bundle, context.sections.experiment.retrain_every
    if name == CONTROL:
        return None
    if name in neural.KINDS:
        return Scored(_encoder(name, context, trained, seed))
    if name == "keyword":
        return Planned(
            context.known, _table(context, "table"), Keywords(context.titles, context.names), inside=False
        )
    if name == EASE:
        return Scored(PublishedEase(context.known, context.folder, every), hides=context.known)
    if name == MOST_LIKED:
        return Scored(MostLiked(context.known), hides=context.known)
    restricted = _encoder("restricted", context, trained, seed)
    if name == MASKED:
        return Scored(restricted, hides=context.known)
    if name in ("byway", "one"):
        served = replace(bundle, new_interests=1) if name == "one" else bundle
        return Personal(context.known, context.planned, context.leaf, context.table, restricted, served, every)
    if name == REFERENCE:
        return Planned(context.known, HierarchicalBandit(context.known), restricted, novel=False)
    if name == "neural_linear":
        return Planned(context.known, NeuralLinear(context.known, restricted), restricted)
    if name == MULTIMODAL:
        assert context.watching is not None  # `check` has seen to it
        return Planned(context.known, Watching(context.watching), restricted, novel=bundle.surprise == "never_met")
    if name == PAPER:
        return Planned(context.known, Stored(context.known, context.tables["model"]), restricted, novel=False)
    plan = RandomCluster() if name == PLACEBO else _table(context, name)
    return Planned(context.known, plan, restricted)


def _table(context: ArmContext, name: str) -> Tabled:
    """The plan of a table, as deep as the shallowest of all: a ranking that ends sooner would fall back more often.

    The language model's own ranking is kept ten deep, since each further name has to be read to its end.
    """
    ranking, interests = context.tables[name], 2 if context.table.triples is None else 3
    nothing = np.zeros((1, interests), np.int64)
    depth = min(table(nothing).shape[1] for table in context.tables.values())
    refresh = partial(ranking.recounted, context.known) if isinstance(ranking, Counted) else None
    return Tabled(context.known, ranking, context.popularity, interests, depth=depth, refresh=refresh)


def _encoder(kind: str, context: ArmContext, trained: dict[str, nn.ModuleDict], seed: int) -> Encoded:
    settings, every = context.sections.item_policy, context.sections.experiment.retrain_every
    return neural.encoded(kind, context.known, trained[kind], settings, seed, every=every)


@dataclass(frozen=True, slots=True)
class Counted:
    """A table of the log's counts, which can be counted anew."""

    successors: Successors
    pairs_MMn: NDArray[np.int32]
    triples: Triples | None
    """The triples that have rankings of their own."""

    def __call__(self, context: NDArray[np.int64]) -> NDArray[np.int32]:
        return look_up(self.pairs_MMn, self.triples, context)

    def recounted(self, known: Known, log: Logged) -> "Counted":
        """The same table of the whole log as it stands; the priors weigh what they weighed."""
        samples = transitions_of(known, log, len(self.successors.alone_KMM))
        top = self.pairs_MMn.shape[2]
        return counted(self.successors.counting(samples), known.n_clusters, top, self.triples)


def transitions_of(known: Known, log: Logged, history: int) -> Samples:
    """The log's transitions with `history` interests before them, by the rule of 06-transitions."""
    order, _ = by_user(log)
    events = Events(
        user=log.user[order].astype(np.int32),
        item=log.item[order].astype(np.int32),
        time=log.day[order],
        satisfaction=log.satisfaction[order],
        clock=False,
        n_users=log.n_users,
        n_items=known.n_items,
        positive=known.positive,
    )
    found = curate.find(events, known.cluster.astype(np.int32), known.n_clusters, history)
    return curate.count(found.context, found.label, known.n_clusters)


def counted(successors: Successors, clusters: int, top: int, triples: Triples | None) -> Counted:
    """The table that the log's counts alone would make of all pairs, and of the triples that the table has.

    As in the table, K interests are asked for with the first of the pair in every place but the last.
    """
    first, last = np.divmod(np.arange(clusters**2), clusters)
    pairs = np.column_stack([first] * max(1, len(successors.alone_KMM) - 1) + [last])
    ranked = _most_frequent(successors, pairs, top).reshape(clusters, clusters, top)
    if triples is not None:
        contexts = np.array(unkey(triples.keys, clusters))
        own = _most_frequent(successors, contexts, triples.clusters.shape[1])
        triples = Triples(np.asarray(triples.keys), own)
    return Counted(successors, ranked, triples)


def _most_frequent(successors: Successors, context_NK: NDArray[np.integer], top: int) -> NDArray[np.int32]:
    """[N, top] the most frequent successors outside the context; -1 where fewer are left."""
    found = np.full((len(context_NK), top), -1, np.int32)
    for start in range(0, len(context_NK), TOGETHER):
        context = context_NK[start : start + TOGETHER].astype(np.int32)
        score = successors.probability_outside(context)
        order = np.argsort(-score, axis=1, kind="stable")[:, :top]
        best = np.where(np.take_along_axis(score, order, 1) < 0, -1, order)
        found[start : start + TOGETHER, : order.shape[1]] = best
    return found
