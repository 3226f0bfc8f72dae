"""From the log of a live experiment to its figures: what the papers drew, for every arm beside the control.

Owns the log as arrays and the object that `byway lift` prints. The sums a user are those of the simulated
experiment (`simulation.tallies`), the statistics those of `lift`. It reads no file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byway.evaluation import lift as statistics
from byway.evaluation.lift import EFFECT, LIFTS, Ratio
from byway.simulation.platform import ARM, Impressions
from byway.simulation.source import Known
from byway.simulation.tallies import Tally, tally

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

OTHERS = 1
"""Bit in `Impressions.nominators` of whatever named an item beside the arm's source."""
NOT_OF_A_DAY = ("engaged_pairs", "new_clusters", "uci_")
"""Beginnings of figures that are no sums over days."""
UNKNOWN = ("intra_list_diversity", "unmet_positive_rate")
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
    key, earlier = user * width + cluster, before[0] * width + before[1]
    keys, inverse = np.unique(key, return_inverse=True)
    first = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse[met], day[met])
    first[np.isin(keys, earlier)] = -1
    return (cluster >= 0) & (day <= first[inverse])


def figures(log: LiveLog, control: str, positive: float, effect: float = EFFECT) -> dict[str, Any]:
    """Everything that `byway lift` prints: see docs/lift.md."""
    base = log.arms.index(control)
    days = int(log.day.max(initial=0)) + 1
    by_arm = [_tally(log, a, slice(0, days), positive) for a in range(len(log.arms))]
    ratios = [_ratios(by_arm[a], log.arm == a) for a in range(len(log.arms))]
    others = [a for a in range(len(log.arms)) if a != base]
    aa = [a for a in others if log.arms[a] == f"{control}_aa"]
    lifts = {log.arms[a]: _lifts(ratios[a], ratios[base], effect) for a in others}
    daily, errors = _by_day(log, base, days, positive, effect)
    counts = np.bincount(log.arm, minlength=len(log.arms))
    p = statistics.sample_ratio(counts, log.shares)
    return {
        "setting": {
            "control": control,
            "days": days,
            "users": len(log.arm),
            "rows": len(log),
            "positive": positive,
            "effect": effect,
        },
        "sample_ratio": {
            "users": dict(zip(log.arms, counts.tolist(), strict=True)),
            "shares": dict(zip(log.arms, log.shares, strict=True)),
            "p": p,
            "alarm": p < statistics.RATIO_ALARM,
        },
        "arms": {
            log.arms[a]: {name: _row(each.interval()) for name, each in ratios[a].items()}
            for a in range(len(log.arms))
        },
        "lift": {arm: {name: _row(each) for name, each in rows.items()} for arm, rows in lifts.items()},
        "by_day": daily,
        "aa": {
            "tests": sum(len(lifts[log.arms[a]]) for a in aa),
            "differ": sorted(
                name for a in aa for name, each in lifts[log.arms[a]].items() if not each.low <= 0 <= each.high
            ),
        },
        "power": {
            arm: {
                name: _power(
                    each.error, errors.get((arm, name), []), int(counts[base] + counts[log.arms.index(arm)])
                )
                for name, each in rows.items()
            }
            for arm, rows in lifts.items()
        },
    }


def _tally(log: LiveLog, arm: int, days: slice, positive: float) -> Tally:
    """The sums of an arm's users over the days from `days.start` to before `days.stop`."""
    chosen = (log.arm[log.user] == arm) & (log.day >= days.start) & (log.day < days.stop)
    n, clusters = int(chosen.sum()), int(log.cluster.max(initial=-1)) + 2
    known = Known(
        np.zeros((int(log.item.max(initial=-1)) + 1, 1), np.float32),
        _by_item(log, clusters - 1),
        (np.zeros(clusters, np.int64),),
        positive,
    )
    beside = np.zeros(n, np.bool_) if log.sole is None else ~log.sole[chosen]
    shown = Impressions(
        log.user[chosen],
        log.item[chosen],
        log.day[chosen] - days.start,
        np.where(log.own[chosen], ARM + OTHERS * beside, 0).astype(np.int8),
        log.novel[chosen],
        log.satisfaction[chosen].astype(np.float32),
        log.seconds[chosen].astype(np.float32),
        np.zeros(n, np.bool_),
        np.full(n, -1),
    )
    users = np.flatnonzero(log.arm == arm)
    found = tally(shown, users, len(log.arm), days.stop - days.start, known)
    unknown = (*UNKNOWN, *(["sole_impressions"] if log.sole is None else []))
    return {name: sums for name, sums in found.items() if name not in unknown}


def _by_item(log: LiveLog, other: int) -> Ints:
    """The cluster of each item; those that are not known share one."""
    found = np.full(int(log.item.max(initial=-1)) + 1, other)
    found[log.item] = np.where(log.cluster < 0, other, log.cluster)
    return found


def _ratios(sums: Tally, users: Flags) -> dict[str, Ratio]:
    return {name: statistics.ratio(above[users], below[users]) for name, (above, below) in sums.items()}


def _lifts(of: dict[str, Ratio], reference: dict[str, Ratio], effect: float) -> dict[str, statistics.Lift]:
    found = {name: statistics.lift(of[name], reference[name], effect) for name in of if name in reference}
    return {name: each for name, each in found.items() if np.isfinite(each.error) and each.error > 0}


def _by_day(
    log: LiveLog, base: int, days: int, positive: float, effect: float
) -> tuple[dict[str, dict[str, list[Any]]], dict[tuple[str, str], list[float]]]:
    """By arm and figure: each day's lift; and the standard error of the lift over the days up to each."""
    daily: dict[str, dict[str, list[Any]]] = {arm: {} for a, arm in enumerate(log.arms) if a != base}
    errors: dict[tuple[str, str], list[float]] = {}
    running: list[Tally] = [{} for _ in log.arms]
    users = [log.arm == a for a in range(len(log.arms))]
    for day in range(days):
        today = [_tally(log, a, slice(day, day + 1), positive) for a in range(len(log.arms))]
        for own, found in zip(running, today, strict=True):
            for name, (above, below) in found.items():
                was = own.get(name, (0.0, 0.0))
                own[name] = was[0] + above, was[1] + below
        now = [_ratios(found, who) for found, who in zip(today, users, strict=True)]
        so_far = [_ratios(found, who) for found, who in zip(running, users, strict=True)]
        for a, arm in enumerate(log.arms):
            if a == base:
                continue
            for name, each in _lifts(now[a], now[base], effect).items():
                if not name.startswith(NOT_OF_A_DAY):
                    daily[arm].setdefault(name, []).append({"day": day + 1, **_row(each)})
            for name, each in _lifts(so_far[a], so_far[base], effect).items():
                if not name.startswith(NOT_OF_A_DAY):
                    errors.setdefault((arm, name), []).append(each.error)
    return daily, errors


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
