"""The controls can fail: a source that peeks is caught, arms that differ are told apart."""

import numpy as np

from byway.simulation import control, controls, platform
from byway.simulation.planned import Planned, RandomCluster, Scored
from byway.simulation.simulated import Simulated
from byway.simulation.source import Asked, Floats, Ints, Logged
from tests.simulation import planted


class Peeking:
    """A grounding that knows what people like."""

    def __init__(self, people: Simulated):
        self.affinity, self.topic = people.world.users.affinity, people.world.items.topic

    def learn(self, log: Logged, today: int) -> None: ...

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        return self.affinity[asked.user][:, self.topic]


class Remembering(Peeking):
    """The same by way of the people's state alone."""

    def __init__(self, people: Simulated):
        self.state, self.topic = people.state, people.world.items.topic

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        return self.state.known[asked.user][:, self.topic].astype(np.float32)


def test_a_source_that_peeks_is_caught_and_the_truth_is_put_back() -> None:
    tiny = planted.tiny()
    people = tiny.people()
    known, log = planted.known_of(tiny.world), planted.experiment.logged(tiny.events)
    state = control.PlatformState.of(known, log, np.zeros(known.n_items, np.bool_))
    asked = platform.asked_of(state, np.arange(10), 0)
    before = [array.copy() for array in people.hidden()]
    assert controls.leaks(Scored(Peeking(people)), people, asked, 5, 0)
    assert controls.leaks(Planned(known, RandomCluster(), Remembering(people)), people, asked, 5, 0)
    honest = platform.control_sources(known, log.n_users)[0]
    honest.learn(log, 0)
    assert not controls.leaks(honest, people, asked, 5, 0)
    for was, now in zip(before, people.hidden(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_what_differs_is_told_from_what_does_not() -> None:
    rng = np.random.default_rng(0)
    half = np.arange(400) < 200
    shown = {side: np.where(half == side, 10.0, 0.0) for side in (True, False)}

    def liked(side: bool, share: float) -> np.ndarray:
        return rng.binomial(shown[side].astype(int), share).astype(float)

    one = {"same": (liked(True, 0.5), shown[True]), "other": (liked(True, 0.5), shown[True])}
    two = {"same": (liked(False, 0.5), shown[False]), "other": (liked(False, 0.3), shown[False])}
    # Two people against none are no evidence, although every draw of them says so.
    one["rare"] = np.where(np.arange(400) < 2, 1.0, 0.0), shown[True]
    two["rare"] = np.zeros(400), shown[False]
    assert controls.different(one, two, 300, rng) == {"same": False, "other": True}


def test_what_moves_all_who_live_in_a_run_is_seen_over_several_deals_alone() -> None:
    rng = np.random.default_rng(1)
    shown = np.full(300, 20.0)

    def lived(deals: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Liking is 0.5, and what the platform learned in a run moves it by about as much as people's chance."""
        share = 0.5 + 0.012 * rng.standard_normal((deals, 1))
        return {"liked": (rng.binomial(20, share, (deals, 300)).astype(float), np.tile(shown, (deals, 1)))}

    def called(deals: int) -> float:
        found = [controls.different(lived(deals), lived(deals), 300, rng) for _ in range(60)]
        return float(np.mean([each["liked"] for each in found]))

    assert called(1) > 0.2
    assert called(5) < 0.15
