"""A live experiment of one's own: which arms there are, who is dealt to which, and what each of them answers from.

Owns `experiments.toml` in the workspace. Who belongs to an arm follows from a salt and the user's id alone, so that
every worker and host deals alike, before and after a restart. By user and corpus, items are dealt too, in the same
shares, and nobody is shown an item of another arm's corpus: what an arm learns of its items then stays in the arm
(arXiv 2305.07764, section 3). It keeps no log and measures nothing: that is `evaluation.lift`.
"""

import asyncio
import hashlib
import math
import os
import time
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import structlog
from msgspec import Meta
from numpy.typing import NDArray

from byway.base import config
from byway.base.errors import UserError
from byway.base.ranking import top
from byway.serving import bundle, recommend
from byway.serving.answers import Answer, as_shown, popular
from byway.serving.bundle import Bundle
from byway.serving.person import Person, Seen, read

FILE = "experiments.toml"
CONTROL, BYWAY, PAPER, MASKED = "control", "byway", "paper", "masked"
COMPARED = (CONTROL, PAPER, MASKED)
"""What Byway is compared to: they show what they are said to, whatever else the bundle could answer by."""
AA = "_aa"
"""Behind the name of the control for its second half, where an A/A comparison is asked for."""
LOOK = 1.0
"""Seconds between two looks at the file."""

log = structlog.get_logger()

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+(?!\n)$")]


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arm."""

    share: Annotated[float, Meta(gt=0, le=1)]
    serves: str = ""
    """`control`, `byway`, `paper`, `masked`, or the name of a published bundle; empty: what the arm is called."""


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `experiments.toml`."""

    name: Name
    salt: Annotated[str, Meta(min_length=1, max_length=256)]
    arms: Annotated[dict[Name, Arm], Meta(min_length=1)]
    by: Literal["user", "user_and_corpus"] = "user"
    aa: bool = False
    """Whether the control is two arms of half its share each, which must not differ."""

    def shares(self) -> dict[str, float]:
        """The share of every arm, in the order of the file.

        >>> Design("d", "s", {"control": Arm(0.5), "byway": Arm(0.5)}, aa=True).shares()
        {'control': 0.25, 'control_aa': 0.25, 'byway': 0.5}
        """
        found: dict[str, float] = {}
        for name, arm in self.arms.items():
            if self.aa and name == CONTROL:
                found |= {name: arm.share / 2, name + AA: arm.share / 2}
            else:
                found[name] = arm.share
        return found

    def serves(self, arm: str) -> str:
        """What an arm answers from."""
        own = arm.removesuffix(AA) if self.aa else arm
        return self.arms[own].serves or own


def load(workspace: Path) -> Design | None:
    """The design, or None where the workspace has none. Raises UserError for one that cannot be dealt."""
    path = workspace / FILE
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Design)
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is not as documented in docs/lift.md: {error}.") from error
    total = sum(arm.share for arm in found.arms.values())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise UserError(f"{path}: the shares of the arms sum to {total:g}; make it 1.")
    if found.aa and (CONTROL not in found.arms or CONTROL + AA in found.arms):
        raise UserError(
            f"{path}: aa = true parts the arm {CONTROL} in two; give one of that name and no {CONTROL}{AA}."
        )
    return found


def place(salt: str, kind: str, unit: str) -> float:
    """Where in [0, 1) a unit lies: the first 8 bytes of BLAKE2b over salt, kind and id, with a zero byte between.

    >>> place("salt", "user", "ann") == place("salt", "user", "ann") != place("salt", "item", "ann")
    True
    """
    text = "\0".join((salt, kind, unit)).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53


def deal_all(design: Design, units: Iterable[str], kind: Literal["user", "item"]) -> list[str]:
    """The arm of each user, or item where the corpus is dealt too: the first whose shares reach its place."""
    shares = design.shares()
    names, edges = list(shares), list(accumulate(shares.values()))
    last = len(names) - 1  # the shares' rounding may end below 1
    return [names[min(bisect_right(edges, place(design.salt, kind, unit)), last)] for unit in units]


def deal(design: Design, unit: str, kind: Literal["user", "item"] = "user") -> str:
    """The arm of one user or item."""
    return deal_all(design, [unit], kind)[0]


@dataclass(frozen=True, slots=True)
class Dealt:
    """What somebody in the experiment is answered from."""

    experiment: str
    arm: str
    share: float
    """The chance to be dealt to this arm."""
    serves: str
    bundle: Bundle
    name: str
    """Of the bundle."""


class Arms:
    """The arms of one worker, opened as they are needed."""

    def __init__(self, workspace: Path):
        """Raises UserError where the design cannot be dealt, or names a bundle that is not published."""
        self._workspace = workspace
        self._stamp, self._looked = self._stamped(), time.monotonic()
        self._design = self._load()
        self._opened: dict[tuple[str, str], tuple[Bundle, str]] = {}
        self._opening = asyncio.Lock()

    async def dealt(self, user: str, live: Bundle, live_name: str) -> Dealt | None:
        """What a user is answered from; None without an experiment, and for who has no name to be dealt by.

        An arm is opened in a thread, since dealing a million items takes a second.
        """
        self._look()
        design = self._design
        if design is None or not user:
            return None
        arm = deal(design, user)
        opened = self._opened.get((arm, live_name))
        if opened is None:
            async with self._opening:
                opened = self._opened.get((arm, live_name)) if self._design is design else None
                if opened is None:
                    opened = await asyncio.to_thread(self._open, design, arm, live, live_name)
                if self._design is design:  # and no other was taken up meanwhile
                    # Of bundles that are no longer served nothing is kept.
                    kept = {key: value for key, value in self._opened.items() if key[1] == live_name}
                    self._opened = kept | {(arm, live_name): opened}
        return Dealt(design.name, arm, design.shares()[arm], design.serves(arm), *opened)

    def _open(self, design: Design, arm: str, live: Bundle, live_name: str) -> tuple[Bundle, str]:
        found, name = variant(self._workspace, design.serves(arm), live, live_name)
        if design.by == "user_and_corpus":
            items = deal_all(design, (found.ids[i] for i in range(len(found.ids))), "item")
            mine = np.fromiter((dealt == arm for dealt in items), np.bool_, len(items))
            found = replace(found, corpus=mine, eligible_at={})
        return found, name

    def _stamped(self) -> int:
        try:
            return os.stat(self._workspace / FILE).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _look(self) -> None:
        """Take up a design that was written since; one that cannot be dealt changes nothing."""
        if time.monotonic() < self._looked + LOOK:
            return
        self._looked = time.monotonic()
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._design, self._opened = self._load(), {}
        except UserError as error:
            log.error("experiment not taken up", reason=str(error))
        else:
            log.info("experiment taken up", experiment="" if self._design is None else self._design.name)

    def _load(self) -> Design | None:
        found = load(self._workspace)
        for name in named(found):
            require(self._workspace, name)
        return found


def named(design: Design | None) -> list[str]:
    """The published bundles that a design names."""
    ours = (CONTROL, BYWAY, PAPER, MASKED)
    return [] if design is None else [s for s in map(design.serves, design.shares()) if s not in ours]


def require(workspace: Path, name: str, asked: str = "") -> Path:
    """The folder of a published bundle; UserError, beginning with who `asked`, where there is none of this name."""
    folder = workspace / "published" / name
    if not (folder / "manifest.json").exists():
        there = sorted(f.parent.name for f in (workspace / "published").glob("*/manifest.json"))
        asked = asked or f"{workspace / FILE}: an arm serves {name!r}; there are control,"
        raise UserError(f"{asked} byway, paper, masked, and of published bundles {', '.join(there) or 'none'}.")
    return folder


def variant(workspace: Path, serves: str, live: Bundle, live_name: str) -> tuple[Bundle, str]:
    """The bundle that an arm answers from, and its name. `paper` is the served one with paper 1's plan."""
    if serves == PAPER:
        table = live.table if live.model is None else live.model
        settings = replace(live.settings, mode="paper")
        return replace(live, table=table, settings=settings, planner=None, triples=None, eligible_at={}), live_name
    if serves in (CONTROL, BYWAY, MASKED):
        return live, live_name
    return bundle.load(require(workspace, serves)), serves


def lifted(workspace: Path) -> dict[str, Any] | None:
    """What `byway lift` found last, for the pages; None where it was not asked yet."""
    try:
        return msgspec.json.decode((workspace / config.LIFTED).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def answer(
    serves: str,
    opened: Bundle,
    history: list[Seen],
    rng: np.random.Generator,
    k: int,
    now: int | None,
    *,
    exclude: Sequence[str] = (),
    context: str | None = None,
    mix: float = 1.0,
) -> Answer:
    """What an arm answers; as `recommend`, but nothing for the control, which does without Byway."""
    if serves == CONTROL:
        return Answer([], "control", reasons=["This person is of the control, which does without Byway."])
    if serves == MASKED:
        return masked(opened, history, k, now, exclude)
    return recommend.recommend(opened, history, rng, k, now, exclude=exclude, context=context, mix=mix)


def masked(opened: Bundle, history: list[Seen], k: int, now: int | None, exclude: Sequence[str] = ()) -> Answer:
    """The simple thing that Byway has to beat: the item policy's best, interests that somebody has met left out."""
    reasons = list[str]()
    person = read(opened, history, now, exclude, None, reasons)
    if not person.recent:
        return popular(opened, person, k, reasons)
    shown = as_shown(opened, *masked_best(opened, person, k), "masked")
    reasons.append("These fit the history best among the interests that are new to this person.")
    return Answer(shown, "masked", cluster=shown[0].cluster if shown else None, reasons=reasons)


def masked_best(opened: Bundle, person: Person, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The item policy's k best of open clusters: positions, scores."""
    score = np.array(opened.vectors @ opened.encode(person.positions), dtype=np.float32)
    score[~np.repeat(person.open, np.diff(opened.starts))] = -np.inf
    score[person.barred(0, len(opened.ids))] = -np.inf
    best = top(score, k)
    return best, score[best]
