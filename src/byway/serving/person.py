"""Who asks: a history as a bundle reads it, before anything is drawn or chosen.

Pure functions. What a person has consumed at any time is met and never new; the interests that are looked up in the
tables are those of the last days.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byway.planner import page
from byway.serving.bundle import Bundle, Eligible
from byway.serving.history import DAY
from byway.transitions import draws


@dataclass(frozen=True, slots=True)
class Seen:
    """One item of a history."""

    item: str
    time: int | None = None
    """Microseconds since 1970; None where it is not known."""
    satisfaction: float = 1.0
    """In [0, 1]; weighs the draw of interests."""


@dataclass(frozen=True, slots=True)
class Person:
    """What a bundle makes of a history, before anything is drawn."""

    positions: list[int]
    """Items that the catalog knows, the most recent last; with the item being watched, where there is one."""
    recent: list[tuple[Seen, int]]
    """What interests are drawn from."""
    context: int | None
    """Cluster of the item being watched."""
    apart: NDArray[np.int64]
    """Positions that are seen or excluded, in order."""
    eligible: Eligible
    open: NDArray[np.bool_]
    """[M] clusters that are novel to this person, or offered further as such, and have items left to show."""
    left: NDArray[np.bool_]
    """[M] clusters that have items left to show, novel or not."""
    liked: NDArray[np.float32]
    """[h] satisfaction with each item of the history, without the one being watched."""

    def barred(self, start: int, stop: int) -> NDArray[np.int64]:
        """Positions of a slice that are not shown: seen, excluded, too old or of too little quality."""
        if self.eligible.mask is None:
            return self.apart
        unfit = start + np.flatnonzero(~self.eligible.mask[start:stop])
        return np.union1d(self.apart[(self.apart >= start) & (self.apart < stop)], unfit)


def read(
    bundle: Bundle,
    history: list[Seen],
    now: int | None,
    exclude: Sequence[str],
    context: str | None,
    reasons: list[str],
) -> Person:
    """Look a history up. Sentences on what is ignored are added to `reasons`."""
    known = in_catalog(bundle, history)
    if len(known) < len(history):
        unknown = len(history) - len(known)
        reasons.append(f"{unknown} of {len(history)} items in the history are not in the catalog and are ignored.")
    watched = None if context is None else bundle.position(context)
    out = [p for p in bundle.positions(exclude) if p is not None]
    person = person_of(bundle, known, now, out, watched, reasons)
    if context is not None and watched is None:
        reasons.append("The item being watched is not in the catalog and is ignored.")
    return person


def in_catalog(bundle: Bundle, history: Sequence[Seen]) -> list[tuple[Seen, int]]:
    """What of a history the catalog knows, with its positions."""
    at = bundle.positions([s.item for s in history])
    return [(s, p) for s, p in zip(history, at, strict=True) if p is not None]


def person_of(
    bundle: Bundle,
    known: list[tuple[Seen, int]],
    now: int | None,
    out: list[int],
    watched: int | None,
    reasons: list[str],
) -> Person:
    """Who has the history `known`; the positions `out` are not shown, and `watched` is the one being watched."""
    positions = [p for _, p in known]
    is_recent = np.array([_recent(s, now, bundle.settings.days) for s, _ in known], np.bool_)
    if known and not is_recent.any():
        reasons.append(f"Nothing in the last {bundle.settings.days} days, so the whole history counts as recent.")
    clusters = bundle.clusters(np.array(positions, dtype=np.int64))
    drawn_from = draws.drawn_from(clusters, is_recent, bundle.interests)
    recent = [known[i] for i in np.flatnonzero(drawn_from).tolist()]
    if watched is not None:
        positions = [*positions, watched]
    eligible = bundle.eligible(now)
    apart = np.unique(np.array(positions + out, dtype=np.int64))
    unseen = eligible.counts.copy()
    counted = apart if eligible.mask is None else apart[eligible.mask[apart]]
    np.subtract.at(unseen, bundle.clusters(counted), 1)
    left = unseen > 0
    opened = left.copy()
    opened[bundle.clusters(np.array(positions, dtype=np.int64))] = False
    if now is not None and watched is None:
        opened |= left & _offered_further(bundle, known, now)
    watching = None if watched is None else bundle.cluster(watched)
    liked = np.array([seen.satisfaction for seen, _ in known], dtype=np.float32)
    return Person(positions, recent, watching, apart, eligible, opened, left, liked)


def _offered_further(bundle: Bundle, known: list[tuple[Seen, int]], now: int) -> NDArray[np.bool_]:
    """[M] interests that were met and are young, or may be tried again (`bundle.young_days`, `bundle.again_days`).

    In the mode `person` alone. One that somebody met at a time that is not known is neither.
    """
    settings, M = bundle.settings, len(bundle.manifest.names)
    if bundle.planner is None or settings.mode != "person" or not (settings.young_days or settings.again_days):
        return np.zeros(M, np.bool_)
    met = np.array(clusters_of(bundle, known), dtype=np.int64)
    timed = np.array([seen.time is not None for seen, _ in known], dtype=np.bool_)
    time = np.array([seen.time or 0 for seen, _ in known], dtype=np.int64)
    pleased = np.array([seen.satisfaction for seen, _ in known]) >= bundle.planner.fitted.positive
    young, again = settings.young_days * DAY, settings.again_days * DAY
    found = page.offered(met[timed], time[timed], pleased[timed], M, now, young=young, again=again)
    found[met[~timed]] = False
    return found


def clusters_of(bundle: Bundle, recent: list[tuple[Seen, int]]) -> list[int]:
    return bundle.clusters(np.array([position for _, position in recent], dtype=np.int64)).tolist()


def shares(bundle: Bundle, person: Person) -> dict[int, float]:
    """Share of the draw of each recent interest, in the order in which they were last met."""
    satisfaction = np.array([seen.satisfaction for seen, _ in person.recent])
    return draws.shares(np.array(clusters_of(bundle, person.recent)), satisfaction)


def _recent(seen: Seen, now: int | None, days: int) -> bool:
    return now is None or seen.time is None or seen.time > now - days * DAY
