"""The stages from the log to the bundle: what each one reads, and the function that builds its artifact.

From top to bottom: what a stage is, what it may read, a function a stage (and those that say what it reads outside
of artifacts), and the stages themselves in the order in which they are built. A stage's settings are the section of
its name, if there is one. A function here imports what it needs itself, so that to know the stages loads nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from byway.base import artifact, weights
from byway.base.artifact import Outcome, Record, Work
from byway.base.config import LIFTED, Config, MultimodalModel, operational, resolved
from byway.base.errors import UserError
from byway.base.progress import command, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from byway.data.catalog import Catalog
    from byway.data.events import Events
    from byway.data.media import Media
    from byway.interests.describe import Descriptions
    from byway.interests.graph import Graph
    from byway.interests.tree import Tree
    from byway.items.sequence import ItemPolicy
    from byway.language.plan import Given
    from byway.language.questions import Questions
    from byway.language.tune import Tuned
    from byway.multimodal import tune as multimodal
    from byway.multimodal.contexts import Contexts
    from byway.multimodal.curate import Pairs
    from byway.multimodal.plan import ContextTable
    from byway.planner.fit import FittedPlanner
    from byway.transitions.curate import Ints, Transitions
    from byway.transitions.signals import Ranked
    from byway.transitions.table import Table

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One stage, which makes one numbered artifact."""

    number: int
    name: str
    """Of the artifact and of its section of the settings."""
    build: Callable[[Work, "Inputs"], Outcome]
    reads: tuple["Stage", ...] = ()
    """Whose artifacts `build` is given; where one of these changes this one is out of date."""
    outside: Callable[["Inputs"], dict[str, str]] = lambda inputs: {}
    """Identity of everything that it reads beside artifacts, by name."""
    only_if: tuple["Stage", str] | None = None
    """A stage and one of its counts: where that is 0 this stage is skipped; whoever reads it asks `Inputs.has`."""
    asked_for: bool = False
    """Whether it is built only when it is named: not every workspace has what it takes."""
    sections: tuple[str, ...] = ()
    """Further sections of the settings that shape it: of models that it trains itself, or of who reads it."""
    run: tuple[str, ...] = ()
    """Settings of [run] that shape it, beside the seed."""
    version: int = 1
    """Of its algorithm, which is part of the fingerprint: raise it when the same settings give another artifact."""
    refuse: Callable[[Config], None] = lambda config: None
    """Raises UserError where it could never be built, before the hours of the stages in front of it."""

    @property
    def folder(self) -> str:
        return f"{self.number:02d}-{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Artifacts:
    """The artifacts of a workspace, loaded when asked for.

    Raises UserError where one is not there, or damaged.
    """

    workspace: Path

    def load(self, owner: Stage, load: Callable[[Path], T]) -> T:
        path = self.workspace / owner.folder
        if artifact.read_record(path) is None:
            raise UserError(f"{self.workspace} has no {owner.folder} yet; run: {command('run', self.workspace)}")
        with artifact.reading(path):
            return load(path)

    @property
    def catalog(self) -> "Catalog":
        from byway.data import catalog

        return self.load(CATALOG, catalog.load)

    @property
    def events(self) -> "Events":
        from byway.data import events

        return self.load(CATALOG, events.load)

    @property
    def users(self) -> list[str]:
        from byway.data import events

        return self.load(CATALOG, events.load_users)

    @property
    def vectors(self) -> "NDArray[np.float32]":
        from byway.interests import embed

        return self.load(EMBEDDINGS, embed.load)

    @property
    def graph(self) -> "Graph":
        from byway.interests import graph

        return self.load(GRAPH, graph.load)

    @property
    def tree(self) -> "Tree":
        from byway.interests import tree

        return self.load(TREE, tree.load)

    @property
    def descriptions(self) -> "Descriptions":
        from byway.interests import describe

        return self.load(DESCRIPTIONS, describe.load)

    @property
    def transitions(self) -> "Transitions":
        from byway.transitions import curate

        return self.load(TRANSITIONS, curate.load)

    @property
    def similarity(self) -> "NDArray[np.float64]":
        """[M, M] cosines of the centroids of the clusters whose transitions are learned."""
        return self.tree.similarity(self.vectors, self.transitions.level)

    @property
    def language_model(self) -> "Tuned | Ranked":
        """What was fine-tuned here, or what one that was asked elsewhere answered."""
        from byway.language import answers, tune

        return self.load(LANGUAGE_MODEL, lambda path: answers.load(path) or tune.load(path))

    @property
    def table(self) -> "Table":
        from byway.transitions import table

        return self.load(TRANSITION_TABLE, table.load)

    @property
    def pairs(self) -> "Pairs":
        from byway.multimodal import curate

        return self.load(PAIRS, curate.load)

    @property
    def multimodal(self) -> "multimodal.Tuned":
        from byway.multimodal import tune

        return self.load(MULTIMODAL_MODEL, tune.load)

    @property
    def contexts(self) -> "ContextTable":
        from byway.multimodal import plan

        return self.load(CONTEXT_TABLE, plan.load)

    @property
    def item_policy(self) -> "ItemPolicy":
        from byway.items import sequence

        return self.load(ITEM_POLICY, sequence.load)

    @property
    def planned(self) -> "FittedPlanner":
        from byway.planner import fit

        return self.load(PLANNER, fit.load)


@dataclass(frozen=True)
class Inputs(Artifacts):
    """What a stage may read: settings, and the artifacts of the stages that it declares."""

    config: Config
    of: Stage

    def load(self, owner: Stage, load: Callable[[Path], T]) -> T:
        if owner not in self.of.reads:
            raise LookupError(f"{self.of.name} does not declare that it reads {owner.name}")
        if not self.has(owner):
            raise LookupError(f"{self.of.name} was to be skipped, or to ask whether there is {owner.name}")
        return super().load(owner, load)

    def has(self, owner: Stage) -> bool:
        """Whether there was something to do for a stage; else it has no artifact."""
        return not skipped(self.workspace, owner)

    @property
    def seen(self) -> "Media":
        from byway.data import media

        return replace(self.load(MEDIA, media.load), folder=self.media_folder)

    @property
    def tuned_weights(self) -> Path | str:
        """Weights for a further lesson: those fine-tuned here, else the model's that the settings name."""
        from byway.transitions.signals import Ranked

        model = self.language_model
        return self.config.language_model.model if isinstance(model, Ranked) else model.path

    @property
    def media_folder(self) -> Path:
        """The folder that relative names of media files start at: that of the input."""
        from byway.data.sources import OWN

        path = self.workspace / self.config.catalog.items
        return path if path.is_dir() and self.config.catalog.source not in OWN else path.parent

    @property
    def truth_folder(self) -> Path:
        """The folder that says what people feel: named, or beside the tables of items."""
        if self.config.experiment.truth:
            return self.workspace / self.config.experiment.truth
        items = self.workspace / self.config.catalog.items
        return items if items.is_dir() else items.parent


def _weights(**models: str) -> dict[str, str]:
    """Identity of the weights of models, by name and where named by the settings."""
    return {name: weights.identity(model) for name, model in models.items() if model}


def _catalog(work: Work, inputs: Inputs) -> Outcome:
    from byway.data import catalog

    return catalog.build(work, inputs.config.catalog, inputs.workspace)


def _source_files(inputs: Inputs) -> dict[str, str]:
    from byway.data import sources

    found = sources.files(inputs.config.catalog, inputs.workspace)
    return {name: artifact.hash_file(path) for name, path in found.items()}


def _media(work: Work, inputs: Inputs) -> Outcome:
    from byway.data import media

    settings, catalog, folder = inputs.config.media, inputs.catalog, inputs.media_folder
    if not settings.captioner:
        return media.build(work, settings, catalog, folder)
    from byway.multimodal import caption

    with caption.opened(settings) as said:
        return media.build(work, settings, catalog, folder, said)


def _media_files(inputs: Inputs) -> dict[str, str]:
    from byway.data import mediafiles

    settings = inputs.config.media
    captioner = "" if settings.captioner_url else settings.captioner
    files = {"files": mediafiles.state(inputs.catalog, inputs.media_folder)}
    return files | _weights(model=settings.model, captioner=captioner)


def _embeddings(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import embed

    seen = inputs.seen if inputs.has(MEDIA) else None
    return embed.build(work, inputs.config.embeddings, inputs.catalog, seen)


def _encoder_weights(inputs: Inputs) -> dict[str, str]:
    from byway.interests import embed

    settings = inputs.config.embeddings
    return _weights(model=embed.chosen(settings, inputs.catalog) if settings.model == "auto" else settings.model)


def _graph(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import graph

    return graph.build(work, inputs.vectors)


def _tree(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import tree

    return tree.build(work, inputs.config.tree, inputs.vectors, inputs.graph, inputs.events)


def _descriptions(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import describe

    tokenizer = weights.known(inputs.config.language_model.model).tokenizer
    return describe.build(work, inputs.config.descriptions, inputs.catalog, inputs.tree, tokenizer)


def _naming_weights(inputs: Inputs) -> dict[str, str]:
    tokenizer = weights.known(inputs.config.language_model.model).tokenizer
    known = {"tokenizer": weights.identity(tokenizer, only_tokenizer=True)}
    return known | _weights(writer=inputs.config.descriptions.writer)


def _transitions(work: Work, inputs: Inputs) -> Outcome:
    from byway.transitions import curate

    return curate.build(work, inputs.config.transitions, inputs.events, inputs.tree)


def _language_model(work: Work, inputs: Inputs) -> Outcome:
    from byway.language import tune

    by = inputs.config.language_model.answers
    if by != "here":
        from byway.language import answers, batch

        write = batch.write if by == "batch" else None
        return answers.build(work, inputs.config.answers, inputs.workspace, questions(inputs), write)
    return tune.build(
        work,
        inputs.config.language_model,
        inputs.transitions,
        inputs.descriptions,
        inputs.similarity,
        arithmetic=inputs.config.run.precision,
        processes=inputs.config.run.processes,
    )


def questions(inputs: Inputs, pairs: "Ints | None" = None) -> "Questions":
    """What a model that does not run here is asked about `pairs` [P, 2], or about those that the settings say."""
    import numpy as np

    from byway.language import questions as asked
    from byway.transitions import signals
    from byway.transitions.counts import Successors

    transitions, settings, seed = inputs.transitions, inputs.config.answers, inputs.config.run.seed
    scorer, of = signals.of(transitions, inputs.similarity), inputs.tree.assign(transitions.level)
    return asked.about(
        asked.pairs_asked(transitions, settings.pairs) if pairs is None else pairs,
        scorer.fitted(transitions.validation, np.random.default_rng(seed)),
        Successors.of(transitions),
        settings,
        names=inputs.descriptions.names[transitions.level - 1],
        titles=asked.examples(inputs.catalog.titles(), inputs.events, of, transitions.clusters),
        seed=seed,
    )


def _base_weights(inputs: Inputs) -> dict[str, str]:
    """The model that is fine-tuned; or, of one that is asked elsewhere, all that shapes its answers."""
    if inputs.config.language_model.answers == "here":
        return _weights(model=inputs.config.language_model.model)
    return {"asked": artifact.hash_json({**_shaping(inputs.config.answers), "url": "", "format": ""})}


def _transition_table(work: Work, inputs: Inputs) -> Outcome:
    from byway.language import plan

    return plan.build(work, _table_of(inputs))


def _table_of(inputs: Inputs) -> "Given":
    from byway.language import plan

    precision = inputs.config.run.precision
    return plan.Given(inputs.transitions, inputs.descriptions, inputs.language_model, inputs.similarity, precision)


def fill_table(work: Work, inputs: Inputs, shard: tuple[int, int]) -> None:
    """Compute one shard's rows of the transition table into the scratch of `work`."""
    from byway.language import plan

    plan.fill(work, _table_of(inputs), shard)


def _pairs_or_triples(config: Config) -> None:
    """A model of other histories can be fine-tuned, and no table made of it."""
    if config.transitions.history not in (2, 3):
        raise UserError(
            f"transitions.history is {config.transitions.history}, and the table answers pairs and triples: set it "
            "to 2 or 3, or stop with --until language_model."
        )


def _pairs(work: Work, inputs: Inputs) -> Outcome:
    from byway.multimodal import curate

    if (level := max(inputs.config.transitions.level, 1 + curate.DELTA)) != inputs.config.transitions.level:
        say(
            "[yellow]transitions.level is 1, the broadest[/]: the multimodal model is made for level "
            f"{level}, and neither served nor given an arm."
        )
    return curate.build(work, level, inputs.events, inputs.tree, inputs.seen)


def _multimodal_model(work: Work, inputs: Inputs) -> Outcome:
    from byway.multimodal import tune

    return tune.build(
        work,
        inputs.config.multimodal_model,
        pairs=inputs.pairs,
        asked=_contexts(inputs, inputs.config.multimodal_model),
        weights=inputs.tuned_weights,
        arithmetic=inputs.config.run.precision,
    )


def _contexts(inputs: Inputs, settings: MultimodalModel) -> "Contexts":
    from byway.multimodal.contexts import contexts

    return contexts(settings, inputs.pairs, inputs.catalog, inputs.tree, inputs.descriptions, inputs.seen)


def _seeing_weights(inputs: Inputs) -> dict[str, str]:
    return _weights(model=inputs.config.multimodal_model.model)


def _context_table(work: Work, inputs: Inputs) -> Outcome:
    from byway.multimodal import plan

    return plan.build(
        work,
        inputs.config.context_table,
        events=inputs.events,
        vectors=inputs.vectors,
        asked=_contexts(inputs, inputs.multimodal.settings),
        pairs=inputs.pairs,
        model=inputs.multimodal,
        arithmetic=inputs.config.run.precision,
    )


def _item_policy(work: Work, inputs: Inputs) -> Outcome:
    from byway.items import sequence

    config = inputs.config
    return sequence.build(work, config.item_policy, inputs.events, inputs.vectors, config.run.processes)


def _planner(work: Work, inputs: Inputs) -> Outcome:
    from byway.planner import fit

    return fit.build(
        work,
        inputs.config.planner,
        events=inputs.events,
        vectors=inputs.vectors,
        tree=inputs.tree,
        table=inputs.table,
        level=inputs.transitions.level,
        item_policy=inputs.item_policy,
    )


def _bundle(work: Work, inputs: Inputs) -> Outcome:
    from byway.serving import pack

    return pack.build(
        work,
        inputs.config.bundle,
        catalog=inputs.catalog,
        counted=pack.Counted.of(inputs.events, len(inputs.catalog)),
        tree=inputs.tree,
        descriptions=inputs.descriptions,
        transitions=inputs.transitions,
        table=inputs.table,
        item_policy=inputs.item_policy,
        planned=inputs.planned,
        contexts=inputs.contexts if inputs.has(CONTEXT_TABLE) else None,
    )


def _metrics(work: Work, inputs: Inputs) -> Outcome:
    from byway.evaluation import offline

    return offline.build(
        work,
        transitions=inputs.transitions,
        descriptions=inputs.descriptions,
        model=inputs.language_model,
        table=inputs.table,
        vectors=inputs.vectors,
        tree=inputs.tree,
    )


def _experiment(work: Work, inputs: Inputs) -> Outcome:
    from byway.simulation import experiment

    given = experiment.Materials(
        catalog=inputs.catalog,
        events=inputs.events,
        vectors=inputs.vectors,
        tree=inputs.tree,
        descriptions=inputs.descriptions,
        transitions=inputs.transitions,
        table=inputs.table,
        planned=inputs.planned,
        contexts=inputs.contexts if inputs.has(CONTEXT_TABLE) else None,
        sections=inputs.config,
    )
    seen = inputs.seen if inputs.has(MEDIA) else None
    return experiment.build(work, given, seen=seen, user_ids=inputs.users, folder=inputs.truth_folder)


def _truth_files(inputs: Inputs) -> dict[str, str]:
    from byway.simulation import truth

    path = truth.file(inputs.truth_folder)
    return {f"truth/{path.name}": artifact.hash_file(path)}


def _report(work: Work, inputs: Inputs) -> Outcome:
    from byway.evaluation import report
    from byway.simulation import experiment

    records, files = _drawn(inputs)
    if not records:
        raise UserError("There is nothing to report yet: run the stages, or an experiment, first.")
    live = experiment.load(inputs.workspace / EXPERIMENT.folder) if EXPERIMENT in records else None
    figures = {name: value for record in records.values() for name, value in record.metrics.items()}
    figures |= {name: msgspec.json.decode(path.read_bytes()) for name, path in files.items()}
    return report.build(work, live, figures)


def _drawn_figures(inputs: Inputs) -> dict[str, str]:
    records, files = _drawn(inputs)
    found = {stage.name: record.fingerprint for stage, record in records.items()}
    return found | {name: artifact.hash_file(path) for name, path in files.items()}


def _drawn(inputs: Inputs) -> tuple[dict[Stage, Record], dict[str, Path]]:
    """The records and the files whose figures the report draws, as far as they are there."""
    drawn = [stage for stage in (LANGUAGE_MODEL, METRICS, EXPERIMENT, CURATIONS, VIEWS) if inputs.has(stage)]
    records = {stage: artifact.read_record(inputs.workspace / stage.folder) for stage in drawn}
    files = {"worth": inputs.workspace / WORTH, "lifted": inputs.workspace / LIFTED}
    return (
        {stage: record for stage, record in records.items() if record is not None},
        {name: path for name, path in files.items() if path.exists()},
    )


def _curations(work: Work, inputs: Inputs) -> Outcome:
    from byway.evaluation import curations

    return curations.build(
        work,
        events=inputs.events,
        vectors=inputs.vectors,
        tree=inputs.tree,
        descriptions=inputs.descriptions,
        sections=inputs.config,
    )


def _views(work: Work, inputs: Inputs) -> Outcome:
    from byway.evaluation import views

    return views.build(
        work,
        inputs.config.views,
        catalog=inputs.catalog,
        tree=inputs.tree,
        descriptions=inputs.descriptions,
        seen=inputs.seen,
        pairs=inputs.pairs,
        weights=inputs.tuned_weights,
        sections=inputs.config,
    )


def _shown_weights(inputs: Inputs) -> dict[str, str]:
    """It may look at the media again."""
    return _weights(model=inputs.config.multimodal_model.model, pictures=inputs.config.media.model)


CATALOG = Stage(1, "catalog", _catalog, outside=_source_files, version=2)
MEDIA = Stage(1, "media", _media, (CATALOG,), _media_files, only_if=(CATALOG, "media"))
EMBEDDINGS = Stage(2, "embeddings", _embeddings, (CATALOG, MEDIA), _encoder_weights)
GRAPH = Stage(3, "graph", _graph, (EMBEDDINGS,))
TREE = Stage(4, "tree", _tree, (EMBEDDINGS, GRAPH, CATALOG))
DESCRIPTIONS = Stage(5, "descriptions", _descriptions, (CATALOG, TREE), _naming_weights, version=3)
TRANSITIONS = Stage(6, "transitions", _transitions, (CATALOG, TREE))
LANGUAGE_MODEL = Stage(
    7,
    "language_model",
    _language_model,
    (CATALOG, TRANSITIONS, DESCRIPTIONS, EMBEDDINGS, TREE),
    _base_weights,
    run=("precision", "processes"),
)
TRANSITION_TABLE = Stage(
    8,
    "transition_table",
    _transition_table,
    (TRANSITIONS, DESCRIPTIONS, LANGUAGE_MODEL, EMBEDDINGS, TREE),
    run=("precision",),
    refuse=_pairs_or_triples,
)
PAIRS = Stage(
    9, "pairs", _pairs, (CATALOG, TREE, MEDIA), only_if=(MEDIA, "items"), sections=("transitions",), version=2
)
MULTIMODAL_MODEL = Stage(
    10,
    "multimodal_model",
    _multimodal_model,
    (PAIRS, CATALOG, TREE, DESCRIPTIONS, MEDIA, LANGUAGE_MODEL),
    _seeing_weights,
    only_if=(PAIRS, "samples"),
    run=("precision",),
    version=3,
)
CONTEXT_TABLE = Stage(
    11,
    "context_table",
    _context_table,
    (CATALOG, EMBEDDINGS, TREE, DESCRIPTIONS, MEDIA, PAIRS, MULTIMODAL_MODEL),
    only_if=(PAIRS, "samples"),
    run=("precision",),
    version=3,
)
ITEM_POLICY = Stage(12, "item_policy", _item_policy, (CATALOG, EMBEDDINGS), run=("processes",), version=2)
PLANNER = Stage(
    12, "planner", _planner, (CATALOG, EMBEDDINGS, TREE, TRANSITIONS, TRANSITION_TABLE, ITEM_POLICY), version=3
)
BUNDLE = Stage(
    13,
    "bundle",
    _bundle,
    (CATALOG, TREE, DESCRIPTIONS, TRANSITIONS, TRANSITION_TABLE, ITEM_POLICY, PLANNER, CONTEXT_TABLE),
    version=2,
)
METRICS = Stage(
    14, "metrics", _metrics, (TRANSITIONS, DESCRIPTIONS, LANGUAGE_MODEL, TRANSITION_TABLE, EMBEDDINGS, TREE)
)
EXPERIMENT = Stage(
    15,
    "experiment",
    _experiment,
    (CATALOG, EMBEDDINGS, TREE, DESCRIPTIONS, TRANSITIONS, TRANSITION_TABLE, PLANNER, MEDIA, CONTEXT_TABLE),
    _truth_files,
    asked_for=True,
    sections=("item_policy", "bundle"),
    version=3,
)
REPORT = Stage(16, "report", _report, outside=_drawn_figures, asked_for=True)
CURATIONS = Stage(
    18,
    "curations",
    _curations,
    (CATALOG, EMBEDDINGS, TREE, DESCRIPTIONS),
    _base_weights,
    asked_for=True,
    sections=("transitions", "language_model"),
    run=("precision", "processes"),
)
VIEWS = Stage(
    19,
    "views",
    _views,
    (CATALOG, TREE, DESCRIPTIONS, MEDIA, PAIRS, LANGUAGE_MODEL),
    _shown_weights,
    only_if=(PAIRS, "samples"),
    asked_for=True,
    sections=("media", "multimodal_model"),
    run=("precision",),
)

STAGES = (
    CATALOG, MEDIA, EMBEDDINGS, GRAPH, TREE, DESCRIPTIONS, TRANSITIONS, LANGUAGE_MODEL, TRANSITION_TABLE, PAIRS,
    MULTIMODAL_MODEL, CONTEXT_TABLE, ITEM_POLICY, PLANNER, BUNDLE, METRICS, EXPERIMENT, REPORT, CURATIONS, VIEWS,
)  # fmt: skip
"""In the order in which they are built."""

REFRESH = "17-refresh"
"""Folder of what `byway refresh` makes between two runs; it is no stage."""

WORTH = "worth.json"
"""What `byway worth` found last; it is no artifact."""

REFRESHED = "refresh.digest"
"""Metric of the bundle's record: the refresh that is in it."""


def skipped(workspace: Path, stage: Stage) -> bool:
    """Whether there is nothing for this stage to do, as those of paper 2 where no item can be seen."""
    if stage.only_if is None:
        return False
    owner, count = stage.only_if
    if skipped(workspace, owner):
        return True
    record = artifact.read_record(workspace / owner.folder)
    return record is not None and not record.counts.get(count, 0)


def settings_of(config: Config, stage: Stage) -> dict[str, Any]:
    """What shapes the artifact, as its record will hold it: of sections and [run], and its algorithm's version."""
    config = resolved(config)
    own = _shaping(getattr(config, stage.name)) if hasattr(config, stage.name) else {}
    own |= {name: _shaping(getattr(config, name)) for name in stage.sections}
    run = {name: getattr(config.run, name) for name in (*stage.run, "seed")}
    return {**own, **run, "version": stage.version}


def _shaping(section: Any) -> dict[str, Any]:
    settings = msgspec.json.decode(msgspec.json.encode(section))
    return {name: value for name, value in settings.items() if name not in operational(type(section))}


def inputs_of(workspace: Path, config: Config, stage: Stage) -> dict[str, str]:
    """Identity of everything that the stage reads. Raises UserError where some of it is not there yet."""
    found: dict[str, str] = {}
    for owner in stage.reads:
        if skipped(workspace, owner):
            continue
        record = artifact.read_record(workspace / owner.folder)
        if record is None:
            raise UserError(f"{stage.folder} needs {owner.folder}; run the stages before it first.")
        found[owner.name] = record.digest
    return found | stage.outside(Inputs(workspace, config, stage))
