"""The stages from the log to the bundle, in the order in which they are built.

Each one stands after its functions: what builds its artifact, and what says what it reads outside of artifacts. Its
settings are the section of its name, if there is one. A function here imports what it needs itself, so that to know
the stages loads nothing. What a stage is and may read is in `artifacts`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from byway.base import artifact, known_models
from byway.base.artifact import Outcome, Record, Work
from byway.base.config import LIFTED, Answers, Config, MultimodalModel
from byway.base.errors import UserError
from byway.base.progress import say
from byway.workflow.artifacts import Inputs, Stage, shaping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from byway.language.plan import Given
    from byway.language.questions import Questions
    from byway.multimodal.contexts import Contexts
    from byway.transitions.counts import Successors
    from byway.transitions.curate import Ints


def _weights(**models: str) -> dict[str, str]:
    """Identity of the weights of models, by name and where named by the settings."""
    return {name: known_models.identity(model) for name, model in models.items() if model}


def _catalog(work: Work, inputs: Inputs) -> Outcome:
    from byway.data import catalog

    return catalog.build(work, inputs.config.catalog, inputs.workspace)


def _source_files(inputs: Inputs) -> dict[str, str]:
    from byway.data import sources

    found = sources.files(inputs.config.catalog, inputs.workspace)
    return {name: artifact.hash_file(path) for name, path in found.items()}


CATALOG = Stage(1, "catalog", _catalog, outside=_source_files, version=2)


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


MEDIA = Stage(1, "media", _media, (CATALOG,), _media_files, only_if=(CATALOG, "media"))


def _embeddings(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import embed

    seen = inputs.seen if inputs.has(MEDIA) else None
    return embed.build(work, inputs.config.embeddings, inputs.catalog, seen)


def _encoder_weights(inputs: Inputs) -> dict[str, str]:
    from byway.interests import embed

    settings = inputs.config.embeddings
    return _weights(model=embed.chosen(settings, inputs.catalog) if settings.model == "auto" else settings.model)


EMBEDDINGS = Stage(2, "embeddings", _embeddings, (CATALOG, MEDIA), _encoder_weights)


def _graph(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import graph

    return graph.build(work, inputs.vectors)


GRAPH = Stage(3, "graph", _graph, (EMBEDDINGS,))


def _tree(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import tree

    return tree.build(work, inputs.config.tree, inputs.vectors, inputs.graph, inputs.events)


TREE = Stage(4, "tree", _tree, (EMBEDDINGS, GRAPH, CATALOG))


def _descriptions(work: Work, inputs: Inputs) -> Outcome:
    from byway.interests import describe

    tokenizer = known_models.record(inputs.config.language_model.model).tokenizer
    return describe.build(work, inputs.config.descriptions, inputs.catalog, inputs.tree, tokenizer)


def _naming_weights(inputs: Inputs) -> dict[str, str]:
    tokenizer = known_models.record(inputs.config.language_model.model).tokenizer
    known = {"tokenizer": known_models.identity(tokenizer, only_tokenizer=True)}
    return known | _weights(writer=inputs.config.descriptions.writer)


DESCRIPTIONS = Stage(5, "descriptions", _descriptions, (CATALOG, TREE), _naming_weights, version=3)


def _transitions(work: Work, inputs: Inputs) -> Outcome:
    from byway.transitions import curate

    return curate.build(work, inputs.config.transitions, inputs.events, inputs.tree)


TRANSITIONS = Stage(6, "transitions", _transitions, (CATALOG, TREE))


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


def questions(
    inputs: Inputs,
    pairs: "Ints | None" = None,
    settings: Answers | None = None,
    *,
    successors: "Successors | None" = None,
    allowed: "NDArray[np.bool_] | None" = None,
) -> "Questions":
    """What a model that does not run here is asked about `pairs` [P, 2], or about those that the settings say.

    Others than the workspace's may be given: settings, what is counted, and `allowed` [P, M] as candidates.
    """
    import numpy as np

    from byway.language import questions as asked
    from byway.transitions.counts import Successors
    from byway.transitions.signals import Scorer

    transitions, settings, seed = inputs.transitions, settings or inputs.config.answers, inputs.config.run.seed
    successors = successors or Successors.of(transitions)
    scorer, of = Scorer.from_counts(successors, inputs.similarity), inputs.tree.assign(transitions.level)
    return asked.about(
        asked.pairs_asked(transitions, settings.pairs) if pairs is None else pairs,
        scorer.fitted_by_ndcg(transitions.validation, np.random.default_rng(seed)),
        successors,
        settings,
        names=inputs.descriptions.names[transitions.level - 1],
        titles=asked.examples(inputs.catalog.titles(), inputs.events, of, transitions.clusters),
        seed=seed,
        allowed=allowed,
    )


def _base_weights(inputs: Inputs) -> dict[str, str]:
    """The model that is fine-tuned; or, of one that is asked elsewhere, all that shapes its answers."""
    if inputs.config.language_model.answers == "here":
        model = inputs.config.language_model.model
        return _weights(model=model) | {"frozen": str(known_models.record(model).frozen)}
    return {"asked": artifact.hash_json({**shaping(inputs.config.answers), "url": "", "format": ""})}


LANGUAGE_MODEL = Stage(
    7,
    "language_model",
    _language_model,
    (CATALOG, TRANSITIONS, DESCRIPTIONS, EMBEDDINGS, TREE),
    _base_weights,
    run=("precision", "processes"),
)


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


TRANSITION_TABLE = Stage(
    8,
    "transition_table",
    _transition_table,
    (TRANSITIONS, DESCRIPTIONS, LANGUAGE_MODEL, EMBEDDINGS, TREE),
    run=("precision",),
    refuse=_pairs_or_triples,
)


def _pairs(work: Work, inputs: Inputs) -> Outcome:
    from byway.multimodal import curate

    if (level := max(inputs.config.transitions.level, 1 + curate.DELTA)) != inputs.config.transitions.level:
        say(
            "[yellow]transitions.level is 1, the broadest[/]: the multimodal model is made for level "
            f"{level}, and neither served nor given an arm."
        )
    return curate.build(work, level, inputs.events, inputs.tree, inputs.seen)


PAIRS = Stage(
    9, "pairs", _pairs, (CATALOG, TREE, MEDIA), only_if=(MEDIA, "items"), sections=("transitions",), version=2
)


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


CONTEXT_TABLE = Stage(
    11,
    "context_table",
    _context_table,
    (CATALOG, EMBEDDINGS, TREE, DESCRIPTIONS, MEDIA, PAIRS, MULTIMODAL_MODEL),
    only_if=(PAIRS, "samples"),
    run=("precision",),
    version=3,
)


def _item_policy(work: Work, inputs: Inputs) -> Outcome:
    from byway.items import sequence

    config = inputs.config
    return sequence.build(work, config.item_policy, inputs.events, inputs.vectors, config.run.processes)


ITEM_POLICY = Stage(12, "item_policy", _item_policy, (CATALOG, EMBEDDINGS), run=("processes",), version=2)


def _planner(work: Work, inputs: Inputs) -> Outcome:
    from byway.planner import fit

    return fit.build(
        work,
        inputs.config,
        events=inputs.events,
        vectors=inputs.vectors,
        tree=inputs.tree,
        table=inputs.table,
        level=inputs.transitions.level,
        item_policy=inputs.item_policy,
    )


PLANNER = Stage(
    12,
    "planner",
    _planner,
    (CATALOG, EMBEDDINGS, TREE, TRANSITIONS, TRANSITION_TABLE, ITEM_POLICY),
    lambda inputs: {"bundle.days": str(inputs.config.bundle.days)},
    version=4,
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


BUNDLE = Stage(
    13,
    "bundle",
    _bundle,
    (CATALOG, TREE, DESCRIPTIONS, TRANSITIONS, TRANSITION_TABLE, ITEM_POLICY, PLANNER, CONTEXT_TABLE),
    version=3,
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


METRICS = Stage(
    14, "metrics", _metrics, (TRANSITIONS, DESCRIPTIONS, LANGUAGE_MODEL, TRANSITION_TABLE, EMBEDDINGS, TREE)
)


def _experiment(work: Work, inputs: Inputs) -> Outcome:
    from byway.simulation import experiment

    catalog, events = inputs.catalog, inputs.events
    context = experiment.arm_context(
        work.scratch,
        int(work.rng.integers(2**31)),
        catalog=catalog,
        events=events,
        vectors=inputs.vectors,
        tree=inputs.tree,
        descriptions=inputs.descriptions,
        transitions=inputs.transitions,
        table=inputs.table,
        planned=inputs.planned,
        contexts=inputs.contexts if inputs.has(CONTEXT_TABLE) else None,
        sections=inputs.config,
    )
    return experiment.build(
        work,
        context,
        folder=inputs.truth_folder,
        item_ids=catalog.ids(),
        user_ids=inputs.users,
        events=events,
        seen=inputs.seen if inputs.has(MEDIA) else None,
    )


def _truth_files(inputs: Inputs) -> dict[str, str]:
    from byway.simulation import truth

    path = truth.file(inputs.truth_folder)
    return {f"truth/{path.name}": artifact.hash_file(path)}


EXPERIMENT = Stage(
    15,
    "experiment",
    _experiment,
    (CATALOG, EMBEDDINGS, TREE, DESCRIPTIONS, TRANSITIONS, TRANSITION_TABLE, PLANNER, MEDIA, CONTEXT_TABLE),
    _truth_files,
    asked_for=True,
    sections=("item_policy", "bundle"),
    version=4,
)


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


REPORT = Stage(16, "report", _report, outside=_drawn_figures, asked_for=True)


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
