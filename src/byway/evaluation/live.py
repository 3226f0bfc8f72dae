"""From the log of a live experiment to its figures: what the papers drew, for every arm beside the control.

Owns the log as arrays and the object that `byway lift` prints. The sums a user are those of the simulated
experiment (`simulation.tallies`), the statistics those of `lift`. It reads no file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.evaluation import lift as statistics
from byway.evaluation.lift import EFFECT, LIFTS, Lift, Ratio
from byway.simulation.platform import ARM, Impressions
from byway.simulation.tallies import Tally, tally

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

OTHERS = 1
"""Bit in `Impressions.nominators` of whatever named an item beside the arm's source."""
NOT_OF_A_DAY = ("engaged_pairs", "new_clusters", "uci_")
"""Beginnings of figures that are no sums over days."""
UNKNOWN = ("unmet_positive_rate",)
"""Figures for which a log says too little."""


@dataclass(frozen=True, slots=True)
class LiveLog:
    """n impressions and events, in order of time, of U users."""

    user: Ints
    """[n]"""
    item: Ints
    """[n]"""
    cluster: Ints
    """[n] of the item; -1 where it is not known."""
    day: Ints
    """[n] since the experiment began, from 0."""
    satisfaction: NDArray[np.float64]
    """[n] in [0, 1]."""
    seconds: NDArray[np.float64]
    """[n] watched."""
    own: Flags
    """[n] whether the arm's source named the item; else it was watched without it."""
    novel: Flags
    """[n] whether the user had never met the cluster before that day."""
    sole: Flags | None
    """[n] whether nobody but the arm's source named it, where the log says."""
    arm: Ints
    """[U] of each user, in `arms`."""
    arms: list[str]
    shares: list[float]
    """By arm."""

    def __len__(self) -> int:
        return len(self.user)


def novelty(user: Ints, cluster: Ints, day: Ints, met: Flags, before: tuple[Ints, Ints]) -> Flags:
    """[n] whether the user had never met the cluster before that day.

    `met` [n] says which rows are meetings: what is shown and passed over is none. `before` are users and clusters
    of what was met before the experiment. Rows of an unknown cluster (-1) are not new.

    >>> user, cluster, day = np.zeros(3, int), np.array([1, 1, 2]), np.array([0, 1, 1])
    >>> novelty(user, cluster, day, np.ones(3, bool), (np.array([0]), np.array([2])))
    array([ True, False, False])
    """
    width = int(max(cluster.max(initial=0), before[1].max(initial=0))) + 1
    met = met & (cluster >= 0)
    key, earlier = user * width + cluster, before[0] * width + before[1]
    keys, inverse = np.unique(key, return_inverse=True)
    first = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse[met], day[met])
    first[np.isin(keys, earlier)] = -1
    return (cluster >= 0) & (day <= first[inverse])


def figures(log: LiveLog, control: str, positive: float) -> dict[str, Any]:
    """Everything that `byway lift` prints: see docs/lift.md."""
    days = int(log.day.max(initial=0)) + 1
    ratios = _ratios(log, [_tally(log, positive, arm, range(days)) for arm in range(len(log.arms))])
    lifts = _lifts(ratios, control)
    by_day, up_to = _by_day(log, positive, control, days)
    counts = dict(zip(log.arms, np.bincount(log.arm, minlength=len(log.arms)).tolist(), strict=True))
    p = statistics.sample_ratio(list(counts.values()), log.shares)
    aa = lifts.get(f"{control}_aa", {})
    return {
        "setting": {
            "control": control,
            "days": days,
            "users": len(log.arm),
            "rows": len(log),
            "positive": positive,
            "effect": EFFECT,
        },
        "sample_ratio": {
            "users": counts,
            "shares": dict(zip(log.arms, log.shares, strict=True)),
            "p": p,
            "alarm": p < statistics.RATIO_ALARM,
        },
        "arms": {arm: {name: _row(each.interval()) for name, each in rows.items()} for arm, rows in ratios.items()},
        "lift": {arm: {name: _row(each) for name, each in rows.items()} for arm, rows in lifts.items()},
        "by_day": {
            arm: {name: [{"day": day, **_row(each)} for day, each in found] for name, found in rows.items()}
            for arm, rows in by_day.items()
        },
        "aa": {
            "tests": len(aa),
            "differ": sorted(name for name, each in aa.items() if not each.low <= 0 <= each.high),
        },
        "power": {
            arm: {
                name: _power(
                    each.error,
                    [so_far.error for _, so_far in up_to[arm].get(name, [])],
                    counts[control] + counts[arm],
                )
                for name, each in rows.items()
            }
            for arm, rows in lifts.items()
        },
    }


def _tally(log: LiveLog, positive: float, arm: int, days: range) -> Tally:
    """The sums of an arm's users over these days; items of which the cluster is not known share one."""
    chosen = (log.arm[log.user] == arm) & (log.day >= days.start) & (log.day < days.stop)
    n = int(chosen.sum())
    beside = np.zeros(n, np.bool_) if log.sole is None else ~log.sole[chosen]
    shown = Impressions(
        user=log.user[chosen],
        item=log.item[chosen],
        day=log.day[chosen] - days.start,
        nominators=np.where(log.own[chosen], ARM + OTHERS * beside, 0).astype(np.int8),
        novel=log.novel[chosen],
        satisfaction=log.satisfaction[chosen].astype(np.float32),
        seconds=log.seconds[chosen].astype(np.float32),
        unmet=np.zeros(n, np.bool_),
        context=np.full(n, -1),
    )
    n_clusters = int(log.cluster.max(initial=-1)) + 2
    found = tally(
        shown,
        np.flatnonzero(log.arm == arm),
        len(log.arm),
        len(days),
        cluster=np.where(log.cluster < 0, n_clusters - 1, log.cluster)[chosen],
        n_clusters=n_clusters,
        positive=positive,
    )
    unknown = (*UNKNOWN, *(["sole_impressions"] if log.sole is None else []))
    return {name: sums for name, sums in found.items() if name not in unknown}


def _ratios(log: LiveLog, tallies: list[Tally]) -> dict[str, dict[str, Ratio]]:
    """By arm and figure, over the arm's users."""
    return {
        name: {
            figure: statistics.ratio(above[log.arm == arm], below[log.arm == arm])
            for figure, (above, below) in tallies[arm].items()
        }
        for arm, name in enumerate(log.arms)
    }


def _lifts(ratios: dict[str, dict[str, Ratio]], control: str) -> dict[str, dict[str, Lift]]:
    """By arm and figure over the control's, as far as they can be measured."""
    usual = ratios[control]
    found = {
        arm: {name: statistics.lift(each, usual[name]) for name, each in rows.items() if name in usual}
        for arm, rows in ratios.items()
        if arm != control
    }
    return {arm: {name: each for name, each in rows.items() if each.error > 0} for arm, rows in found.items()}


Daily = dict[str, dict[str, list[tuple[int, Lift]]]]
"""By arm and figure, days from 1 and the lift of each."""


def _by_day(log: LiveLog, positive: float, control: str, days: int) -> tuple[Daily, Daily]:
    """Each day's own lifts, and those over the days up to each."""
    own: Daily = {arm: {} for arm in log.arms if arm != control}
    up_to: Daily = {arm: {} for arm in own}
    so_far: list[Tally] = [{} for _ in log.arms]
    for day in range(days):
        today = [_tally(log, positive, arm, range(day, day + 1)) for arm in range(len(log.arms))]
        for before, sums in zip(so_far, today, strict=True):
            for name, (above, below) in sums.items():
                was = before.get(name, (0.0, 0.0))
                before[name] = was[0] + above, was[1] + below
        for found, tallies in ((own, today), (up_to, so_far)):
            for arm, rows in _lifts(_ratios(log, tallies), control).items():
                for name, each in rows.items():
                    if not name.startswith(NOT_OF_A_DAY):
                        found[arm].setdefault(name, []).append((day + 1, each))
    return own, up_to


def _power(error: float, by_day: list[float], users: int) -> list[dict[str, Any]]:
    """For each size of a lift: users of both arms together as many days, and days with as many users."""
    return [
        {
            "lift": each,
            "users": statistics.users_for(error, users, each),
            "days": statistics.days_for(by_day, each) if by_day else None,
        }
        for each in LIFTS
    ]


def _row(value: Any) -> dict[str, float | None]:
    """The fields of a figure, rounded; what could not be measured is null."""
    names = [name for name in ("mean", "low", "high", "always_low", "always_high") if hasattr(value, name)]
    return {name: _number(getattr(value, name)) for name in names}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
