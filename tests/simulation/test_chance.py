"""Numbers by user, day and purpose: of the right distribution, and the same whoever else is there."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from byway.simulation.chance import Chance

LUCK = Chance((3, 1))
N = 20_000


def drawn(make: Callable[[np.random.Generator], np.ndarray], users: int = N, day: int = 0) -> np.ndarray:
    return make(LUCK.of(np.arange(users), "test", day))


@pytest.mark.parametrize(
    ("make", "of"),
    [
        (lambda rng: rng.random(N), stats.uniform()),
        (lambda rng: rng.normal(2, 3, N), stats.norm(2, 3)),
        (lambda rng: rng.gumbel(size=(N, 1))[:, 0], stats.gumbel_r()),
        (lambda rng: rng.standard_exponential((N, 2), dtype=np.float32)[:, 1], stats.expon()),
        (lambda rng: rng.beta(np.full(N, 0.7), np.full(N, 9.3)), stats.beta(0.7, 9.3)),
    ],
)
def test_distributions_are_numpys(
    make: Callable[[np.random.Generator], np.ndarray], of: stats.rv_continuous
) -> None:

    assert stats.kstest(drawn(make), of.cdf).pvalue > 1e-3


def test_poisson_is_scipys_inverse() -> None:
    mean = np.linspace(0, 30, N)
    found = drawn(lambda rng: rng.poisson(mean))
    np.testing.assert_array_equal(found, stats.poisson.ppf(drawn(lambda rng: rng.random(N)), mean))


def test_a_user_meets_the_same_whoever_else_is_there() -> None:
    everybody, few = np.arange(100), np.array([7, 60, 99])
    one, other = (LUCK.of(users, "test", 4, 2) for users in (everybody, few))
    for draw in (
        lambda rng, n: rng.random((n, 5)),
        lambda rng, n: rng.normal(0, 1, n),
        lambda rng, n: rng.standard_exponential((n, 9000), dtype=np.float32),
    ):
        np.testing.assert_array_equal(draw(one, 100)[few], draw(other, 3))
    with pytest.raises(ValueError, match="one row a user"):
        one.random(3)


def test_purposes_days_turns_and_seeds_have_their_own() -> None:
    user = np.arange(2000)
    found = [
        chance.of(user, purpose, day, turn).random(2000)
        for chance, purpose, day, turn in (
            (LUCK, "a", 0, 0),
            (LUCK, "b", 0, 0),
            (LUCK, "a", 1, 0),
            (LUCK, "a", 0, 1),
            (Chance((3, 0)), "a", 0, 0),
        )
    ]
    rng = LUCK.of(user, "a", 0, 0)
    rng.random(2000)
    found.append(rng.random(2000))
    found.append(np.roll(found[0], 1))
    apart = np.abs(np.corrcoef(found) - np.eye(len(found)))
    assert apart.max() < 0.09
