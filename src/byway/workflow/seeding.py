"""`byway seed`: what the service knows of people on its first day, out of the workspace's own log.

Owns how the log's events become events of the history. Each has an id that follows from its place in its user's
log, so that seeding again adds what has come since and nothing twice. In the history it stands as any other event;
where the service's log is exported (`serving.exports`) it is left out, since the workspace's log has it already.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import artifact
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.serving import stores
from byway.serving.history import DAY, LIMIT, SEEDED, Event, Unavailable
from byway.workflow.artifacts import Artifacts

TOGETHER = 5000
"""Events that are written together."""


def seed(workspace: Path, config: Config) -> dict[str, Any]:
    """Add the last events of everybody; how many events, of how many people, and how many were older.

    Of each user the latest `LIMIT` within `serving.forget_days`: no answer reads more. A log without a clock is
    taken to end now, in its own order. Raises UserError where all of the log is older, and where the history does
    not answer.
    """
    with artifact.locked(workspace):
        built = Artifacts(workspace)
        log, users, ids = built.events, built.users, built.catalog.ids()
    now = time.time_ns() // 1000
    moment = log.time if log.clock else now - np.arange(len(log.user))[::-1]
    starts = np.searchsorted(log.user, np.arange(len(users) + 1)).tolist()
    oldest = now - config.serving.forget_days * DAY
    if len(moment) and int(moment.max()) < oldest:
        raise UserError(
            f"The log ends over {config.serving.forget_days} days ago, and the history forgets what is as old; "
            "raise serving.forget_days."
        )

    async def add() -> tuple[int, int]:
        added, people, waiting = 0, 0, list[Event]()
        async with stores.opened(config.serving, workspace / "serving") as store:
            with bar("people", len(users)) as advance:
                for user, start, stop in zip(users, starts[:-1], starts[1:], strict=True):
                    first = max(start, stop - LIMIT)
                    recent = [i for i in range(first, stop) if oldest <= moment[i] <= now]
                    people += bool(recent)
                    for i in recent:
                        name, item, liked = f"log-{i - start}", ids[log.item[i]], float(log.satisfaction[i])
                        waiting.append(Event(name, user, item, int(moment[i]), liked, source=SEEDED))
                    advance(1)
                    if len(waiting) >= TOGETHER:
                        added, waiting = added + sum(await store.add(waiting)), []
                return added + sum(await store.add(waiting) if waiting else ()), people

    try:
        added, people = asyncio.run(add())
    except Unavailable as error:
        raise UserError(f"{error} Nothing is lost: type the same command when it answers again.") from error
    return {"added": added, "users": people, "older": int((moment < oldest).sum())}


def in_words(found: dict[str, Any]) -> str:
    """What was added."""
    text = f"{found['added']:,} events were added; the history knows {found['users']:,} people of the log."
    if found["older"]:
        text += f" {found['older']:,} events are older than serving.forget_days and stay out."
    return text
