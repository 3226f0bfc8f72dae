"""A workspace from Python: what the verbs of the command line do, as methods.

It owns no result. Everything that it answers is read from the artifacts, so that two of them on one folder, or one
beside the command line, say the same.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from byway.base import artifact
from byway.base.config import Config
from byway.base.errors import UserError
from byway.serving import context
from byway.serving import recommend as answering
from byway.serving.answers import ITEMS, Answer
from byway.serving.bundle import Bundle
from byway.serving.person import Seen
from byway.workflow import folder, pipeline, showing
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import BUNDLE

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class NextInterest:
    """An interest that may come next, and why."""

    name: str
    score: float
    """Log-probability, up to a constant that is the same for all that are ranked together."""
    parts: dict[str, float]
    """What each signal adds to the score, in nats; they sum up to it."""


class Workspace:
    """A folder that `byway init` and `byway run` made, or that `create` and `run` here make.

    Raises UserError where the folder is no workspace. What a method reads is opened when it is asked for; what it
    needs and is not built yet is a UserError that says which command builds it.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self._served: tuple[str, Bundle] | None = None
        if not (self.directory / BUNDLE.folder).exists():
            folder.require(self.directory)

    @classmethod
    def create(cls, directory: str | Path, data: str | Path, source: str) -> "Workspace":
        """Make a workspace in `directory` for the data set at `data`, as `byway init --from source` does.

        The settings that are found stand in `byway.toml`, to be mended by hand. Raises UserError for a source that
        is not known, data that cannot be read, and where `directory` is a workspace already.
        """
        folder.begin(Path(directory), Path(data), source)
        return cls(directory)

    def __repr__(self) -> str:
        return f"byway.Workspace({str(self.directory)!r})"

    def run(self, until: str | None = None, only: str | None = None, **sections: Mapping[str, Any]) -> "Workspace":
        """Build every artifact that is missing or out of date, in order; returns this workspace.

        `until` stops after a stage, `only` builds just that one. A keyword is a section of the settings with those
        to override for this run, as in `run(tree={"items_per_cluster": 40})`; what shall hold for good belongs into
        `byway.toml`. Raises UserError for what is no stage or setting.
        """
        pipeline.run(self.directory, self.config(**sections), until, only)
        return self

    def config(self, **sections: Mapping[str, Any]) -> Config:
        """The settings of `byway.toml`, with sections of `run` laid over them."""
        overrides = [
            f"{section}.{setting}={_toml(value, f'{section}.{setting}')}"
            for section, settings in sections.items()
            for setting, value in settings.items()
        ]
        return folder.settings(self.directory, overrides)

    @property
    def figures(self) -> dict[str, Any]:
        """All figures by name, of every stage that has run; what a name means is in docs/guide.md."""
        return showing.figures(self.directory)

    @property
    def bundle(self) -> Bundle:
        """What answers: the newest bundle, opened again when there is another one."""
        record = artifact.read_record(self.directory / BUNDLE.folder)
        digest = "" if record is None else record.digest
        if self._served is None or self._served[0] != digest:
            self._served = digest, showing.served(self.directory)
        return self._served[1]

    def recommend(
        self,
        history: Sequence[str | Seen] | None = None,
        *,
        user: str | None = None,
        item: str | None = None,
        k: int | None = None,
        seed: int = 0,
    ) -> Answer:
        """What the service would answer, with reasons, and for each item the propensity (`Answer`).

        For a `history` of item ids, the most recent last, or for a `user` of the log; to neither, popular items.
        `item` is what is being watched: then the answer is what surprises after it. At most `k` items, without it
        as many as the settings say. Equal seeds draw the same; for a user, what `recommend_many` draws.
        Raises UserError for a user of whom the log knows nothing, and an item to watch that the catalog does not
        know; items of the history that it does not know are ignored, and the reasons say so.
        """
        met = _seen(history) if history is not None else []
        if user is not None and met:
            raise UserError("user and history exclude each other; choose one.")
        _check(k, seed)
        opened, seen, now, rng = self.bundle, met, None, np.random.default_rng(seed)
        if user is not None:
            from byway.workflow import recommendations

            seen, now = recommendations.logged(self.directory, user)
            rng = recommendations.generator(seed, user)
        if item is not None:
            return context.recommend(opened, item, seen, k, now)
        return answering.recommend(opened, seen, rng, k, now)

    def recommend_many(
        self,
        users: Sequence[str] | Mapping[str, Sequence[str | Seen]] | None = None,
        k: int | None = None,
        seed: int = 0,
    ) -> "pa.Table":
        """What many people are shown, as an Arrow table: user, item, rank, score, cluster, propensity.

        `users` are ids of the log, in any order (without it, everybody), or people of your own with their
        histories of item ids, the most recent last. A row is an item; those of a person stand together, the best
        first. It is what `recommend` answers to each of them with this seed, whoever else is asked for. For more
        people than memory holds there is `byway recommend --all`.
        """
        from byway.workflow import recommendations

        _check(k, seed)
        opened = self.bundle
        k = ITEMS if k is None else k
        if isinstance(users, Mapping):
            histories = {
                name: _seen(history) for name, history in zip(_ids(users, "users"), users.values(), strict=True)
            }
            return recommendations.of_histories(opened, histories, k, seed)
        if isinstance(users, str):
            raise UserError("users is one string; give a list of ids.")
        log = recommendations.open_log(self.directory)
        everybody = range(len(log.users))
        chosen = everybody if users is None else recommendations.numbers(self.directory, log, _ids(users, "users"))
        return recommendations.of_users(opened, log, chosen, k, seed)

    def interests(self, level: int = 2) -> "pa.Table":
        """The interests of a level of the tree, 1 (broadest) to 4, as an Arrow table: name, items, traffic.

        Row c is cluster c; clusters that are siblings follow each other. Traffic is in events.
        """
        import pyarrow as pa

        from byway.data import events
        from byway.interests.tree import LEVELS

        if not 1 <= level <= LEVELS:
            raise UserError(f"level is {level}; the tree has levels 1 to {LEVELS}.")
        built = Artifacts(self.directory)
        grown, names = built.tree, built.descriptions.names[level - 1]
        traffic = events.traffic(built.events)
        if mixed := showing.older(self.directory, pipeline.records(self.directory)):
            raise UserError(f"There are no interests to read yet: {mixed}")
        starts = grown.starts[level - 1]
        along = np.concatenate([[0], np.cumsum(traffic[grown.order])]).astype(np.int64)
        return pa.table({"name": names, "items": np.diff(starts), "traffic": np.diff(along[starts])})

    def next_interests(self, *interests: str, k: int = 10) -> list[NextInterest]:
        """The interests that the transition table ranks first after one, two or three, the most recent last.

        Named as in `interests`, at the level that is planned on. Returns at most `k` records, the best first, each
        with its name, its score, and a dict of what each signal adds to it: `counts`, `similarity` and
        `popularity`, and `language_model` where it has a weight in the table and the table keeps scores (it does
        for pairs).
        """
        from byway.transitions import triples
        from byway.transitions.signals import Scorer

        _check(k)
        built = Artifacts(self.directory)
        table, transitions = built.table, built.transitions
        names = built.descriptions.names[transitions.level - 1]
        K = transitions.train.context.shape[1]
        if not 1 <= len(interests) <= K:
            raise UserError(f"{len(interests)} interests were given; the table answers one to {K}.")
        given = [_number(names, name) for name in interests]
        asked = np.array([given[:1] * (K - len(given)) + given], dtype=np.int32)
        listed = triples.look_up(table.clusters, table.triples, asked)[0]
        best = listed[listed >= 0][:k]
        similarity = built.tree.similarity(built.vectors, transitions.level)
        scorer = Scorer.from_log(transitions, similarity).weighed(**table.fitted.weights)
        own = {name: value[0, best] for name, value in scorer.parts(asked).items()}
        is_triple = table.triples is not None and table.triples.rows(asked, len(names))[0] >= 0
        if table.fitted.model and not is_triple:
            kept = table.scores[asked[0, -2], asked[0, -1]][listed >= 0][:k]
            own["language_model"] = kept - np.sum(list(own.values()), axis=0)
        rows = [{name: float(value[i]) for name, value in own.items()} for i in range(len(best))]
        return [NextInterest(names[c], sum(row.values()), row) for c, row in zip(best.tolist(), rows, strict=True)]


def _check(k: int | None, seed: int = 0) -> None:
    whole = int | np.integer
    if k is not None and not (isinstance(k, whole) and k >= 1):
        raise UserError(f"k is {k!r}; give a whole number of at least 1.")
    if not (isinstance(seed, whole) and seed >= 0):
        raise UserError(f"seed is {seed!r}; give a whole number that is not negative.")


def _seen(history: Sequence[str | Seen]) -> list[Seen]:
    if isinstance(history, str):
        raise UserError("history is one string; give a list of item ids, the most recent last.")
    return [each if isinstance(each, Seen) else Seen(each) for each in _ids(history, "history")]


def _ids(given: Iterable[Any], name: str) -> list[Any]:
    """The ids, and `Seen` as they are; UserError for a number or an Arrow value, which no id is equal to."""
    listed = list(given)
    for each in listed:
        if not isinstance(each, str | Seen):
            raise UserError(f"{name} holds {each!r}; ids are text, such as {str(each)!r}.")
        if isinstance(each, Seen) and not 0 <= each.satisfaction <= 1:
            raise UserError(f"{name} holds {each!r}; satisfaction goes from 0 to 1.")
    return listed


def _number(names: Sequence[str], name: Any) -> int:
    if name in names:
        return names.index(name)
    if not isinstance(name, str):
        raise UserError(f"{name!r} is no name of an interest; give text, such as {names[0]!r}.")
    near = difflib.get_close_matches(name, names, 3, 0.3)
    hint = f"; the nearest are {', '.join(repr(each) for each in near)}" if near else ""
    raise UserError(f"There is no interest {name!r} at the level that is planned on{hint}.")


def _toml(value: Any, setting: str) -> str:
    """A setting's value as it would stand in `byway.toml`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v, setting)}" for k, v in value.items()) + "}"
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each, setting) for each in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False)
    raise UserError(f"{setting} is {value!r}; give text, a number, true or false, a list or a table.")
