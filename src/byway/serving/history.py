"""What people did and what they were shown: the two kinds of rows, and the log that is made of both.

Where they are kept is the business of `stores`. An event that was acknowledged is on disk; one that comes again
under its id changes nothing; what is older than the setting `serving.forget_days` is dropped. It knows no bundle:
items are ids, times are microseconds since 1970.
"""

import hashlib
from bisect import bisect_right
from typing import Any

import msgspec

DAY = 86_400_000_000
"""Microseconds."""

LATE = 3_600_000_000
"""Microseconds for which an answer may be on its way to the log. So long a store remembers a hash of the name of
who was deleted, so that nothing from before the deletion is written after it."""

LIMIT = 500
"""Events of a user that an answer reads: ten times what an item policy reads by default."""


SEEDED = "byway:seed"
"""The source of events that `byway seed` took from the workspace's own log."""


class Event(msgspec.Struct, frozen=True):
    """A person met an item."""

    event: str
    """Id given by the platform; unique for its user."""
    user: str
    item: str
    time: int
    satisfaction: float = 1.0
    """In [0, 1]; 0 is a skip."""
    watch_seconds: float | None = None
    source: str = ""
    answer: str = ""
    """Id of the answer that showed the item, where one did."""


class Exposure(msgspec.Struct, frozen=True, array_like=True):
    """One item that was shown, and how likely that was."""

    item: str
    found_by: str
    propensity: float
    cluster: str


class Answered(msgspec.Struct, frozen=True):
    """All that one answer showed."""

    answer: str
    user: str
    time: int
    experiment: str
    bundle: str
    interests: list[str]
    shown: list[Exposure]
    arm: str = ""
    """Of a live experiment of one's own (`arms`), to which the user was dealt; empty without one."""
    share: float = 1.0
    """The chance to be dealt to that arm."""


def hashed(user: str) -> bytes:
    """What a deleted user is remembered by for a while."""
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Unavailable(Exception):
    """The store does not answer; what was asked may not have been done."""


def as_rows(events: list[Event], answers: list[Answered]) -> list[dict[str, Any]]:
    """One user's part of the log in the columns of an events table, in order of time. Both are given in that order.

    Every exposure is a row: with the satisfaction of the event that it led to, or with 0. An event belongs to the
    answer that it names, else to the latest before it that showed the item. `source` is `byway:` with the
    experiment (and the arm that the user was dealt to) and how the item was found; other events keep theirs.
    """
    shown = {(a.answer, e.item): (a, e) for a in answers for e in a.shown}
    latest: dict[str, tuple[list[int], list[str]]] = {}
    for answered in answers:
        for exposure in answered.shown:
            times, names = latest.setdefault(exposure.item, ([], []))
            times.append(answered.time)
            names.append(answered.answer)
    led: dict[tuple[str, str], Event] = {}
    rows: list[dict[str, Any]] = []
    for event in events:
        named = event.answer
        if not named and event.item in latest:
            times, names = latest[event.item]
            before = bisect_right(times, event.time)
            named = names[before - 1] if before else ""
        key = (named, event.item)
        if key in shown and key not in led:
            led[key] = event
        else:
            rows.append(_row(event, event.source))
    for key, (answered, exposure) in shown.items():
        event = led.get(key, Event("", answered.user, exposure.item, answered.time, 0.0))
        dealt = f"{answered.experiment}/{answered.arm}" if answered.arm else answered.experiment
        source = f"byway:{dealt}:{exposure.found_by}"
        rows.append(_row(event, source, exposure.propensity, answered.answer))
    return sorted(rows, key=lambda row: row["time"])


def _row(event: Event, source: str, propensity: float | None = None, answer: str = "") -> dict[str, Any]:
    return {
        "user": event.user,
        "item": event.item,
        "time": event.time,
        "satisfaction": event.satisfaction,
        "watch_seconds": event.watch_seconds,
        "source": source,
        "propensity": propensity,
        "answer": answer,
    }
