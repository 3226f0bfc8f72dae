"""One arm over one segment: lived once, kept in the scratch, and summed up by user.

An interrupted experiment takes what is there. This module compares nothing.
"""

import copy
import io
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config, metrics
from byway.base.artifact import write_atomic
from byway.simulation import arms, simulated
from byway.simulation.arms import Kit
from byway.simulation.platform import Impressions, Nature, live
from byway.simulation.simulated import Simulated
from byway.simulation.source import Flags, Ints
from byway.simulation.tallies import Tally, tally

WINDOW = 10
"""Days of a window in which the concentration of traffic is measured."""
KEPT = 30
"""An interest was kept if it pleased within so many days of the end."""


@dataclass(frozen=True, slots=True)
class Setting:
    """All that runs share."""

    kit: Kit
    nature: Nature
    """The people on the first morning; every run gets a copy."""
    users: Ints
    """Who can take part, ascending."""
    missing: Flags
    """[N] items that nobody can be shown."""
    bucket: Ints | None
    """[N] bucket of visual interest of each item; None where no item has been looked at."""
    knobs: config.Experiment
    scratch: Path
    """Where runs that are done are kept."""


@dataclass(frozen=True, slots=True)
class Run:
    """One arm over one segment. U counts the people who can take part, whichever segment they are in."""

    tally: Tally
    daily: dict[str, np.ndarray]
    """[days, U] by metric, numerators a user in the segment."""
    traffic: np.ndarray
    """[windows] Gini coefficient of the items' traffic."""
    items: np.ndarray
    """[N] impressions of the feed."""
    users: Ints
    """Places of the segment's people among the U."""


def run_arm(setting: Setting, trained: dict[str, Any], name: str, users: Ints, seed: int, kind: str) -> Run:
    """Live one arm, or take what an interrupted experiment has lived already.

    `kind` is "" or "chance", where the liking of what is undiscovered is permuted first.
    """
    path = setting.scratch / f"run{kind}-{name}-{seed}.npz"
    n = setting.kit.log.n_users
    if not path.exists():
        nature = copy.deepcopy(setting.nature)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if kind and isinstance(nature, Simulated):
            simulated.liked_by_chance(nature, np.random.default_rng([seed, 7]))
        source = arms.source(name.removesuffix("_again"), setting.kit, trained, seed)
        shown = _live(setting, nature, source, users, rng)
        arrays = {f.name: getattr(shown, f.name) for f in fields(Impressions)}
        if isinstance(nature, Simulated):
            arrays["interests"] = np.stack(nature.found(users, KEPT))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())
    with np.load(path) as saved:
        shown = Impressions(*(saved[f.name] for f in fields(Impressions)))
        interests = saved.get("interests")
    figures = tally(shown, users, n, setting.knobs.days, setting.kit.known, setting.bucket)
    if interests is not None:
        wanted, discovered, kept = (np.bincount(users, row, n).astype(np.float64) for row in interests)
        figures["interests_found"] = discovered, wanted
        figures["interests_kept"] = kept, wanted
    part = setting.users
    return Run(
        {name: (top[part], below[part]) for name, (top, below) in figures.items()},
        {name: value[:, part] for name, value in _daily(shown, n, setting.knobs.days).items()},
        *_traffic(setting, shown),
        np.searchsorted(part, users),
    )


def _live(setting: Setting, nature: Nature, source: Any, users: Ints, rng: np.random.Generator) -> Impressions:
    knobs, kit = setting.knobs, setting.kit
    return live(
        nature,
        kit.known,
        kit.log,
        setting.missing,
        source,
        users,
        rng,
        days=knobs.days,
        share=knobs.share,
        candidates=knobs.candidates,
        blur=knobs.blur,
    )


def _daily(shown: Impressions, n: int, days: int) -> dict[str, np.ndarray]:
    """Seconds watched and positive events, day by day and user by user."""
    seconds, positive = np.zeros((days, n), np.float32), np.zeros((days, n), np.float32)
    np.add.at(seconds, (shown.day, shown.user), shown.seconds)
    np.add.at(positive, (shown.day, shown.user), shown.satisfaction >= 0.5)
    return {"watch": seconds, "over_ten": (seconds >= 600).astype(np.float32), "engaged": positive}


def _traffic(setting: Setting, shown: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """Concentration of the feed's traffic by window of days, and impressions of the feed by item."""
    fed, n = shown.nominators > 0, setting.kit.known.n_items
    # Whole windows only: in a short one traffic looks more concentrated than it is.
    starts = range(0, max(1, setting.knobs.days - WINDOW + 1), WINDOW)
    there = ~setting.missing
    found = [
        metrics.gini(np.bincount(shown.item[fed & (shown.day >= s) & (shown.day < s + WINDOW)], minlength=n)[there])
        for s in starts
    ]
    return np.array(found), np.bincount(shown.item[fed], minlength=n)
