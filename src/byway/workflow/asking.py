"""What the verbs `answers`, `export` and `worth` do with a workspace.

They stand beside the stages: each reads 01 to 06, and none makes an artifact.
"""

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base.artifact import locked, write_atomic
from byway.base.config import Answers, Config
from byway.base.errors import UserError
from byway.evaluation import worth as figures
from byway.language import answers, batch, export, server
from byway.language.answers import Kept
from byway.language.server import Usage
from byway.transitions import signals
from byway.transitions.counts import Successors
from byway.transitions.curate import Ints
from byway.transitions.triples import contexts_of
from byway.workflow import stages
from byway.workflow.artifacts import Inputs, inputs_of
from byway.workflow.stages import LANGUAGE_MODEL, WORTH

if TYPE_CHECKING:
    from byway.language.fast.generate import Policy, Prefilled


def opened(directory: Path, config: Config) -> Inputs:
    """What 07-language-model reads; UserError where the stages before it are not there."""
    inputs_of(directory, config, LANGUAGE_MODEL)
    return Inputs(directory, config, LANGUAGE_MODEL)


def take(directory: Path, config: Config, files: list[Path]) -> dict[str, Any]:
    """Take in files of a batch service's results; says what they held and what is still missing."""
    if config.language_model.answers == "here":
        raise UserError(
            "language_model.answers is here: set it to batch, and answers.model to who was asked, before answers "
            "are taken in."
        )
    with locked(directory):
        asked = stages.questions(opened(directory, config))
        kept = Kept.open(directory, asked, config.answers)
        found = batch.take(files, kept, asked)
        return {**found, "questions": len(asked), "missing": len(kept.missing())}


def write_samples(directory: Path, config: Config, form: export.Form, out: Path | None) -> dict[str, Any]:
    """Write the samples of fine-tuning for others to tune on."""
    inputs = opened(directory, config)
    transitions = inputs.transitions
    parts = {"train": transitions.samples, "validation": transitions.validation}
    used = np.concatenate([part.several().context[:, -2:] for part in parts.values()])
    asked = stages.questions(inputs, np.unique(used, axis=0).astype(np.int32))
    folder = out or directory / f"sft-{form}"
    return {"wrote": str(folder), **export.write(folder, form, parts, asked)}


def worth(directory: Path, config: Config, model: str | None, url: str | None, pairs: int) -> dict[str, Any]:
    """What a language model adds, and what asking it about every pair would take."""
    asks = config.answers
    if url is not None or (model is None and config.language_model.answers == "server"):
        asks = replace(asks, url=url or asks.url, model=model or asks.model)
        if not asks.model:
            raise UserError("Say which model the server is to answer by: --model NAME.")
        return _worth_of_server(directory, config, asks, pairs)
    if model is None and config.language_model.answers == "batch":
        raise UserError("What a batch service's model is worth is asked of its server: give --server URL.")
    return _worth_here(directory, config, model, pairs)


@dataclass(slots=True)
class _Asker:
    """Whom `evaluation.worth` asks; counts the pairs that were asked anew and how long they took."""

    seconds: float = 0.0
    fresh: int = 0

    @property
    def each(self) -> float | None:
        """Seconds a pair; None where none was asked anew."""
        return self.seconds / self.fresh if self.fresh else None


@dataclass(slots=True)
class _ServerAsker(_Asker):
    """Asks the model of a server, but for what it has answered already."""

    _: KW_ONLY
    inputs: Inputs
    settings: Answers
    by: server.Ask
    usage: Usage = field(default_factory=Usage)

    def __call__(self, pairs: Ints, allowed: NDArray[np.bool_], successors: Successors) -> NDArray[np.float64]:
        shown = stages.questions(self.inputs, pairs, self.settings, successors=successors, allowed=allowed)
        kept = Kept.open(self.inputs.workspace, shown, self.settings)
        left, began = len(kept.missing()), time.perf_counter()
        answers.ask(kept, shown, self.settings, self.by, "worth")
        if left:
            self.seconds += time.perf_counter() - began
            self.fresh += left
        self.usage.add(kept.usage())
        return signals.by_place(kept.ranking, shown.candidates, len(shown.names))


@dataclass(slots=True)
class _LocalAsker(_Asker):
    """Asks a model that runs here for its ten best."""

    _: KW_ONLY
    policy: "Policy"
    history: int
    """Interests of a context."""
    ready: "Callable[[Ints], Prefilled]"

    def __call__(self, pairs: Ints, allowed: NDArray[np.bool_], successors: Successors) -> NDArray[np.float64]:
        import torch

        from byway.language.fast.choices import TOGETHER, by_model

        began, rankings = time.perf_counter(), list[NDArray[np.int32]]()
        with torch.no_grad():
            for part in np.array_split(np.arange(len(pairs)), max(1, len(pairs) // TOGETHER)):
                context = contexts_of(pairs[part], self.history)
                best, _ = by_model(self.policy, self.ready(context), 10, ~allowed[part])
                rankings.append(best)
        self.seconds += time.perf_counter() - began
        self.fresh += len(pairs)
        everybody = np.where(allowed, np.arange(allowed.shape[1], dtype=np.int32), np.int32(-1))
        return signals.by_place(np.concatenate(rankings), everybody, allowed.shape[1])


def _worth_of_server(directory: Path, config: Config, asks: Answers, pairs: int) -> dict[str, Any]:
    inputs = opened(directory, config)
    transitions, rng = inputs.transitions, np.random.default_rng(config.run.seed)
    with server.connected(asks) as by:
        asker = _ServerAsker(inputs=inputs, settings=asks, by=by)
        found = figures.worth(transitions, inputs.similarity, asker, pairs, rng)
    money = answers.price(asker.usage, asks)
    return _said(
        directory, found, asks.model, transitions.clusters, each=asker.each, usage=asker.usage, money=money
    )


def _worth_here(directory: Path, config: Config, model: str | None, pairs: int) -> dict[str, Any]:
    """Of the fine-tuned model of the workspace; or of one by name, as it is, asked by the prompt of fine-tuning."""
    from byway.base import artifact, models, precision
    from byway.language import prompts, tune
    from byway.language.fast.bulk import prefiller
    from byway.language.fast.generate import make_policy
    from byway.language.fast.readable import require_readable

    inputs = opened(directory, config)
    transitions = inputs.transitions
    names = inputs.descriptions.names[transitions.level - 1]
    K = transitions.train.context.shape[1]
    path = directory / LANGUAGE_MODEL.folder
    whole = artifact.read_record(path) is not None and answers.load(path) is None
    if model is None and whole:
        tuned = tune.load(path)
        prompt = prompts.tokenise(names, K, models.load_tokenizer(str(path)), tuned.ending)
        policy = make_policy(models.load(str(path), precision.dtype("auto")), prompt, tuned.attention)
        called = f"the fine-tuned {tuned.base}"
    else:
        called = model or config.language_model.model
        prompt = prompts.tokenise(names, K, models.load_tokenizer(called), prompts.ENDINGS["block"])
        model_of = models.load(called, precision.dtype("auto"))
        require_readable(model_of)
        policy = make_policy(model_of, prompt, "causal")
    asker = _LocalAsker(policy=policy, history=K, ready=prefiller(policy))
    # To one that was fine-tuned on this log no interest of it is new.
    new = not (model is None and whole)
    rng = np.random.default_rng(config.run.seed)
    found = figures.worth(transitions, inputs.similarity, asker, pairs, rng, new=new)
    return _said(directory, found, called, transitions.clusters, each=asker.each, usage=Usage(), money=0.0)


def _said(
    directory: Path, found: dict[str, Any], model: str, M: int, *, each: float | None, usage: Usage, money: float
) -> dict[str, Any]:
    """The figures with what the whole table would take, kept for the report. A pair took `each` seconds, where any
    was asked anew; `usage` and `money` are of all pairs of this trial."""
    times = M * M / max(1, found["asked"])
    whole = {
        "pairs": M * M,
        "hours": None if each is None else float(f"{M * M * each / 3600:.3g}"),
        "tokens_read": round(times * usage.read),
        "tokens_written": round(times * usage.written),
        "money": round(times * money, 2),
    }
    result = {"model": model, **found, "whole_table": whole}
    result["says"] = in_words(result)
    write_atomic(directory / WORTH, msgspec.json.format(msgspec.json.encode(result), indent=1))
    return result


def in_words(found: dict[str, Any]) -> str:
    """The figures as one paragraph."""
    named = {"all": "over all pairs", "unseen pairs": "on pairs that the log never saw"}
    lines = [f"{found['model']} was asked about {found['asked']:,} pairs."]
    verdicts: list[str] = []
    for name, part in found["parts"].items():
        nats, recall = part["adds"]["nats"], part["adds"][f"recall_at_{part['k']}"]
        over = named.get(name, f"among {name}")
        clear = "adds" if nats["low"] > 0 else "takes away" if nats["high"] < 0 else "adds nothing clear:"
        verdicts.append(
            f"{over} it {clear} {nats['mean']:+.3f} nats a turn ({nats['low']:+.3f} to {nats['high']:+.3f}), "
            f"recall at {part['k']} {recall['mean']:+.3f} ({recall['low']:+.3f} to {recall['high']:+.3f})"
        )
    lines.append(f"Beside counts, similarity and popularity, {'; '.join(verdicts)}.")
    whole = found["whole_table"]
    if whole["hours"] is not None:
        cost = f" and {whole['money']:,.2f} by answers.price" if whole["money"] else ""
        minutes = whole["hours"] * 60
        time = f"{whole['hours']:,.2f} hours" if minutes >= 60 else f"{minutes:.0f} minutes"
        time = time if minutes >= 1.5 else "a minute" if minutes >= 0.5 else "seconds"
        lines.append(f"The whole table, {whole['pairs']:,} pairs, would take {time}{cost}.")
    return " ".join(lines)


def as_table(found: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines: list[str] = []
    for name, part in found["parts"].items():
        k = part["k"]
        lines.append(f"{name}: {part['turns']:,} turns{'':8}nats  recall at {k}")
        lines += [
            f"  {row:20} {values['nats']:9.3f} {values[f'recall_at_{k}']:10.3f}"
            for row, values in part["table"].items()
        ]
    return "\n".join(lines)
