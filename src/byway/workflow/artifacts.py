"""What a stage is, the artifacts that it may read, and what its own depends on.

A property here imports what it needs itself, so that to know the stages loads nothing. It does not know which
stages there are; they are in `stages`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from byway.base import artifact
from byway.base.artifact import Outcome, Work
from byway.base.config import Config, operational, resolved
from byway.base.errors import UserError
from byway.base.progress import command

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
    from byway.language.tune import Tuned
    from byway.multimodal import tune as multimodal
    from byway.multimodal.curate import Pairs
    from byway.multimodal.plan import ContextTable
    from byway.planner.fit import FittedPlanner
    from byway.transitions.curate import Transitions
    from byway.transitions.signals import Ranked
    from byway.transitions.standing import Standing
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

    def load(self, folder: str, load: Callable[[Path], T]) -> T:
        path = self.workspace / folder
        if artifact.read_record(path) is None:
            raise UserError(f"{self.workspace} has no {folder} yet; run: {command('run', self.workspace)}")
        with artifact.reading(path):
            return load(path)

    @property
    def catalog(self) -> "Catalog":
        from byway.data import catalog

        return self.load("01-catalog", catalog.load)

    @property
    def events(self) -> "Events":
        from byway.data import events

        return self.load("01-catalog", events.load)

    @property
    def users(self) -> list[str]:
        from byway.data import events

        return self.load("01-catalog", events.load_users)

    @property
    def vectors(self) -> "NDArray[np.float32]":
        from byway.interests import embed

        return self.load("02-embeddings", embed.load)

    @property
    def graph(self) -> "Graph":
        from byway.interests import graph

        return self.load("03-graph", graph.load)

    @property
    def tree(self) -> "Tree":
        from byway.interests import tree

        return self.load("04-tree", tree.load)

    @property
    def descriptions(self) -> "Descriptions":
        from byway.interests import describe

        return self.load("05-descriptions", describe.load)

    @property
    def transitions(self) -> "Transitions":
        from byway.transitions import curate

        return self.load("06-transitions", curate.load)

    @property
    def standing(self) -> "Standing":
        """Where the log leaves each user."""
        from byway.transitions import standing

        return self.load("06-transitions", standing.load_standing)

    @property
    def similarity(self) -> "NDArray[np.float64]":
        """[M, M] cosines of the centroids of the clusters whose transitions are learned."""
        return self.tree.similarity(self.vectors, self.transitions.level)

    @property
    def language_model(self) -> "Tuned | Ranked":
        """What was fine-tuned here, or what one that was asked elsewhere answered."""
        from byway.language import answers, tune

        return self.load("07-language-model", lambda path: answers.load(path) or tune.load(path))

    @property
    def table(self) -> "Table":
        from byway.transitions import table

        return self.load("08-transition-table", table.load)

    @property
    def pairs(self) -> "Pairs":
        from byway.multimodal import curate

        return self.load("09-pairs", curate.load)

    @property
    def multimodal(self) -> "multimodal.Tuned":
        from byway.multimodal import tune

        return self.load("10-multimodal-model", tune.load)

    @property
    def contexts(self) -> "ContextTable":
        from byway.multimodal import plan

        return self.load("11-context-table", plan.load)

    @property
    def item_policy(self) -> "ItemPolicy":
        from byway.items import sequence

        return self.load("12-item-policy", sequence.load)

    @property
    def planned(self) -> "FittedPlanner":
        from byway.planner import fit

        return self.load("12-planner", fit.load)


@dataclass(frozen=True)
class Inputs(Artifacts):
    """What a stage may read: settings, and the artifacts of the stages that it declares."""

    config: Config
    of: Stage

    def load(self, folder: str, load: Callable[[Path], T]) -> T:
        owner = next((stage for stage in self.of.reads if stage.folder == folder), None)
        if owner is None:
            raise LookupError(f"{self.of.name} does not declare that it reads {folder}")
        if not self.has(owner):
            raise LookupError(f"{self.of.name} was to be skipped, or to ask whether there is {folder}")
        return super().load(folder, load)

    def has(self, owner: Stage) -> bool:
        """Whether there was something to do for a stage; else it has no artifact."""
        return not skipped(self.workspace, owner)

    @property
    def seen(self) -> "Media":
        from byway.data import media

        return replace(self.load("01-media", media.load), folder=self.media_folder)

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
    own = shaping(getattr(config, stage.name)) if hasattr(config, stage.name) else {}
    own |= {name: shaping(getattr(config, name)) for name in stage.sections}
    run = {name: getattr(config.run, name) for name in (*stage.run, "seed")}
    return {**own, **run, "version": stage.version}


def shaping(section: Any) -> dict[str, Any]:
    """The settings of a section but for the operational ones, which change no result."""
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
