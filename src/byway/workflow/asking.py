"""What the verbs `answers`, `export` and `worth` do with a workspace.

They stand beside the stages: each reads 01 to 06, and none makes an artifact.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base.artifact import locked, write_atomic
from byway.base.config import Config
from byway.base.errors import UserError
from byway.evaluation import worth as figures
from byway.language import answers, batch, export, questions, server
from byway.language.answers import Kept
from byway.language.server import Usage
from byway.transitions import signals
from byway.transitions.counts import Successors
from byway.transitions.curate import Ints
from byway.transitions.triples import contexts_of
from byway.workflow.stages import LANGUAGE_MODEL, WORTH, Inputs, inputs_of
from byway.workflow.stages import questions as questions_of


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
        asked = questions_of(opened(directory, config))
        kept = Kept.open(directory, asked, config.answers)
        found = batch.take(files, kept, asked)
        return {**found, "questions": len(asked), "missing": len(kept.missing())}


def write_samples(directory: Path, config: Config, form: export.Form, out: Path | None) -> dict[str, Any]:
    """Write the samples of fine-tuning for others to tune on."""
    inputs = opened(directory, config)
    transitions = inputs.transitions
    parts = {"train": transitions.samples, "validation": transitions.validation}
    used = np.concatenate([part.several().context[:, -2:] for part in parts.values()])
    asked = questions_of(inputs, np.unique(used, axis=0).astype(np.int32))
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


def _worth_of_server(directory: Path, config: Config, asks: Any, pairs: int) -> dict[str, Any]:
    inputs = opened(directory, config)
    transitions, seed = inputs.transitions, config.run.seed
    similarity = inputs.similarity
    names = inputs.descriptions.names[transitions.level - 1]
    of = inputs.tree.assign(transitions.level)
    titles = questions.examples(inputs.catalog.titles(), inputs.events, of, transitions.clusters)
    usage, took, fresh = Usage(), 0.0, 0
    with server.connected(asks) as by:

        def ask(asked: Ints, allowed: NDArray[np.bool_], successors: Successors) -> NDArray[np.float64]:
            nonlocal took, fresh
            scorer = signals.over(successors, similarity).fitted(
                transitions.validation, np.random.default_rng(seed)
            )
            shown = questions.about(
                asked, scorer, successors, asks, names=names, titles=titles, seed=seed, allowed=allowed
            )
            kept = Kept.open(directory, shown, asks)
            left, began = len(kept.missing()), time.perf_counter()
            answers.ask(kept, shown, asks, by, "worth")
            if left:
                took, fresh = took + time.perf_counter() - began, fresh + left
            usage.add(kept.usage())
            return signals.by_place(kept.ranking, shown.candidates, transitions.clusters)

        found = figures.worth(transitions, similarity, ask, pairs, np.random.default_rng(seed))
    each = took / fresh if fresh else None
    money = answers.price(usage, asks)
    return _said(directory, found, asks.model, transitions.clusters, each=each, usage=usage, money=money)


def _worth_here(directory: Path, config: Config, model: str | None, pairs: int) -> dict[str, Any]:
    """Of the fine-tuned model of the workspace; or of one by name, as it is, asked by the prompt of fine-tuning."""
    import torch

    from byway.base import artifact, models, precision
    from byway.language import prompts, tune
    from byway.language.fast.bulk import prefiller
    from byway.language.fast.choices import TOGETHER, by_model
    from byway.language.fast.generate import make_policy
    from byway.language.fast.readable import require_readable

    inputs = opened(directory, config)
    transitions = inputs.transitions
    similarity = inputs.similarity
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
    ready, took, said = prefiller(policy), 0.0, 0

    @torch.no_grad()
    def ask(asked: Ints, allowed: NDArray[np.bool_], successors: Successors) -> NDArray[np.float64]:
        nonlocal took, said
        began, found = time.perf_counter(), list[NDArray[np.int32]]()
        for part in np.array_split(np.arange(len(asked)), max(1, len(asked) // TOGETHER)):
            context = contexts_of(asked[part], K)
            best, _ = by_model(policy, ready(context), 10, ~allowed[part])
            found.append(best)
        took, said = took + time.perf_counter() - began, said + len(asked)
        everybody = np.where(allowed, np.arange(allowed.shape[1], dtype=np.int32), np.int32(-1))
        return signals.by_place(np.concatenate(found), everybody, allowed.shape[1])

    # To one that was fine-tuned on this log no interest of it is new.
    new = not (model is None and whole)
    found = figures.worth(transitions, similarity, ask, pairs, np.random.default_rng(config.run.seed), new=new)
    M = transitions.clusters
    return _said(directory, found, called, M, each=took / max(1, said), usage=Usage(), money=0.0)


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
