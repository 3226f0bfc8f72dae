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
from byway.simulation.arms import ArmContext
from byway.simulation.chance import Chance
from byway.simulation.platform import Environment, Impressions, LiveSettings, live
from byway.simulation.simulated import Simulated
from byway.simulation.source import Flags, Ints
from byway.simulation.tallies import Tally, tally

CANDIDATES = 20
"""Items that each source names a visit."""
BLUR = 0.05
"""Deviation of the noise on the ranker's score of satisfaction: no ranker knows it exactly."""
WINDOW = 10
"""Days of a window in which the concentration of traffic is measured."""
AGAIN = "_again"
"""Ends the name of a run that repeats an arm with other chance."""
KEPT = 30
"""An interest was kept if it pleased within so many days of the end."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that runs share."""

    context: ArmContext
    environment: Environment
    """The people on the first morning; every run gets a copy."""
    users: Ints
    """Who can take part, ascending."""
    missing: Flags
    """[N] items that nobody can be shown, or [U, N] those that not everybody can be."""
    bucket: Ints | None
    """[N] bucket of visual interest of each item; None where no item has been looked at."""
    scratch: Path
    """Where runs that are done are kept."""

    @property
    def settings(self) -> config.Experiment:
        return self.context.sections.experiment

    @property
    def there(self) -> Flags:
        """[N] items that somebody can be shown."""
        return np.asarray((~np.atleast_2d(self.missing)).any(0))


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


def run_arm(setup: Setup, trained: dict[str, Any], name: str, users: Ints, seed: int, kind: str) -> Run:
    """Live one arm, or take what an interrupted experiment has lived already.

    `kind` is "" or "chance", where the liking of what is undiscovered is permuted first. In the paired design runs
    of one seed share their chance, but for one whose name ends in `AGAIN`: the same arm with other chance.
    """
    settings, context, arm = setup.settings, setup.context, name.removesuffix(AGAIN)
    path = setup.scratch / f"run{kind}-{settings.design}-{name}-{seed}.npz"
    n = context.log.n_users
    if not path.exists():
        environment = copy.deepcopy(setup.environment)
        if kind and isinstance(environment, Simulated):
            simulated.liked_by_chance(environment, np.random.default_rng([seed, 7]))
        shown = live(
            environment,
            context.known,
            context.log,
            setup.missing,
            arms.source(arm, context, trained, seed),
            users,
            settings=LiveSettings(settings.days, settings.share, CANDIDATES, BLUR),
            rng=np.random.default_rng([seed, zlib.crc32(name.encode())]),
            follows=arm in arms.FOLLOWS,
            chance=Chance((seed, int(arm != name))) if settings.design == "paired" else None,
        )
        arrays = {f.name: getattr(shown, f.name) for f in fields(Impressions)}
        if isinstance(environment, Simulated):
            arrays["interests"] = np.stack(environment.found(users, KEPT))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())
    with np.load(path) as saved:
        shown = Impressions(*(saved[f.name] for f in fields(Impressions)))
        interests = saved.get("interests")
    known = context.known
    figures = tally(
        shown,
        users,
        n,
        settings.days,
        cluster=known.cluster[shown.item],
        n_clusters=known.n_clusters,
        positive=known.positive,
        vectors=known.vectors[shown.item],
        bucket=setup.bucket,
    )
    if interests is not None:
        wanted, discovered, kept = (np.bincount(users, row, n).astype(np.float64) for row in interests)
        figures["interests_found"] = discovered, wanted
        figures["interests_kept"] = kept, wanted
    part, daily = setup.users, _daily(shown, n, settings.days, context.known.positive)
    return Run(
        {name: (top[part], below[part]) for name, (top, below) in figures.items()},
        {name: value[:, part] for name, value in daily.items()},
        *_traffic(setup, shown),
        np.searchsorted(part, users),
    )


def _daily(shown: Impressions, n: int, days: int, good: float) -> dict[str, np.ndarray]:
    """Seconds watched and events of at least the satisfaction `good`, day by day and user by user."""
    seconds, positive = np.zeros((days, n), np.float32), np.zeros((days, n), np.float32)
    np.add.at(seconds, (shown.day, shown.user), shown.seconds)
    np.add.at(positive, (shown.day, shown.user), shown.satisfaction >= good)
    return {"watch": seconds, "over_ten": (seconds >= 600).astype(np.float32), "engaged": positive}


def _traffic(setup: Setup, shown: Impressions) -> tuple[np.ndarray, np.ndarray]:
    """Concentration of the feed's traffic by window of days, and impressions of the feed by item."""
    fed, n = shown.nominators > 0, setup.context.known.n_items
    # Whole windows only: in a short one traffic looks more concentrated than it is.
    starts = range(0, max(1, setup.settings.days - WINDOW + 1), WINDOW)
    there = setup.there
    found = [
        metrics.gini(np.bincount(shown.item[fed & (shown.day >= s) & (shown.day < s + WINDOW)], minlength=n)[there])
        for s in starts
    ]
    return np.array(found), np.bincount(shown.item[fed], minlength=n)
