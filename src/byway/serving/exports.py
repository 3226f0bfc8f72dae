"""The log for others: as a table of events in pieces, and counted by experiment and how items were found.

Work on a whole log is cut by people, and done in a thread one piece at a time, so that a worker goes on answering.
It knows no HTTP.
"""

import asyncio
import base64
import csv
import io
import time
from collections.abc import AsyncIterator

from byway.serving import history
from byway.serving.history import Answered, Event
from byway.serving.service import Counts, Service

COLUMNS: tuple[str, ...] = (
    "user", "item", "time", "satisfaction", "watch_seconds", "source", "propensity", "answer",
)  # fmt: skip
HEAD = (",".join(COLUMNS) + "\r\n").encode()
MOST = 1_000_000
"""Events of one person that are exported, the latest."""
PEOPLE = 2000
"""People whose log is counted, at most."""
SECONDS = 2.0
"""For so long people are counted, at most."""
FRESH = 30.0
"""Seconds for which counts are shown again before they are counted anew."""


async def pieces(service: Service, after: str = "") -> AsyncIterator[tuple[str, int, bytes]]:
    """Each person after another: the id, how many rows, and the rows as CSV.

    What is too old is left out, and what the workspace's own log has already (`byway seed`).
    """
    await service.exposures.flush(1.0)
    store, since = service.history, service.oldest()
    async for user in store.users(after):
        async with service.slow:
            events, answers = await store.of(user, since, MOST), await store.answers(user, since, MOST)
            events = [event for event in events if event.source != history.SEEDED]
            rows, text = await asyncio.to_thread(_written, events, answers)
        yield user, rows, text
        await asyncio.sleep(0)  # others are answered between two people


async def page(service: Service, after: str, limit: int) -> tuple[bytes, str]:
    """Whole people, until there are at least so many rows; and after whom it goes on, or empty for nobody."""
    out, rows = [HEAD], 0
    async for user, count, text in pieces(service, after):
        out.append(text)
        rows += count
        if rows >= limit:
            return b"".join(out), user
    return b"".join(out), ""


def cursor(user: str) -> str:
    """A user's id as a word that fits everywhere."""
    return base64.urlsafe_b64encode(user.encode()).decode().rstrip("=")


def user_of(word: str) -> str:
    """What `cursor` was made from; raises ValueError where it is none."""
    return base64.b64decode(word + "=" * (-len(word) % 4), b"-_", validate=True).decode("utf-8")


def _written(events: list[Event], answers: list[Answered]) -> tuple[int, bytes]:
    out = io.StringIO()
    rows = history.as_rows(events, answers)
    csv.DictWriter(out, COLUMNS).writerows(rows)
    return len(rows), out.getvalue().encode("utf-8", "replace")


async def counts(service: Service) -> Counts:
    """Counts by experiment and how items were found, of those who did something last; once for all who ask."""
    async with service.counting:
        if time.monotonic() - service.counted.at >= FRESH:
            service.counted = await _count(service)
    return service.counted


async def _count(service: Service) -> Counts:
    await service.exposures.flush(1.0)
    began, since, store = time.monotonic(), service.oldest(), service.history
    found: dict[tuple[str, str], list[int]] = {}
    people = await store.recent_users(PEOPLE)
    counted = 0
    for user in people:
        if time.monotonic() - began > SECONDS:
            break
        for row in history.as_rows(await store.of(user, since), await store.answers(user, since)):
            origin, _, rest = row["source"].partition(":")
            if origin != "byway" or row["propensity"] is None:
                continue
            name, _, found_by = rest.rpartition(":")
            sums = found.setdefault((name, found_by), [0, 0, 0])
            sums[0] += 1
            sums[1] += row["satisfaction"] > 0
            sums[2] += row["satisfaction"] >= 0.5
        counted += 1
        await asyncio.sleep(0)
    rows = [
        {
            "experiment": name,
            "found_by": found_by,
            "shown": n,
            "met": met,
            "liked": liked,
            "rate": liked / n,
            "error": (liked / n * (1 - liked / n) / n) ** 0.5,
        }
        for (name, found_by), (n, met, liked) in sorted(found.items())
    ]
    return Counts(rows, counted, counted < len(people) or len(people) == PEOPLE, time.monotonic())
