"""What a model behind an address answered: kept as it comes, and 07-language-model once all is there.

Answers cost money, so they stand in a folder of the workspace, `answers/`, under the identity of the questions and
of who was asked: changing other settings, or a run that was cut, loses none. Rows come in any order.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Gate, Outcome, Work, hash_json, write_atomic
from byway.base.errors import UserError
from byway.base.progress import bar, say
from byway.language import server
from byway.language.questions import Questions
from byway.language.server import Ask, Said, Usage
from byway.transitions.signals import Ranked

FOLDER = "answers"
"""In a workspace."""
UNASKED = -2
"""In the place of a cluster: not answered yet."""
TOGETHER = 10_000
"""Questions that wait in memory."""
EVERY = 2.0
"""Seconds between two writes of answers: a run that is killed asks those again that it had not written."""
LOOKED = 32
"""Answers after which a server that named no candidate in any of them is given up."""
LETTERS = 4
"""Letters of a token, about: for what is said before anything was asked."""


def load(path: Path) -> Ranked | None:
    """Read 07-language-model of a model that was asked elsewhere; None where one was fine-tuned."""
    if not (path / "asked.json").exists():
        return None
    return Ranked(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in ("ranking", "candidates")))


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of answers to one set of questions."""

    path: Path
    ranking: np.memmap[Any, np.dtype[np.int32]]
    """[P, ranked] on the disk; UNASKED where an answer is missing."""

    @classmethod
    def open(cls, workspace: Path, asked: Questions, settings: config.Answers) -> "Kept":
        """The folder of these questions to this model, made where it is not there."""
        who = [settings.model, settings.protocol, settings.extra]
        identity = hashlib.blake2b((hash_json(who) + asked.digest()).encode(), digest_size=6).hexdigest()
        path = workspace / FOLDER / identity
        path.mkdir(parents=True, exist_ok=True)
        file, shape = path / "ranking.npy", (len(asked), asked.ranked)
        if not file.exists():
            new = path / "ranking.tmp.npy"
            np.save(new, np.full(shape, UNASKED, np.int32))
            new.replace(file)
            write_atomic(path / "asked.json", _about(asked, settings))
        return cls(path, np.load(file, mmap_mode="r+"))

    def missing(self) -> NDArray[np.intp]:
        """Rows that are not answered yet; one that was only half written is not."""
        return np.flatnonzero((self.ranking == UNASKED).any(axis=1))

    def keep(self, answers: list[Said]) -> None:
        """Keep some answers, and what they took; a row that was answered before was paid for before."""
        if not answers:
            return
        total = self.usage()
        for answer in answers:
            if (self.ranking[answer.row] == UNASKED).any():
                total.add(answer.usage)
            self.ranking[answer.row] = answer.ranking
        self.ranking.flush()
        write_atomic(self.path / "usage.json", msgspec.json.encode(total))

    def usage(self) -> Usage:
        """What all answers so far took."""
        file = self.path / "usage.json"
        return msgspec.json.decode(file.read_bytes(), type=Usage) if file.exists() else Usage()


def _about(asked: Questions, settings: config.Answers) -> bytes:
    """`asked.json` of a folder of answers and of an artifact."""
    size = {"questions": len(asked), "clusters": len(asked.names), "ranked": asked.ranked}
    about = {"model": settings.model, "protocol": settings.protocol, **size}
    return msgspec.json.format(msgspec.json.encode(about), indent=1)


def price(usage: Usage, settings: config.Answers) -> float:
    """Money for what was read and written; 0 where no price is set."""
    read, written = settings.price or (0.0, 0.0)
    return (usage.read * read + usage.written * written) / 1e6


def _cost(will: Usage, settings: config.Answers) -> str:
    return f", about {price(will, settings):,.2f} by answers.price" if settings.price else ""


def expected(asked: Questions, rows: NDArray[np.integer], settings: config.Answers) -> Usage:
    """What some questions will take, about, from the lengths of a few of them."""
    if not len(rows):
        return Usage()
    some = [asked[int(row)] for row in rows[:: max(1, len(rows) // 50)]]
    read = np.mean([len(each.system) + len(each.user) for each in some]) / LETTERS
    names = np.mean([np.mean([len(name) for name in each.legal]) for each in some])
    written = asked.ranked * (names / LETTERS + 3) + 60 * (asked.prompt == "reasoned")
    times = 1 if settings.protocol == "chat" else asked.ranked
    return Usage(len(rows) * times, round(len(rows) * times * read), round(len(rows) * written))


def ask(
    kept: Kept,
    asked: Questions,
    settings: config.Answers,
    by: Ask,
    label: str = "questions",
) -> None:
    """Ask what is not answered yet, and keep it as it comes.

    Raises UserError where the first answers to these questions name no candidate at all.
    """
    left = kept.missing()
    if not len(left):
        return
    will = expected(asked, left, settings)
    say(
        f"  {len(left):,} questions to {settings.model} at {settings.url}: about {will.read:,} tokens read and "
        f"{will.written:,} written{_cost(will, settings)}."
    )
    several, told = min(LOOKED, len(left)), time.monotonic()
    seen, named = 0, bool((kept.ranking >= 0).any())
    waiting, written = list[Said](), time.monotonic()
    with (
        bar(label, len(asked), len(asked) - len(left)) as advance,
        contextlib.closing(_said(by, asked, left)) as said,
    ):
        try:
            for answer in said:
                waiting.append(answer)
                advance(1)
                seen, named = seen + 1, named or bool(answer.ranking[0] >= 0)
                if seen == several and not named:
                    raise UserError(
                        f"{settings.model} at {settings.url} was asked {several} questions and named no "
                        "candidate in any answer: see by hand what it says, or set answers.protocol."
                    )
                if named and time.monotonic() - written > EVERY:
                    kept.keep(waiting)
                    waiting, written = [], time.monotonic()
                if settings.price and time.monotonic() - told > 60:
                    told = time.monotonic()
                    say(f"  so far {price(kept.usage(), settings):,.2f} by answers.price")
        finally:
            if named:  # what names nobody may be another model's fault, and is asked again
                kept.keep(waiting)


def _said(by: Ask, asked: Questions, left: NDArray[np.integer]) -> Generator[Said]:
    """The answers to the rows that are left, of which so many wait `TOGETHER`."""
    for start in range(0, len(left), TOGETHER):
        rows = left[start : start + TOGETHER]
        with contextlib.closing(by(asked.part(rows))) as said:
            for answer in said:
                yield answer._replace(row=int(rows[answer.row]))


def build(
    work: Work,
    settings: config.Answers,
    workspace: Path,
    asked: Questions,
    write: Callable[[Path, Questions, NDArray[np.integer], config.Answers], list[Path]] | None,
) -> Outcome:
    """Ask the server all that is not answered; or `write` it as files for a batch, and say so as a UserError."""
    kept = Kept.open(workspace, asked, settings)
    if write is None:
        with server.connected(settings) as by:
            ask(kept, asked, settings, by)
    elif len(left := kept.missing()):
        files = write(kept.path, asked, left, settings)
        cost = _cost(expected(asked, left, settings), settings)
        raise UserError(
            f"{len(left):,} of {len(asked):,} questions wait for answers{cost}: have {_listed(files)} answered as "
            "a batch, take the results in by `byway answers`, then run again."
        )
    M, usage = len(asked.names), kept.usage()
    for name, own in (("ranking", kept.ranking), ("candidates", asked.candidates)):
        whole = np.full((M, M, own.shape[1]), -1, np.int32)
        whole[asked.pairs[:, 0], asked.pairs[:, 1]] = own
        np.save(work.out / f"{name}.npy", whole)
    (work.out / "asked.json").write_bytes(_about(asked, settings))
    named = float((kept.ranking[:, 0] >= 0).mean())
    return Outcome(
        counts={"asked": len(asked)},
        metrics={
            "language.model": settings.model,
            "language.answered": round(named, 4),
            "language.places_named": round(float((kept.ranking >= 0).mean()), 4),
            "language.distinct_outputs": len(np.unique(kept.ranking[:, 0])),
            "language.requests": usage.requests,
            "language.tokens_read": usage.read,
            "language.tokens_written": usage.written,
            "language.refused": usage.refused,
            "language.cost": round(price(usage, settings), 4),
        },
        gates={"answered": Gate(value=named, at_least=0.9)},
    )


def _listed(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more beside it"
