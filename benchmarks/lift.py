"""What `byway lift` says, beside what is true: logs that a simulated platform wrote through the service itself.

    python benchmarks/lift.py WORK [--times 200] [--logs 100] [--obp FOLDER] [--json]

A small world of twelve interests is published in WORK, a design deals people to `control` and `byway`, and people
come day by day: they are answered by `serving.service.Service`, watch what they are shown and something of the
platform's, and send events. How an item pleases follows from their taste, so that what an arm does is known. The
truth is the mean over far more people than a log has. Counted are: how often the interval of a lift holds the
truth; how often A/A differs at one look and at any of the daily looks; and how often a dealer that loses a part of
an arm is caught.

The second part weighs the same kind of log by what `paper` would have shown, and a log of a planner that leaves out
new interests (`bundle.skip` 0.4) by what one that leaves out few (0.1) would have: beside what they truly earn from
the same people. With --obp, a folder that holds the package `obp` and its 10,000 impressions of the random policy,
its estimators are asked about the same rows.
"""

import argparse
import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.serving import house, planted

from byway.base import config
from byway.evaluation import lift as statistics
from byway.evaluation import offpolicy
from byway.serving import arms, bundle, publish, service
from byway.serving.chances import chances
from byway.serving.history import DAY, Answered, Event
from byway.serving.messages import RecommendRequest
from byway.serving.person import Seen
from byway.workflow import lifting, replaying

HOUSE = (house.EACH,) * len(house.NAMES)
K = 4
START = 1_790_000_000_000_000 // DAY * DAY
DESIGN = 'name = "world"\nsalt = "{salt}"\n[arms]\ncontrol = {{ share = 0.5 }}\nbyway = {{ share = 0.5 }}\n'
LOOKED_AT = ("platform.positive_rate", "platform.novel_impressions", "platform.new_positive", "watch_minutes")


class People:
    """Everybody's taste: how much each interest pleases them, and the few that they know."""

    def __init__(self, n: int, rng: np.random.Generator, sizes: tuple[int, ...] = HOUSE):
        M, self.sizes = len(sizes), sizes
        self.taste = rng.beta(1.2, 1.6, (n, M))
        self.zeal = rng.beta(3, 3, n)
        self.home = np.argsort(rng.random((n, M)) - 0.5 * self.taste, axis=1)[:, :3]

    def pleased(self, user: int, item: str, rng: np.random.Generator) -> float:
        return float(rng.random() < self.chance(user, item))

    def drawn(self, user: int, rng: np.random.Generator) -> str:
        """Something of an interest that they know."""
        cluster = int(rng.choice(self.home[user]))
        return f"c{cluster}-{rng.integers(self.sizes[cluster])}"

    def chance(self, user: int, item: str) -> float:
        """That an item pleases: by taste, and a little by the item itself."""
        cluster, place = (int(x) for x in item[1:].split("-"))
        return 0.75 * self.taste[user, cluster] + 0.2 * ((7 * place + cluster) % 10) / 10


async def live(workspace: Path, people: People, days: int, rng: np.random.Generator, lost: float = 0.0) -> None:
    """Let everybody live so many days with the service. `lost` is the share of the arm byway that never arrives."""
    shutil.rmtree(workspace / "serving", ignore_errors=True)
    made = service.Service(workspace, config.Serving())
    made.rng = np.random.default_rng(rng.integers(2**63))
    clock = [START]
    service.now = lambda: clock[0]
    n = len(people.zeal)
    before = [
        Event(f"b{i}", f"u{u}", people.drawn(u, rng), START - (9 - i) * DAY // 10, 1.0)
        for u in range(n)
        for i in range(3)
    ]
    await made.history.add(before)
    gone = rng.random(n) < lost
    for day in range(days):
        events: list[Event] = []
        for u in range(n):
            clock[0] = START + day * DAY + u * 1_000_000
            if rng.random() > 0.4 + 0.6 * people.zeal[u] and day:
                continue
            if gone[u] and arms.deal(made.arms._design, f"u{u}") == "byway":  # pyright: ignore
                continue
            answered: list[Answered] = []
            reply = await made.answer(RecommendRequest(user=f"u{u}", k=K), shown=answered)
            await made.history.expose(*answered)
            shown = [(item.item, reply.answer) for item in reply.items]
            shown += [(people.drawn(u, rng), "") for _ in range(6 - len(shown))]
            for i, (item, answer) in enumerate(shown):
                liked = people.pleased(u, item, rng)
                watched = float((60 + 240 * liked) * rng.uniform(0.5, 1.5))
                events.append(Event(f"d{day}-{i}", f"u{u}", item, clock[0] + 1 + i, liked, watched, "", answer))
        await made.history.add(events)
    await made.close()


def deal(workspace: Path, salt: str, aa: bool = False) -> None:
    """Write the design; the salt makes every repetition another deal."""
    text = DESIGN.format(salt=salt)
    if aa:
        text = text.replace("[arms]", "aa = true\n[arms]").replace("0.5", "0.999", 1).replace("0.5", "0.001", 1)
    (workspace / arms.FILE).write_text(text, "utf-8")


def logged(workspace: Path, seed: int, users: int, days: int, **given: Any) -> lifting.Rows:
    """The rows of one log."""
    deal(workspace, f"salt-{seed}", given.pop("aa", False))
    rng = np.random.default_rng([seed, 7])
    asyncio.run(live(workspace, People(users, rng), days, rng, **given))
    return lifting._of_people(lifting.people(workspace, config.Config()), arms.load(workspace))  # pyright: ignore


def found_in(workspace: Path, rows: lifting.Rows) -> dict[str, Any]:
    """What `byway lift` says of them."""
    log = lifting.arrange(rows, lifting._opened(workspace), {})  # pyright: ignore
    return lifting.live.figures(log, "control", 0.5)


def share_of(hits: list[bool]) -> dict[str, float]:
    """A share with its interval by Wilson."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle, half = (p + z * z / 2 / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    low, high = (round(float((middle + s * half) / (1 + z * z / n)), 3) for s in (-1, 1))
    return {"mean": round(p, 3), "low": low, "high": high}


def part_lifts(workspace: Path, times: int, users: int, days: int) -> dict[str, Any]:
    """Coverage of lifts, A/A, and the broken dealer."""
    truth: dict[str, list[float]] = {}
    held: dict[str, list[bool]] = {name: [] for name in LOOKED_AT}
    # The truth: the same world with far more people, in logs of their own.
    for seed in range(10):
        found = found_in(workspace, logged(workspace, 90_000 + seed, 8 * users, days))
        for name in LOOKED_AT:
            truth.setdefault(name, []).append(np.log1p(found["lift"]["byway"][name]["mean"]))
    true = {name: float(np.mean(values)) for name, values in truth.items()}
    noise = {name: float(np.std(values, ddof=1) / len(values) ** 0.5) for name, values in truth.items()}
    alarms: list[bool] = []
    for seed in range(times):
        found = found_in(workspace, logged(workspace, seed, users, days))
        alarms.append(found["sample_ratio"]["alarm"])
        for name in LOOKED_AT:
            row = found["lift"]["byway"][name]
            held[name].append(np.log1p(row["low"]) <= true[name] <= np.log1p(row["high"]))
    once: list[bool] = []
    for seed in range(times):
        found = found_in(workspace, logged(workspace, 10_000 + seed, users, days, aa=True))
        for name in LOOKED_AT:
            once.append(name in found["aa"]["differ"])
    return {
        "true lift": {name: round(float(np.expm1(value)), 4) for name, value in true.items()},
        "its error, in the logarithm": {name: round(value, 4) for name, value in noise.items()},
        "held": {name: share_of(hits) for name, hits in held.items()},
        "held, all": share_of([h for hits in held.values() for h in hits]),
        "A/A differ": share_of(once),
        "sample ratio, false alarms": share_of(alarms),
    }


def part_dealer(workspace: Path, users: int) -> dict[str, Any]:
    """How often a dealer is caught that loses a part of an arm."""
    return {
        f"{lost:.0%} of an arm lost, {users} users": share_of(
            [
                found_in(workspace, logged(workspace, 20_000 + seed, users, 1, lost=lost))["sample_ratio"]["alarm"]
                for seed in range(20)
            ]
        )
        for lost in (0.15, 0.4)
    }


def part_looks(times: int, users: int, days: int) -> dict[str, Any]:
    """A/A looked at every day: how often any look calls a difference, by either interval."""
    rng = np.random.default_rng(3)
    once, always = [], []
    for _ in range(times):
        base = rng.gamma(2, 1, (2, users, 1))
        seen = rng.poisson(base, (2, users, days)).cumsum(2).astype(float)
        lifts = [
            statistics.lift(*(statistics.ratio(seen[a, :, d], np.full(users, d + 1.0)) for a in (0, 1)))
            for d in range(days)
        ]
        once.append(any(not each.low <= 0 <= each.high for each in lifts))
        always.append(any(each.away_from(0) for each in lifts))
    return {"by one look's interval": share_of(once), "by the interval for every look": share_of(always)}


def planners(folder: Path) -> Path:
    """A workspace with two bundles that differ in `bundle.skip` alone: `logs`, which is served, and `target`."""
    for name, skip in (("logs", 0.4), ("target", 0.1)):
        settings = config.Bundle(skip=skip)
        planted.Planted(planned=planted.planned_of(), settings=settings).build(folder / "made" / name)
        shutil.copytree(folder / "made" / name / "out", folder / "published" / name)
    (folder / "published" / "current.json").write_text('{"bundle": "logs"}', "utf-8")
    return folder


def part_policies(workspace: Path, logs: int, users: int, days: int) -> dict[str, Any]:
    """Bias and coverage of the off-policy estimates; the target's truth is worked out on the same people."""
    planned = workspace / "planners"
    if not planned.exists():
        planners(planned)
    return {
        "paper, from table": _policies(workspace, "paper", HOUSE, logs, users, days=days),
        "skip 0.1, from 0.4": _policies(planned, "target", planted.SIZES, logs, users, days=2),
    }


def _policies(
    workspace: Path, policy: str, sizes: tuple[int, ...], logs: int, users: int, *, days: int
) -> dict[str, Any]:
    settings, now = config.Config(), publish.current(workspace)
    assert now is not None
    served = bundle.load(workspace / "published" / now.bundle)
    errors: dict[str, list[float]] = {}
    held: dict[str, list[bool]] = {}
    parts: dict[str, list[float]] = {}
    for seed in range(logs):
        rng = np.random.default_rng([30_000 + seed, 7])
        people = People(users, rng, sizes)
        deal(workspace, f"salt-{seed}")
        asyncio.run(live(workspace, people, days, rng))
        known = lifting.people(workspace, settings)
        found = replaying.earned(workspace, settings, known, policy)
        truth = _true(workspace, served, people, known, policy)
        for part in ("effective", "covered", "rows", "logged", "aside"):
            parts.setdefault(part, []).append(found[part])
        parts.setdefault("truth", []).append(truth)
        for kind in ("ips", "snips", "doubly_robust"):
            row = found[kind]
            errors.setdefault(kind, []).append(row["mean"] - truth)
            held.setdefault(kind, []).append(row["low"] <= truth <= row["high"])
    rows = {
        kind: {
            "bias": round(float(np.mean(values)), 4),
            "bias's error": round(float(np.std(values)) / len(values) ** 0.5, 4),
            "deviation": round(float(np.std(values)), 4),
            "held": share_of(held[kind]),
        }
        for kind, values in errors.items()
    }
    return rows | {part: round(float(np.mean(values)), 3) for part, values in parts.items()}


def _true(workspace: Path, opened: Any, people: People, known: lifting.People, policy: str) -> float:
    """What the policy earns an item it shows, over the very answers of the log: tastes are known here."""
    top = below = 0.0
    made, _ = arms.variant(workspace, policy, opened, "")
    for user, (events, answers) in known.items():
        for given in answers:
            if not given.shown:
                continue
            seen = [Seen(e.item, e.time, e.satisfaction) for e in events if e.time <= given.time]
            for position, chance in chances(policy, made, seen, len(given.shown), given.time).items():
                top += chance * people.chance(int(user[1:]), opened.ids[position])
                below += chance
    return top / below


def part_obp(folder: Path) -> dict[str, Any]:
    """The Open Bandit Pipeline's estimators and ours over its random policy's impressions."""
    sys.path.append(str(folder))
    import csv

    from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting

    with (folder / "obp/dataset/obd/random/all/all.csv").open() as file:
        rows = list(csv.DictReader(file))
    action, position = (np.array([int(r[c]) for r in rows]) for c in ("item_id", "position"))
    reward, logged_p = (np.array([float(r[c]) for r in rows]) for c in ("click", "propensity_score"))
    n, items = len(rows), int(action.max()) + 1
    position = position - position.min()
    # A target that prefers some items to others, the same for everybody; and a guess that does not fit.
    weight = np.random.default_rng(1).dirichlet(np.full(items, 0.5))
    target = np.repeat(weight[None, :, None], n, 0).repeat(3, 2)
    guess = np.random.default_rng(2).uniform(0, 0.01, (n, items, 3))
    given = dict(reward=reward, action=action, position=position, pscore=logged_p, action_dist=target)
    at = np.arange(n)
    theirs = {
        "ips": InverseProbabilityWeighting().estimate_policy_value(**given),
        "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given),
        "doubly robust": DoublyRobust().estimate_policy_value(**given, estimated_rewards_by_reg_model=guess),
    }
    log = offpolicy.Exposed(reward, weight[action] / logged_p, at, np.ones(n), at)
    value = (guess[at, :, position] * weight[None]).sum(1)
    ours = {
        "ips": offpolicy.ips(log),
        "snips": offpolicy.snips(log),
        "doubly robust": offpolicy.doubly_robust(log, guess[at, action, position], value),
    }
    return {
        "rows": n,
        "effective rows": round(offpolicy.effective_size(log.weight)),
        "largest difference": max(abs(float(theirs[name]) - ours[name].mean) for name in ours),
        **{name: {"ours": ours[name].mean, "theirs": float(theirs[name])} for name in ours},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--logs", type=int, default=100)
    parser.add_argument("--users", type=int, default=150)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--obp", type=Path)
    parser.add_argument("--only", choices=["lifts", "dealer", "looks", "policies"])
    given = parser.parse_args()
    started = time.perf_counter()
    workspace = given.work
    if not (workspace / "published").exists():
        house.published(workspace)
    found: dict[str, Any] = {}
    if given.obp is not None:
        found["obp"] = part_obp(given.obp)
    if given.only in (None, "looks"):
        found["looks"] = part_looks(given.times, 500, 14)
    if given.only in (None, "policies"):
        found["policies"] = part_policies(workspace, given.logs, given.users, given.days)
    if given.only in (None, "lifts"):
        found["lifts"] = part_lifts(workspace, given.times, given.users, given.days)
    if given.only in (None, "dealer"):
        found["dealer"] = part_dealer(workspace, 800)
    found["seconds"] = round(time.perf_counter() - started)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
