"""What another policy would have earned from the people who were answered: `byway lift W --policy NAME`.

Owns how the service's log becomes rows with the chances of two policies: each answer is worked out again from the
history before it, under the bundle that gave it. Answers whose propensities do not come out again, as of requests
that brought their own history or left items out, are set aside and counted. The estimates are
`evaluation.offpolicy`'s.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from byway.base import config
from byway.evaluation import offpolicy
from byway.evaluation.offpolicy import Exposed
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


def earned(workspace: Path, settings: config.Config, known: People, policy: str) -> dict[str, Any]:
    """The estimates for a policy: `byway`, `paper`, `masked`, or a published bundle by its name.

    The reward of an item that was shown is the satisfaction that followed, 0 where nothing did.
    """

    @cache
    def published(name: str) -> Bundle | None:
        folder = workspace / "published" / name
        return bundle.load(folder) if (folder / "manifest.json").exists() else None

    design = arms.load(workspace)
    if policy not in (arms.BYWAY, arms.PAPER, arms.MASKED):
        arms.require(workspace, policy, f"--policy asks for {policy!r}; there are")
    # Of each item that was shown its reward, its weight, the answer, and its features.
    shown: list[tuple[float, float, int, tuple[float, float]]] = []
    # Of each item that the policy could have shown its chance, the answer, and its features.
    could: list[tuple[float, int, tuple[float, float]]] = []
    size: list[float] = []
    person: list[int] = []
    aside = 0
    for user, (events, answers) in enumerate(known.values()):
        led = {
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
            for exposure in given.shown:
                position = base.position(exposure.item)
                assert position is not None
                reward = led.get((given.answer, exposure.item), 0.0)
                weight = target.get(position, 0.0) / exposure.propensity
                shown.append((reward, weight, len(size), _features(base, position)))
            could += [(chance, len(size), _features(base, position)) for position, chance in target.items()]
            size.append(sum(target.values()))
            person.append(user)
    found: dict[str, Any] = {"answers": len(size), "aside": aside, "rows": len(shown)}
    if not size:
        return found
    reward, weight, answer, features = (np.array(column) for column in zip(*shown, strict=True))
    # Of people in turn, without those who have no answer here.
    cluster = np.unique(person, return_inverse=True)[1]
    log = Exposed(reward, weight, answer, np.array(size), cluster)
    chance = np.array([chance for chance, _, _ in could])
    asked = np.array([answer for _, answer, _ in could], np.int64)
    features_of_all = np.array([features for _, _, features in could]).reshape(-1, 2)
    guess, expected = offpolicy.fitted(
        log.reward, features, log.cluster[log.answer], features_of_all, log.cluster[asked]
    )
    value = np.bincount(asked, expected * chance, len(size))
    estimates = {
        "ips": offpolicy.ips(log),
        "snips": offpolicy.snips(log),
        "doubly_robust": offpolicy.doubly_robust(log, guess, value),
    }
    found |= {
        name: {end: _finite(getattr(each, end)) for end in ("mean", "low", "high")}
        for name, each in estimates.items()
    }
    return found | {
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


def _features(opened: Bundle, position: int) -> tuple[float, float]:
    """What the model of rewards knows of an item, from the log before the experiment."""
    return float(opened.quality[position]), float(np.log1p(opened.traffic[position]))
