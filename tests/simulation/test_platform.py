"""The platform with people of whom everything is known: who likes cluster 0 and nothing else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byway.simulation import control, platform
from byway.simulation.platform import Felt, Impressions, LiveSettings, live
from byway.simulation.source import NONE, Asked, Flags, Ints, Known, Logged, Source, best
from byway.simulation.tallies import tally

USERS, CLUSTERS, EACH = 12, 5, 20
KNOWN = Known(
    np.eye(CLUSTERS, 8, dtype=np.float32).repeat(EACH, 0),
    np.arange(CLUSTERS).repeat(EACH),
    (np.zeros(CLUSTERS, np.int64),),
)
NOBODY = np.zeros(CLUSTERS * EACH, np.bool_)


class Simple:
    """Three items a day each; 0.9 for cluster 0, 0.1 for the others; user 0 stays away."""

    def __init__(self) -> None:
        self.nights = 0

    def visits(self, day: int, rng: np.random.Generator) -> Ints:
        return np.where(np.arange(USERS) == 0, 0, 3)

    def discover(self, user: Ints, seen: Flags, rng: np.random.Generator) -> Ints:
        return np.full(len(user), NONE)

    def watch(self, user: Ints, item: Ints, rng: np.random.Generator) -> Felt:
        liked = np.where(KNOWN.cluster[item] == 0, 0.9, 0.1).astype(np.float32)
        return Felt(liked, np.full(len(user), 250, np.float32), np.zeros(len(user), np.bool_))

    def night(self) -> None:
        self.nights += 1

    def hidden(self) -> Sequence[NDArray[np.generic]]:
        return ()


class Always:
    """A source that names the items of one cluster, and keeps what it was told."""

    def __init__(self, cluster: int):
        self.cluster, self.logs = cluster, list[Logged]()

    def learn(self, log: Logged, today: int) -> None:
        self.logs.append(log)

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        return best(np.where(asked.seen | (KNOWN.cluster != self.cluster), -np.inf, 0).astype(np.float32), k)


def log() -> Logged:
    """Everybody met cluster 1 and disliked it, and saw item 0 of cluster 0, which pleased."""
    user = np.arange(USERS).repeat(2)
    item = np.tile([EACH, 0], USERS)
    return Logged(user, item, np.tile([0.1, 0.9], USERS).astype(np.float32), np.tile([-5, -4], USERS), USERS)


def run(
    arm: Source | None,
    seed: int = 0,
    share: float = 0.4,
    missing: Flags = NOBODY,
    days: int = 8,
    follows: bool = False,
) -> Impressions:
    return live(
        Simple(),
        KNOWN,
        log(),
        missing,
        arm,
        np.arange(10),
        settings=LiveSettings(days, share, candidates=6, blur=0.05),
        rng=np.random.default_rng(seed),
        follows=follows,
    )


def test_only_the_segment_is_served_and_nobody_sees_anything_twice() -> None:
    shown = run(Always(3))
    assert set(shown.user) == set(range(1, 10))
    met = list(zip(shown.user, shown.item, strict=True)) + list(zip(log().user, log().item, strict=True))
    assert len(set(met)) == len(met)
    assert (np.bincount(shown.day) == 27).all()


def test_what_is_missing_is_never_shown() -> None:
    missing = np.arange(CLUSTERS * EACH) % 2 == 0
    assert not missing[run(Always(3), missing=missing).item].any()


def test_the_arm_has_its_places_and_the_control_has_none() -> None:
    # With every place its own, whatever is shown is of its cluster, as long as that lasts.
    every = run(Always(3), share=1, days=6)
    assert every.by_arm.all()
    assert (KNOWN.cluster[every.item] == 3).all()
    some, none = run(Always(3), share=0.4, days=6), run(Always(3), share=0, days=6)
    assert none.by_arm.mean() + 0.15 < some.by_arm.mean() < 0.8
    assert not run(None).by_arm.any()


def test_the_ranker_learns_whom_to_trust() -> None:
    """Without places of its own, a source of what is disliked gets few, and one of what pleases nearly all."""
    good, bad = run(Always(0), share=0), run(Always(4), share=0)
    assert good.by_arm.mean() > 0.6
    assert bad.by_arm.mean() < 0.4
    assert good.satisfaction.mean() > bad.satisfaction.mean()


def test_a_log_of_positives_teaches_the_ranker_nothing_yet() -> None:
    one_sided = Logged(np.array([1, 2]), np.array([0, 21]), np.ones(2, np.float32), np.array([-1, -1]), USERS)
    assert (platform.Ranker.of(KNOWN, one_sided, NOBODY).weights() == 0).all()
    assert (platform.Ranker.of(KNOWN, log(), NOBODY).weights() != 0).any()


def test_novel_is_what_the_visit_began_without() -> None:
    shown = run(Always(3))
    for user in range(1, 10):
        own = shown.user == user
        met = {0, 1}
        for day in range(8):
            now = own & (shown.day == day)
            for cluster, novel in zip(KNOWN.cluster[shown.item[now]], shown.novel[now], strict=True):
                assert novel == (cluster not in met)
            met |= set(KNOWN.cluster[shown.item[now]].tolist())


def test_sources_learn_every_night_what_they_caused() -> None:
    arm = Always(3)
    shown = run(arm)
    assert [len(log) for log in arm.logs] == [24 + 27 * day for day in range(8)]
    last = arm.logs[-1]
    np.testing.assert_array_equal(last.item[24:], shown.item[: len(last) - 24])


def test_equal_seeds_make_equal_days() -> None:
    one, other, third = run(Always(3), 1), run(Always(3), 1), run(Always(3), 2)
    np.testing.assert_array_equal(one.item, other.item)
    assert not np.array_equal(one.item, third.item)


def test_the_book_kept_event_by_event_is_the_book_of_the_log() -> None:
    shown = run(Always(2), days=5)
    state = control.PlatformState.of(KNOWN, log(), NOBODY)
    rng = np.random.default_rng(0)
    assert len(rng.random(1)) == 1
    whole = log()
    for day in range(5):
        now = np.flatnonzero(shown.day == day)
        for i in now:
            one = slice(i, i + 1)
            state.add(KNOWN, shown.user[one], shown.item[one], shown.satisfaction[one], day)
        state.night()
    whole = platform.extended(whole, shown)
    again = control.PlatformState.of(KNOWN, whole, NOBODY)
    for name in ("history", "felt", "when", "seen", "count", "joy", "load", "plays", "satisfaction_sum", "taste"):
        np.testing.assert_allclose(getattr(state, name), getattr(again, name), atol=1e-4, err_msg=name)


def test_a_tally_counts_by_hand() -> None:
    shown = Impressions(
        user=np.array([1, 1, 1, 2]),
        item=np.array([0, 20, 40, 0]),
        day=np.array([0, 0, 1, 1]),
        nominators=np.array([8, 9, 1, 0], np.int8),
        novel=np.array([True, True, False, True]),
        satisfaction=np.array([0.9, 0.2, 0.7, 0.8], np.float32),
        seconds=np.array([500, 100, 200, 100], np.float32),
        unmet=np.array([True, False, False, True]),
        context=np.array([3, 5, 3, -1]),
    )
    bucket = np.where(np.arange(KNOWN.n_items) < 4, 1, 2)
    tallied = tally(
        shown,
        np.array([1, 2, 3]),
        4,
        2,
        cluster=KNOWN.cluster[shown.item],
        n_clusters=KNOWN.n_clusters,
        positive=KNOWN.positive,
        vectors=KNOWN.vectors[shown.item],
        bucket=bucket,
    )
    found = {name: (a.sum(), b.sum()) for name, (a, b) in tallied.items()}
    # The last impression was found without the feed, and after nothing.
    assert [found[f"bucket_{b}.{part}"] for b in (1, 2) for part in ("source", "rest")] == [
        (1, 1),
        (1, 1),
        (0, 1),
        (0, 0),
    ]
    assert found["novel_impressions"] == (2, 2)
    assert found["sole_impressions"] == (1, 2)
    assert found["positive_rate"] == (1, 2)
    assert found["unmet_positive_rate"] == (1, 1)
    assert found["new_positive_rate"] == (1, 2)
    assert found["platform.new_positive"] == (2, 6)
    assert found["platform.positive_rate"] == (3, 4)
    assert found["platform.serendipity"] == (2, 4)
    assert found["watch_minutes"] == (15, 6)
    assert found["daily_users_over_ten_minutes"] == (1, 6)
    assert found["engaged_pairs"] == (3, 3)
    assert found["uci_2"] == (1, 3)
    # User 1 had two items of different clusters on day 0, at right angles.
    assert found["intra_list_diversity"] == (1, 1)


class Next:
    """Names the unseen item whose number follows on what was watched last, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def learn(self, log: Logged, today: int) -> None:
        """Nothing is learned."""

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        last = asked.history[:, -1] - 1
        self.asked += zip(asked.user.tolist(), last.tolist(), strict=True)
        score = -((np.arange(KNOWN.n_items) - last[:, None] - 1) % KNOWN.n_items).astype(np.float32)
        return best(np.where(asked.seen, -np.inf, score).astype(np.float32), k)


def test_a_source_that_follows_is_asked_after_each_item_of_a_visit() -> None:
    arm = Next()
    shown = run(arm, share=1, days=3, follows=True)
    turn = np.arange(len(shown)) // 9 % 3  # nine people come each day, three items each
    assert not shown.by_arm[turn == 0].any()
    assert shown.by_arm[turn > 0].all()
    # It was asked about exactly what these people had watched right before, and that is what the record says.
    wanted = list(zip(shown.user[turn > 0].tolist(), shown.context[turn > 0].tolist(), strict=True))
    assert arm.asked == wanted
    before = {int(user): NONE for user in shown.user}
    for user, item, context, own in zip(shown.user, shown.item, shown.context, turn, strict=True):
        assert context == (before[user] if own or before[user] != NONE else context)
        before[user] = int(item)


def test_a_source_that_follows_has_its_share_of_the_places() -> None:
    shown = run(Next(), share=0.4, days=8, follows=True)
    assert 0.4 * 2 / 3 - 0.12 < shown.by_arm.mean() < 0.4 * 2 / 3 + 0.12
