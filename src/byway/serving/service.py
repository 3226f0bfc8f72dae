"""What one worker holds: the bundle that is served, the history, and how a request is answered from both.

It knows no HTTP. A bundle is taken up by replacing one reference: a request that has begun ends on the bundle with
which it began.
"""

import asyncio
import gc
import math
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

from byway.base import config
from byway.base.errors import UserError
from byway.items.restrict import top_in_slice
from byway.serving import arms, bundle, context, history, hosts, meters, publish, stores
from byway.serving.answers import ITEMS, Answer, Shown, as_shown
from byway.serving.arms import Dealt
from byway.serving.bundle import Bundle, Level
from byway.serving.exposures import Exposures
from byway.serving.history import DAY, Answered, Event, Exposure
from byway.serving.messages import Explanation, Item, RecommendRequest, Reply, Taken
from byway.serving.person import Seen
from byway.serving.recommend import explain

LOOK = 0.25
"""Seconds between two looks at which bundle is published."""
HEAR = 1.0
"""Seconds between two looks at what another host has published."""
PATIENCE = 60.0
"""Seconds, at most, until a bundle that could not be taken up is tried again."""
TIDY = 3600.0
"""Seconds between two rounds of forgetting."""
DRAIN = 3.0
"""Seconds, at most, for which a worker that ends goes on writing what was shown."""
SCRUB = 5.0
"""Seconds between two looks whether bytes of deleted people are to be overwritten."""
EXPERIMENT = "byway"
"""What answers and the log carry in the place of an experiment's name, for who is in none."""
SMALL = 200_000
"""Items up to which a page may score the whole catalog: 40 ms for a million."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Live:
    """A bundle that is served."""

    name: str
    bundle: Bundle
    folder: Path
    since: float
    """When it was taken up, in seconds since 1970."""

    @cached_property
    def levels(self) -> list[Level]:
        """The tree, for the pages."""
        return bundle.load_levels(self.folder)

    @cached_property
    def figures(self) -> publish.Figures:
        """What the run that made the bundle measured."""
        return msgspec.json.decode((self.folder / publish.FIGURES).read_bytes(), type=publish.Figures)


@dataclass
class Counts:
    """What was shown and liked."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    people: int = 0
    cut: bool = False
    """Whether there are more people than were counted."""
    at: float = -math.inf
    """When that was, by the monotonic clock."""


def guest(answer: str) -> str:
    """Under which name an answer to nobody in particular is logged."""
    return f"guest:{answer}"


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def settle() -> None:
    """Spare the garbage collector what lasts, the modules and the bundle: a walk over them takes 40 ms."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def open_current(workspace: Path) -> Live:
    """Open what is published."""
    found = publish.current(workspace)
    if found is None:
        raise UserError(f"Nothing is published in {workspace} yet.")
    folder = workspace / publish.FOLDER / found.bundle
    return Live(found.bundle, bundle.load(folder), folder, time.time())


def _item(shown: Shown, interests: list[str], experiment: str) -> Item:
    return Item(interests=interests, experiment=experiment, **msgspec.structs.asdict(shown))


class Service:
    """One worker's state."""

    def __init__(self, workspace: Path, settings: config.Serving):
        self.workspace, self.settings = workspace, settings
        self.live = open_current(workspace)
        self.arms = arms.Arms(workspace)
        confirmed = settings.exposures == "confirmed"
        self.history = stores.open(settings.history, workspace / "serving", settings.forget_days, confirmed)
        self.exposures = Exposures(self.history)
        self.slow, self.counting = asyncio.Semaphore(1), asyncio.Lock()
        """What takes long is done one by one; what is counted, once for all who ask."""
        self.counted = Counts()
        self.rng = np.random.default_rng(secrets.randbits(128))

    async def answer(
        self, asked: RecommendRequest, experiment: str | None = None, *, shown: list[Answered]
    ) -> Reply:
        """Answer a request, under the setting's experiment unless another is named.

        What it shows is added to `shown`, for `exposures` once it is delivered.
        """
        live, at, user = self.live, now(), asked.user or ""
        if asked.history is not None:
            seen = [Seen(met.item, met.time, met.satisfaction) for met in asked.history]
        else:
            seen = await self.seen(user, at) if user else []
        # A walk through the pages belongs to no arm.
        dealt = await self.arms.dealt(user, live.bundle, live.name) if experiment is None else None
        if dealt is None:
            dealt = Dealt(experiment or EXPERIMENT, "", 1.0, arms.BYWAY, live.bundle, live.name)
        k = ITEMS if asked.k is None else asked.k
        given = self._answer(dealt, asked, seen, k, at)
        items = [_item(shown, given.interests, dealt.experiment) for shown in given.items]
        own: dict[str, Any] = msgspec.structs.asdict(given) | {"items": items}
        named = secrets.token_hex(12)
        reply = Reply(named, dealt.experiment, dealt.name, arm=dealt.arm, share=dealt.share, **own)
        shown.append(
            Answered(
                answer=reply.answer,
                user=user or guest(reply.answer),  # who is not named is a guest of this answer alone
                time=at,
                experiment=reply.experiment,
                bundle=reply.bundle,
                interests=reply.interests,
                shown=[Exposure(i.item, i.found_by, i.propensity, i.cluster) for i in reply.items],
                arm=reply.arm,
                share=reply.share,
            )
        )
        meters.answers.labels(given.strategy).inc()
        for found_by, count in Counter(item.found_by for item in given.items).items():
            meters.items.labels(found_by).inc(count)
        if len(given.items) < k and given.strategy != "control":
            meters.short.inc()
        return reply

    def _answer(self, dealt: Dealt, asked: RecommendRequest, seen: list[Seen], k: int, at: int) -> Answer:
        """What is seen in an item that is watched leads on, where the context table has an item for it and the arm
        is none of those that Byway is compared to."""
        watching, opened = asked.watching, dealt.bundle
        looks = dealt.serves not in arms.COMPARED and opened.context_clusters is not None
        if looks and watching is not None and opened.position(watching) is not None:
            found = context.recommend(opened, watching, seen, k, at, asked.exclude)
            if found.items:
                return found
        return arms.answer(
            dealt.serves,
            opened,
            seen,
            self.rng,
            k,
            at,
            exclude=asked.exclude,
            context=watching or asked.context,
            mix=asked.mix,
        )

    async def seen(self, user: str, at: int) -> list[Seen]:
        """What a user did in the days that are kept, the most recent last."""
        events = await self.history.of(user, self.oldest(at))
        return [Seen(e.item, e.time, e.satisfaction) for e in events]

    async def explain(self, user: str, watched: str | None = None) -> Explanation:
        """What an answer to a user is drawn from.

        It takes long where there are many interests, so one is worked out at a time, beside the answers.
        """
        at = now()
        seen = await self.seen(user, at)
        async with self.slow:
            return await asyncio.to_thread(explain, self.live.bundle, seen, at, watched)

    def oldest(self, at: int | None = None) -> int:
        """Microseconds since 1970: what lies before is dropped, and neither read nor exported until then."""
        return (now() if at is None else at) - self.settings.forget_days * DAY

    async def delete(self, user: str) -> int:
        """Delete everything of a user, also what is still on its way to the log; how many rows."""
        self.exposures.forget(user)
        return await self.history.delete(user)

    async def usual(self, user: str, k: int) -> list[Item]:
        """What the item policy alone would show: its best of the whole catalog."""
        live = self.live
        seen = await self.seen(user, now())
        positions = [p for p in live.bundle.positions([s.item for s in seen]) if p is not None]
        if not positions or len(live.bundle.ids) > SMALL:
            return []
        barred, n = np.unique(np.array(positions)), len(live.bundle.ids)
        async with self.slow:
            user_D = await asyncio.to_thread(live.bundle.encode, positions)
            best = await asyncio.to_thread(top_in_slice, live.bundle.vectors, user_D, 0, n, k, exclude=barred)
        return [_item(s, [], "") for s in as_shown(live.bundle, *best, "usual")]

    async def store(self, events: list[Event]) -> Taken:
        """Take events in; what became of them."""
        oldest = self.oldest()
        young = [e for e in events if e.time >= oldest]
        new = sum(await self.history.add(young)) if young else 0
        taken = Taken(new, len(young) - new, len(events) - len(young))
        for result, count in msgspec.structs.asdict(taken).items():
            if count:
                meters.events.labels(result).inc(count)
        return taken

    async def follow(self) -> None:
        """Take up what is published, for as long as the worker lives."""
        refused, pause, at = "", 0.0, 0.0
        while True:
            await asyncio.sleep(LOOK)
            wanted = ""
            try:
                found = publish.current(self.workspace)
                wanted = self.live.name if found is None else found.bundle
                if wanted != refused:
                    refused, pause = "", 0.0
                if wanted == self.live.name or (refused and time.monotonic() < at):
                    continue
                self.live = await asyncio.to_thread(open_current, self.workspace)
                settle()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old bundle goes on answering
                meters.failed.inc()
                log.error("bundle not taken up", reason=str(error))
                refused, pause = wanted, min(2 * pause or LOOK, PATIENCE)
                at = time.monotonic() + pause
                continue
            refused, pause = "", 0.0
            meters.switches.inc()
            log.info("bundle taken up", bundle=self.live.name)

    async def hear(self) -> None:
        """Have this host serve what another one published, for as long as the worker lives."""
        while hosts.shared(self.settings):
            await asyncio.sleep(HEAR * (0.5 + self.rng.random()))
            try:
                if await asyncio.to_thread(hosts.take, self.workspace, self.settings):
                    log.info("bundle of another host")
            except Exception as error:  # noqa: BLE001 - whatever it is, the old bundle goes on answering
                log.error("bundle of another host not taken", reason=str(error))

    async def tidy(self) -> None:
        """Forget what is too old, for as long as the worker lives."""
        while True:
            try:
                gone = await self.history.forget(self.oldest())
            except history.Unavailable as error:
                log.error("nothing forgotten", reason=str(error))
            else:
                log.info("forgotten", rows=gone)
            # Not all workers at once.
            await asyncio.sleep(TIDY * (0.5 + self.rng.random()))

    async def scrub(self) -> None:
        """Overwrite what deleted people left in files, for as long as the worker lives."""
        while True:
            await asyncio.sleep(SCRUB * (0.5 + self.rng.random()))
            try:
                if await self.history.scrub():
                    log.info("files rewritten without the deleted")
            except history.Unavailable as error:
                log.error("files not rewritten", reason=str(error))

    async def close(self, tasks: Sequence[asyncio.Task[None]] = ()) -> None:
        """Finish what was handed in, as far as the history takes it, and end the worker's tasks."""
        await self.exposures.flush(DRAIN)
        left = self.exposures.left()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        meters.exposures.labels("dropped").inc(left)
        await self.history.close()
