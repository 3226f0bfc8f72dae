"""What was shown, on its way to the log: an answer does not wait for it, and does not fail with it.

A bounded queue in each worker. While the history does not answer, exposures wait; those for which there is no room,
or that have waited for too long, are dropped and counted. It knows no HTTP: who calls decides when an answer counts
as shown.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from byway.serving import meters
from byway.serving.history import LATE, Answered, Unavailable

if TYPE_CHECKING:
    from byway.serving.stores import Files
    from byway.serving.valkey import Valkey

ROOM = 10_000
"""Answers that wait at most: about 20 MB."""
BATCH = 500
PAUSE = 5.0
"""Seconds, at most, until a history that did not answer is asked again."""

log = structlog.get_logger()


class Exposures:
    """The queue of one worker."""

    def __init__(self, store: "Files | Valkey", room: int = ROOM, now: Callable[[], float] = time.time):
        self._store, self._room, self._now = store, room, now
        self._waiting: deque[Answered] = deque()
        self._writing = 0
        self._some, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()

    def put(self, answered: Answered) -> None:
        """Hand in what was shown; dropped where the queue is full."""
        if len(self._waiting) + self._writing >= self._room:
            meters.exposures.labels("dropped").inc()
            return
        self._waiting.append(answered)
        self._none.clear()
        self._some.set()

    def forget(self, user: str) -> None:
        """Drop what waits of a user who is deleted. What is being written at this moment the store keeps out."""
        self._waiting = deque(a for a in self._waiting if a.user != user)

    async def flush(self, seconds: float) -> bool:
        """Wait until all that was handed in is in the log, for so long at most; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write what comes, for as long as the worker lives."""
        pause = 0.0
        while True:
            if not self._waiting:
                self._some.clear()
                self._none.set()
                await self._some.wait()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._writing = len(batch)
            try:
                await self._store.expose(*batch)
            except Unavailable as error:
                if not pause:
                    log.error("exposures wait", reason=str(error), waiting=len(self._waiting) + len(batch))
                young = [a for a in batch if a.time > 1_000_000 * self._now() - LATE]
                meters.exposures.labels("dropped").inc(len(batch) - len(young))
                self._waiting.extendleft(reversed(young))
                self._writing = 0
                pause = min(2 * pause or 0.1, PAUSE)
                await asyncio.sleep(pause)
            else:
                meters.exposures.labels("logged").inc(len(batch))
                pause = 0.0
            finally:
                self._writing = 0

    def left(self) -> int:
        """Answers that are not in the log yet."""
        return len(self._waiting) + self._writing
