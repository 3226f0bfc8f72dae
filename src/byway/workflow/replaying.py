"""What another policy would have earned from the people who were answered: `byway lift W --policy NAME`.

Owns how the service's log becomes rows with the chances of two policies: each answer is worked out again from the
history before it, under the bundle that gave it. Answers whose propensities do not come out again, as of requests
that brought their own history or left items out, are set aside and counted. The estimates are
`evaluation.offpolicy`'s.
"""

from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config
from byway.evaluation import offpolicy
from byway.evaluation.offpolicy import Exposed
from byway.serving import arms, bundle
from byway.serving.bundle import Bundle
from byway.serving.chances import Chances, chances
from byway.serving.history import DAY, LIMIT, Answered, Event, as_rows
from byway.serving.person import Seen
from byway.workflow.lifting import People

SAME = 1e-6
"""Two propensities that differ by less are one: they are logged with nine digits."""


def earned(workspace: Path, settings: config.Config, known: People, policy: str) -> dict[str, Any]:
    """The estimates for a policy: `byway`, `paper`, `masked`, or a published bundle by its name.

    The reward of an item that was shown is the satisfaction that followed, 0 where nothing did.
    """
    opened: dict[str, Bundle | None] = {}

    def of(name: str) -> Bundle | None:
        if name not in opened:
            folder = workspace / "published" / name
            opened[name] = bundle.load(folder) if (folder / "manifest.json").exists() else None
        return opened[name]

    design = arms.load(workspace)
    if policy not in (arms.BYWAY, arms.PAPER, arms.MASKED):
        arms.require(workspace, policy, f"--policy asks for {policy!r}; there are")
    reward: list[float] = []
    weight: list[float] = []
    answer: list[int] = []
    features: list[tuple[float, float]] = []
    all_features: list[tuple[float, float]] = []
    all_chance: list[float] = []
    all_answer: list[int] = []
    size: list[float] = []
    cluster: list[int] = []
    aside = users = 0
    for events, answers in known.values():
        led = {
            (row["answer"], row["item"]): row["satisfaction"] for row in as_rows(events, answers) if row["answer"]
        }
        used = False
        for given in answers:
            base = of(given.bundle)
            if base is None or not given.shown:
                aside += base is None
                continue
            serves = arms.BYWAY if design is None or not given.arm else design.serves(given.arm)
            seen = _seen(events, given, settings.serving.forget_days)
            at = [base.position(e.item) for e in given.shown]
            # An answer may hold fewer items than were asked for, which the log does not say.
            for k in (len(given.shown), max(len(given.shown), base.settings.items)):
                if _agree(_chances(workspace, serves, base, given, seen, k), at, given):
                    break
            else:
                aside += 1
                continue
            target = _chances(workspace, policy, base, given, seen, k)
            for exposure, position in zip(given.shown, at, strict=True):
                assert position is not None
                reward.append(led.get((given.answer, exposure.item), 0.0))
                weight.append(target.get(position, 0.0) / exposure.propensity)
                answer.append(len(size))
                features.append(_features(base, position))
            for position, chance in target.items():
                all_features.append(_features(base, position))
                all_chance.append(chance)
                all_answer.append(len(size))
            size.append(sum(target.values()))
            cluster.append(users)
            used = True
        users += used
    found: dict[str, Any] = {"answers": len(size), "aside": aside, "rows": len(reward)}
    if not size:
        return found
    log = Exposed(*(np.array(x) for x in (reward, weight, answer, size, cluster)))
    others = np.array(all_answer, np.int64)
    guess, other = offpolicy.fitted(
        log.reward,
        np.array(features),
        log.cluster[log.answer],
        np.array(all_features).reshape(-1, 2),
        log.cluster[others],
    )
    value = np.bincount(others, other * np.array(all_chance), len(size))
    estimates = {
        "ips": offpolicy.ips(log),
        "snips": offpolicy.snips(log),
        "doubly_robust": offpolicy.doubly_robust(log, guess, value),
    }
    found |= {
        name: {end: _finite(getattr(each, end)) for end in ("mean", "low", "high")}
        for name, each in estimates.items()
    }
    shown = float(log.reward.mean())
    return found | {
        "effective": offpolicy.effective_size(log.weight),
        "covered": offpolicy.covered(log),
        "logged": shown,
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


def _agree(logged: Chances, at: list[int | None], given: Answered) -> bool:
    return all(
        position is not None and abs(logged.get(position, 0.0) - exposure.propensity) < SAME
        for position, exposure in zip(at, given.shown, strict=True)
    )


def _features(opened: Bundle, position: int) -> tuple[float, float]:
    """What the model of rewards knows of an item, from the log before the experiment."""
    return float(opened.quality[position]), float(np.log1p(opened.traffic[position]))
