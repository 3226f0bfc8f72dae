"""What another policy would have earned from the people who were answered: `byway lift W --policy NAME`.

Owns how the service's log becomes rows with the chances of two policies: each answer is worked out again from the
history before it, under the bundle that gave it. Answers whose propensities do not come out again, as of requests
that brought their own history or left items out, are set aside and counted. The estimates are
`evaluation.offpolicy`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config
from byway.evaluation import offpolicy
from byway.evaluation.offpolicy import Exposed, Floats
from byway.serving import arms, bundle
from byway.serving.answers import ITEMS
from byway.serving.bundle import Bundle
from byway.serving.chances import Chances, chances
from byway.serving.history import DAY, LIMIT, Answered, Event, as_rows
from byway.serving.person import Seen
from byway.workflow.lifting import People, people

SAME = 1e-6
"""Two propensities that differ by less are one: they are logged with nine digits."""


def policies(workspace: Path, settings: config.Config, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The estimates for each of some policies, from the service's own log."""
    known = people(workspace, settings)
    return {name: earned(workspace, settings, known, name) for name in names}


@dataclass(frozen=True, slots=True)
class Replayed:
    """One answer of the log, worked out again: n items that it showed, m that the policy could have shown."""

    user: int
    reward: Floats
    """[n] the satisfaction that followed, 0 where nothing did."""
    weight: Floats
    """[n] the policy's chance to show the item over the one that is logged."""
    features: Floats
    """[n, 2]"""
    chance: Floats
    """[m] the policy's, in all `size`."""
    features_of_all: Floats
    """[m, 2]"""
    size: float


def earned(workspace: Path, settings: config.Config, known: People, policy: str) -> dict[str, Any]:
    """The estimates for a policy: `byway`, `paper`, `masked`, or a published bundle by its name."""
    if policy not in (arms.BYWAY, arms.PAPER, arms.MASKED):
        arms.require(workspace, policy, f"--policy asks for {policy!r}; there are")
    replayed, aside = _collect(workspace, settings, known, policy)
    rows = sum(len(each.reward) for each in replayed)
    counts = {"answers": len(replayed), "aside": aside, "rows": rows}
    return counts | _estimate(replayed) if replayed else counts


def _collect(workspace: Path, settings: config.Config, known: People, policy: str) -> tuple[list[Replayed], int]:
    """The answers that come out again, and how many do not."""

    @cache
    def published(name: str) -> Bundle | None:
        folder = workspace / "published" / name
        return bundle.load(folder) if (folder / "manifest.json").exists() else None

    design = arms.load(workspace)
    replayed: list[Replayed] = []
    aside = 0
    for user, (events, answers) in enumerate(known.values()):
        followed = {
            (row["answer"], row["item"]): row["satisfaction"] for row in as_rows(events, answers) if row["answer"]
        }
        for given in answers:
            base = published(given.bundle)
            if base is None or not given.shown:
                aside += base is None
                continue
            serves = arms.BYWAY if design is None or not given.arm else design.serves(given.arm)
            seen = _seen(events, given, settings.serving.forget_days)
            k = _asked_for(workspace, serves, base, given, seen)
            if k is None:
                aside += 1
                continue
            target = _chances(workspace, policy, base, given, seen, k)
            shown = [p for p in base.positions([each.item for each in given.shown]) if p is not None]
            would = [target.get(position, 0.0) for position in shown]
            replayed.append(
                Replayed(
                    user,
                    reward=np.array([followed.get((given.answer, each.item), 0.0) for each in given.shown]),
                    weight=np.array([w / each.propensity for w, each in zip(would, given.shown, strict=True)]),
                    features=_features(base, shown),
                    chance=np.array(list(target.values())),
                    features_of_all=_features(base, list(target)),
                    size=sum(target.values()),
                )
            )
    return replayed, aside


def _estimate(replayed: list[Replayed]) -> dict[str, Any]:
    """What the policy earns by each estimator, and how far the log says so."""
    n = len(replayed)
    answer = np.repeat(np.arange(n), [len(each.reward) for each in replayed])
    answer_of_all = np.repeat(np.arange(n), [len(each.chance) for each in replayed])
    # People in turn, without those who have no answer here.
    user = np.unique([each.user for each in replayed], return_inverse=True)[1]
    log = Exposed(
        reward=np.concatenate([each.reward for each in replayed]),
        weight=np.concatenate([each.weight for each in replayed]),
        answer=answer,
        size=np.array([each.size for each in replayed]),
        cluster=user,
    )
    guess, expected = offpolicy.fitted(
        log.reward,
        np.concatenate([each.features for each in replayed]),
        user[answer],
        np.concatenate([each.features_of_all for each in replayed]),
        user[answer_of_all],
    )
    value = np.bincount(answer_of_all, expected * np.concatenate([each.chance for each in replayed]), n)
    estimates = {
        "ips": offpolicy.ips(log),
        "snips": offpolicy.snips(log),
        "doubly_robust": offpolicy.doubly_robust(log, guess, value),
    }
    return {
        name: {end: _finite(getattr(each, end)) for end in ("mean", "low", "high")}
        for name, each in estimates.items()
    } | {
        "effective": offpolicy.effective_size(log.weight),
        "covered": offpolicy.covered(log),
        "logged": float(log.reward.mean()),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _seen(events: list[Event], given: Answered, days: int) -> list[Seen]:
    """The history as it stood when the answer was given."""
    known = [e for e in events if given.time - days * DAY < e.time <= given.time and e.answer != given.answer]
    return [Seen(e.item, e.time, e.satisfaction) for e in known[-LIMIT:]]


def _chances(workspace: Path, serves: str, base: Bundle, given: Answered, seen: list[Seen], k: int) -> Chances:
    """By position in `base`, which has the items of every bundle of the workspace's catalog."""
    opened, _ = arms.variant(workspace, serves, base, given.bundle)
    if serves not in (arms.CONTROL, arms.BYWAY, arms.PAPER, arms.MASKED) and opened is not base:
        own = chances(arms.BYWAY, opened, seen, k, given.time)
        places = base.positions([opened.ids[p] for p in own])
        return {p: chance for p, chance in zip(places, own.values(), strict=True) if p is not None}
    return chances(serves, opened, seen, k, given.time)


def _asked_for(workspace: Path, serves: str, base: Bundle, given: Answered, seen: list[Seen]) -> int | None:
    """How many items were asked for, which the log does not say: an answer may hold fewer. None where the
    propensities do not come out again."""
    at = [base.position(exposure.item) for exposure in given.shown]
    for k in (len(at), max(len(at), ITEMS)):
        chance = _chances(workspace, serves, base, given, seen, k)
        if all(
            position is not None and abs(chance.get(position, 0.0) - exposure.propensity) < SAME
            for position, exposure in zip(at, given.shown, strict=True)
        ):
            return k
    return None


def _features(opened: Bundle, positions: list[int]) -> Floats:
    """[n, 2] what the model of rewards knows of items, from the log before the experiment: quality, log traffic."""
    quality, traffic = opened.quality[positions], opened.traffic[positions]
    return np.column_stack([quality, np.log1p(traffic)]).astype(np.float64)
