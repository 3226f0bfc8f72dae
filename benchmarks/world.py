"""What the embedded world is like: its log's shape, and how predictable the next novel interest is in it.

    python -m benchmarks.world [--world full|small] [--seeds 3] [--chance]

Prints one JSON object: figures averaged over the seeds. `docs/world.md` quotes them.
"""

import argparse
import json
from dataclasses import replace

import numpy as np
from benchmarks.placebo import chance_liking
from numpy.typing import NDArray

from byway.simulation import loop, world
from byway.simulation.loop import WorldLog
from byway.simulation.world import DAY, START, World


def novel_transitions(world: World, log: WorldLog) -> NDArray[np.int64]:
    """[n, 4] in order of time: the two sub-areas last enjoyed, the novel one, the user.

    Paper 1, section 2.3: a sub-area's first event for the user counts where its satisfaction is positive and
    two different sub-areas were enjoyed before; sub-areas already met, liked or not, are not novel.
    """
    sub_area = world.topics.sub_area[world.items.topic[log.item]]
    met: list[set[int]] = [set() for _ in world.user_ids]
    enjoyed: list[list[int]] = [[] for _ in world.user_ids]
    found: list[tuple[int, int, int, int]] = []
    for user, cluster, satisfaction in zip(
        log.user.tolist(), sub_area.tolist(), log.satisfaction.tolist(), strict=True
    ):
        if satisfaction >= world.settings.positive:
            recent = enjoyed[user]
            if cluster not in met[user] and len(recent) >= 2:
                found.append((recent[-2], recent[-1], cluster, user))
            if cluster in recent:
                recent.remove(cluster)
            recent.append(cluster)
        met[user].add(cluster)
    return np.array(found, np.int64)


def scores(world: World, train: NDArray[np.int64], test: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """[tests, sub-areas] a score for every way to guess, the truth about the user being the last and highest."""
    topics, settings = world.topics, world.settings
    s = len(topics.sub_areas)
    share = np.eye(s)[topics.sub_area]
    share /= share.sum(0)
    popularity = np.bincount(train[:, 2], minlength=s).astype(float)
    successors = np.zeros((s, s))
    for place in (0, 1):
        np.add.at(successors, (train[:, place], train[:, 2]), 1)
    appeals = share.T @ (topics.appeals @ topics.appeals.T) @ share
    world_rule = appeals + settings.mood_area * (topics.area[:, None] == topics.area)
    liking = (world.users.affinity**4) @ share
    one, two, user = test[:, 0], test[:, 1], test[:, 3]
    return {
        "chance": np.random.default_rng(0).random((len(test), s)),
        "popularity": np.tile(popularity, (len(test), 1)),
        "successor": successors[one] + successors[two] + 1e-3 * popularity,
        "appeals": appeals[one] + appeals[two],
        "appeals_and_area": world_rule[one] + world_rule[two],
        "user_truth": liking[user],
    }


def recall(score: NDArray[np.float64], test: NDArray[np.int64], n: int = 10) -> float:
    """Share of tests whose novel sub-area is among the n best that are not one of the two."""
    score = score.copy()
    for place in (0, 1):
        score[np.arange(len(test)), test[:, place]] = -np.inf
    return float(((-score).argsort(1, kind="stable")[:, :n] == test[:, 2:3]).any(1).mean())


def liked(world: World, log: WorldLog, score: NDArray[np.float64], test: NDArray[np.int64]) -> float:
    """Share of tests in which the user would like something in the best sub-area that the log never showed."""
    topics, user = world.topics, test[:, 3]
    met = np.zeros((len(world.users), len(topics.sub_areas)), np.bool_)
    met[log.user, topics.sub_area[world.items.topic[log.item]]] = True
    best = np.where(met[user], -np.inf, score).argmax(1)
    within = topics.sub_area == best[:, None]
    return float(((world.users.affinity[user] >= world.settings.liked) & within).any(1).mean())


def spread(world: World, log: WorldLog, first: int, last: int, known: bool) -> float:
    """How many sub-areas, in effect (inverse Simpson), share a user's events of those days; mean over users.

    With `known`, how many of the interests that the user had when the log began. Users with 8 events or more.
    """
    topics, users = world.topics, world.users
    day = (log.time - START) // DAY
    now = (day >= first) & (day < last)
    counts = np.zeros(users.affinity.shape)
    np.add.at(counts, (log.user[now], world.items.topic[log.item[now]]), 1)
    counts = counts * users.known if known else counts @ np.eye(len(topics.sub_areas))[topics.sub_area]
    counts = counts[counts.sum(1) >= 8]
    shares = counts / counts.sum(1, keepdims=True)
    return float((1 / (shares**2).sum(1)).mean())


def by_context(world: World, log: WorldLog) -> dict[str, float]:
    """Mean satisfaction of an event after one in the same sub-area (similar) and after one in another sub-area
    of the same area (serendipitous; paper 2, section 2)."""
    order = np.lexsort((log.time, log.user))
    sub_area = world.topics.sub_area[world.items.topic[log.item[order]]]
    area, user = world.topics.area[sub_area], log.user[order]
    near = (user[1:] == user[:-1]) & (area[1:] == area[:-1])
    same = sub_area[1:] == sub_area[:-1]
    satisfaction = log.satisfaction[order][1:]
    return {
        "satisfaction.similar": float(satisfaction[near & same].mean()),
        "satisfaction.serendipitous": float(satisfaction[near & ~same].mean()),
    }


def never_shown(world: World, log: WorldLog) -> float:
    """Share of the sub-areas known at the start of which the log has no event of that user."""
    in_sub_area = np.eye(len(world.topics.sub_areas))[world.topics.sub_area]
    known = world.users.known @ in_sub_area > 0
    shown = np.zeros(known.shape, np.bool_)
    shown[log.user, world.topics.sub_area[world.items.topic[log.item]]] = True
    return float((known & ~shown).sum() / known.sum())


def zipf_slope(plays: NDArray[np.int64]) -> float:
    """Slope of log plays over log rank, from the first percent of the items to the first half."""
    ranked = np.sort(plays)[::-1]
    rank = np.arange(len(ranked) // 100, len(ranked) // 2)
    return float(np.polyfit(np.log(rank + 1), np.log(ranked[rank] + 1e-9), 1)[0])


def figures(made: World) -> dict[str, float]:
    """Every figure of one world, by name."""
    log = loop.simulate(made)
    days = made.settings.days
    day = (log.time - START) // DAY
    watched = np.zeros((len(made.users), days))
    np.add.at(watched, (log.user, np.minimum(day, days - 1)), log.watch_seconds)
    plays = np.bincount(log.item, minlength=len(made.items))
    found = novel_transitions(made, log)
    cut = int(0.8 * len(found))
    test = found[cut:]
    ways = scores(made, found[:cut], test)
    random = world.build(made.seed, replace(made.settings, recommender="random"))
    random_log = loop.simulate(random)
    pleasing = made.users.affinity >= made.settings.liked
    out = {
        "events": len(log),
        "satisfaction": float(log.satisfaction.mean()),
        "positive": float((log.satisfaction >= made.settings.positive).mean()),
        "daily_users": float((watched > 0).mean()),
        "daily_users_over_ten_minutes": float((watched > 600).mean()),
        "known_at_start": float(made.users.known.sum(1).mean()),
        "undiscovered_at_start": float((pleasing & ~made.users.known).sum(1).mean()),
        "known_at_end": float(log.end.known.sum(1).mean()),
        "zipf_slope": zipf_slope(plays),
        "traffic_of_top_tenth": float(np.sort(plays)[-len(plays) // 10 :].sum() / plays.sum()),
        "novel_transitions": len(found),
        "known_sub_areas_never_shown": never_shown(made, log),
        **by_context(made, log),
        "random.satisfaction": float(random_log.satisfaction.mean()),
    }
    third = days // 3
    for name, first in (("early", 0), ("late", days - third)):
        out[f"known_interests_{name}"] = spread(made, log, first, first + third, known=True)
        out[f"sub_areas_{name}"] = spread(made, log, first, first + third, known=False)
        out[f"random.sub_areas_{name}"] = spread(random, random_log, first, first + third, known=False)
    out |= {f"recall_at_10.{name}": recall(score, test) for name, score in ways.items()}
    out |= {f"liked_at_1.{name}": liked(made, log, score, test) for name, score in ways.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", choices=["full", "small"], default="full")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chance", action="store_true", help="liking of undiscovered interests by chance")
    options = parser.parse_args()
    runs: list[dict[str, float]] = []
    for seed in range(options.seeds):
        made = world.build(seed, {"full": world.FULL, "small": world.SMALL}[options.world])
        runs.append(figures(chance_liking(made) if options.chance else made))
    print(json.dumps({name: round(float(np.mean([run[name] for run in runs])), 3) for name in runs[0]}, indent=2))


if __name__ == "__main__":
    main()
