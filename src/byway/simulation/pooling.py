"""Runs of many arms and deals as figures: pooled over deals, with intervals, lifts and growth over the days.

The bootstrap draws people out of all, whatever arms they lived with: in the paired design a person's lives move
together in every draw, so that a lift is as sure as what the arms changed, and not as people differ. With several
deals it draws deals too (`metrics.BootstrapRatio`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.base import metrics
from byway.base.metrics import BUCKETS, BootstrapRatio, Interval
from byway.simulation.arms import CONTROL, EASE, MASKED, PLACEBO, REFERENCE
from byway.simulation.runs import Run, Setup
from byway.simulation.source import Flags
from byway.simulation.tallies import Tally

REFERENCES = (REFERENCE, CONTROL, PLACEBO, "sequence", MASKED, EASE)
"""Arms over which lifts are reported: paper 1's reference, what is added to, chance, paper 2's exploitation, and
the two simple things."""

BOOTSTRAP = 2000
"""Draws of users for an interval. Fewer make it too narrow: with 300, 6% of identical arms differ, not 5%."""

COMPARED = ("positive_rate", "new_positive_rate", "serendipity")
"""Metrics in which Byway's arm is set beside every other."""

Row = dict[str, float | None]
"""`mean`, `low` and `high`, as JSON."""
Draws = tuple[np.ndarray, np.ndarray]
"""What the bootstrap drew, for all metrics and arms alike: people [B, U] and deals [B, S]."""


def measure(setup: Setup, found: dict[str, list[Run]], rng: np.random.Generator) -> dict[str, Any]:
    """Every metric of every arm, pooled over the deals, and its lift over each reference."""
    draws = (
        metrics.bootstrap_weights(len(setup.users), BOOTSTRAP, rng),
        metrics.replication_weights(len(found[CONTROL]), BOOTSTRAP, rng),
    )
    pooled = {
        name: {
            metric: metrics.bootstrap_ratios(top[None], below, *draws)[0]
            for metric, (top, below) in stacked([r.tally for r in runs]).items()
        }
        for name, runs in found.items()
    }
    by_arm = {name: {metric: row(one.interval()) for metric, one in of.items()} for name, of in pooled.items()}
    for name, runs in found.items():
        by_arm[name]["coverage"] = _coverage(runs, setup.there)
    lifts = {
        reference: {
            name: {
                metric: row(one.over(pooled[reference][metric]))
                for metric, one in of.items()
                if metric in pooled[reference]
            }
            for name, of in pooled.items()
            if name != reference
        }
        for reference in REFERENCES
        if reference in pooled
    }
    return {
        "arms": by_arm,
        "lift": lifts,
        "against": {metric: _against(pooled, metric) for metric in COMPARED},
        "by_bucket": {name: _by_bucket(of) for name, of in pooled.items() if "bucket_1.source" in of},
        "growth": {name: _growth(runs, found[CONTROL], draws) for name, runs in found.items() if name != CONTROL},
        "traffic": {
            name: np.mean([run.traffic for run in runs], 0).round(4).tolist() for name, runs in found.items()
        },
        "seeds": {name: [_means(run.tally) for run in runs] for name, runs in found.items()},
    }


def _against(pooled: dict[str, dict[str, BootstrapRatio]], metric: str) -> dict[str, Any]:
    """Byway's lift over every other arm."""
    if metric not in pooled.get("byway", {}):
        return {}
    own = pooled["byway"][metric]
    return {name: row(own.over(of[metric])) for name, of in pooled.items() if name != "byway" and metric in of}


def _by_bucket(of: dict[str, BootstrapRatio]) -> list[Row]:
    """Lift of what the arm's source named over the rest of the feed, by bucket of visual interest (figure 8)."""
    return [row(of[f"bucket_{b}.source"].over(of[f"bucket_{b}.rest"])) for b in range(1, BUCKETS + 1)]


def _means(tallied: Tally) -> dict[str, float]:
    return {name: round(float(a.sum() / b.sum()), 5) for name, (a, b) in tallied.items() if b.sum()}


def stacked(tallies: Sequence[Tally]) -> Tally:
    """The tallies of S deals as [S, U]; a metric that a deal lacks is 0 there."""
    names = list(dict.fromkeys(name for one in tallies for name in one))
    nothing = np.zeros_like(next(iter(tallies[0].values()))[0])
    none = nothing, nothing
    return {
        name: (
            np.stack([one.get(name, none)[0] for one in tallies]),
            np.stack([one.get(name, none)[1] for one in tallies]),
        )
        for name in names
    }


def _growth(runs: list[Run], control: list[Run], draws: Draws) -> dict[str, list[Row]]:
    """Each day's lift over the control (paper 1, figure 5; paper 2, figure 7), by metric."""
    found: dict[str, list[Row]] = {}
    n = draws[0].shape[1]
    sizes = [np.stack([np.bincount(r.users, minlength=n) for r in some]).astype(float) for some in (runs, control)]
    for metric in ("watch", "over_ten", "engaged"):
        both = (
            metrics.bootstrap_ratios(np.stack([r.daily[metric] for r in some], 1), size, *draws)
            for some, size in zip((runs, control), sizes, strict=True)
        )
        found[metric] = [row(own.over(other)) for own, other in zip(*both, strict=True)]
    return found


def _coverage(runs: list[Run], there: Flags) -> Row:
    """Share of the catalog that the feed showed; the interval says what chance left in, not who took part.

    Drawing users anew would only ever lose items, so that the usual interval lies below the figure. Here each
    item's impressions are Poisson around what was seen, an item shown n times is missed with probability exp(-n),
    and the interval is centred.
    """
    shown = np.sum([run.items for run in runs], axis=0)[there]
    value = float((shown > 0).mean())
    missed = np.exp(-shown.astype(float))
    spread = 1.96 * float(np.sqrt((missed * (1 - missed) * (shown > 0)).sum())) / len(shown)
    return row(Interval(value, max(value - spread, 0.0), min(value + spread, 1.0)))


def row(interval: Interval) -> Row:
    """As JSON; what could not be measured is null."""
    return {
        name: round(value, 6) if np.isfinite(value) else None
        for name, value in (("mean", interval.mean), ("low", interval.low), ("high", interval.high))
    }
