"""Estimates of what another policy would have earned, beside the truth and a reference."""

import numpy as np

from byway.evaluation import offpolicy
from byway.evaluation.offpolicy import Exposed

CLUSTERS, ITEMS, K, ANSWERS = 3, 8, 2, 400


def chosen(rng: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    """K different items, drawn one after the other."""
    return rng.choice(ITEMS, K, replace=False, p=chance)


def inclusion(chance: np.ndarray) -> np.ndarray:
    """The chance of each item to be among the two, by hand: first, or second after each other one."""
    other = np.array(
        [sum(chance[j] * chance[i] / (1 - chance[j]) for j in range(ITEMS) if j != i) for i in range(ITEMS)]
    )
    return chance + other


def test_the_estimates_are_unbiased_and_their_intervals_hold_over_a_hundred_logs() -> None:
    rng = np.random.default_rng(0)
    logging, target = rng.dirichlet(np.full(ITEMS, 2.0)), rng.dirichlet(np.full(ITEMS, 2.0))
    logging = 0.5 * logging + 0.5 / ITEMS
    logged, wanted = inclusion(logging), inclusion(target)
    pleases = rng.uniform(0.1, 0.9, ITEMS)
    truth = float(wanted @ pleases / wanted.sum())
    found: dict[str, list[tuple[float, bool]]] = {}
    for _ in range(100):
        items = np.array([chosen(rng, logging) for _ in range(ANSWERS)])
        user = np.arange(ANSWERS) // 4
        zeal = rng.normal(0, 0.1, user.max() + 1)[user]
        reward = (rng.random(items.shape) < np.clip(pleases[items] + zeal[:, None], 0, 1)).astype(float)
        answer = np.repeat(np.arange(ANSWERS), K)
        log = Exposed(
            reward.ravel(), (wanted / logged)[items].ravel(), answer, np.full(ANSWERS, wanted.sum()), user
        )
        guess = np.full(ITEMS, 0.5) + 0.3 * (np.arange(ITEMS) / ITEMS - 0.5)  # wrong on purpose
        value = np.full(ANSWERS, float(wanted @ guess))
        for name, each in {
            "ips": offpolicy.ips(log),
            "snips": offpolicy.snips(log),
            "doubly robust": offpolicy.doubly_robust(log, guess[items].ravel(), value),
        }.items():
            found.setdefault(name, []).append((each.mean, each.low <= truth <= each.high))
        assert 0.8 < offpolicy.covered(log) < 1.2
        assert offpolicy.effective_size(log.weight) < K * ANSWERS
    for name, rows in found.items():
        means = np.array([mean for mean, _ in rows])
        assert abs(means.mean() - truth) < 4 * means.std() / 10, name
        assert np.mean([held for _, held in rows]) >= 0.88, name


def test_what_the_log_could_not_show_is_said() -> None:
    log = Exposed(np.ones(100), np.zeros(100), np.arange(100), np.ones(100), np.arange(100))
    assert offpolicy.covered(log) == 0
    assert offpolicy.effective_size(log.weight) == 0


def test_the_model_of_rewards_is_not_fitted_on_the_users_it_guesses_for() -> None:
    rng = np.random.default_rng(2)
    features, cluster = rng.normal(size=(600, 2)), np.repeat(np.arange(60), 10)
    reward = 0.3 + features @ [0.2, -0.1] + 0.01 * rng.normal(size=600)
    own, other = offpolicy.fitted(reward, features, cluster, features[:50], cluster[:50])
    assert np.abs(own - reward).max() < 0.06
    assert np.allclose(own[:50], other)
    spoiled = np.where(cluster == 4, 100.0, reward)
    again, _ = offpolicy.fitted(spoiled, features, cluster, features[:50], cluster[:50])
    assert np.allclose(again[cluster % 2 == 0], own[cluster % 2 == 0])
    assert not np.allclose(again[cluster % 2 == 1], own[cluster % 2 == 1])
