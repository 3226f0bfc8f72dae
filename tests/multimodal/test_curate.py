"""Pairs against counting by hand, and what curation promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data.events import Events
from byway.multimodal import curate
from byway.multimodal.curate import SERENDIPITOUS, SIMILAR, UNRELATED, PairSamples
from tests.multimodal import planted

HOUR = 3_600_000_000


def test_a_pair_is_an_event_and_the_one_before_it_of_the_same_person() -> None:
    user = np.array([0, 0, 0, 0, 1, 1], np.int32)
    item = np.array([3, 3, 8, 20, 8, 9], np.int32)
    time = np.array([0, 1, 2, 2 + 13 * HOUR, 5, 6], np.int64)
    content = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], np.float32)
    log = Events(user, item, time, content, True, 2, planted.ITEMS)
    found = curate.find(log, 12.0)
    # The same item twice is no pair, nor what comes 13 hours later, nor the next person's first.
    assert list(zip(found.context.tolist(), found.next.tolist(), strict=True)) == [(3, 8), (8, 9)]
    assert found.satisfaction.tolist() == pytest.approx([0.3, 0.6])
    assert found.progress.tolist() == pytest.approx([0.75, 1.0])


def test_kinds_follow_from_two_levels_of_the_tree() -> None:
    tree = planted.tree()
    found = curate.find(planted.events([(0, 1, 1.0), (0, 8, 1.0), (0, 16, 1.0), (16, 24, 1.0)]), 12.0)
    own = curate.kinds(found, tree.assign(2), tree.assign(1))
    # Every second event begins a new person, so that only the planted pairs are pairs.
    assert own.tolist() == [SIMILAR, SERENDIPITOUS, UNRELATED, SERENDIPITOUS]


def test_satisfaction_is_reported_by_kind(work: Work) -> None:
    log = planted.serendipitous()
    outcome = curate.build(work, config.Pairs(), log, planted.tree(), planted.seen(work.out))
    assert outcome.metrics["video.serendipitous_satisfaction"] == pytest.approx(0.9, abs=1e-3)
    assert outcome.metrics["video.similar_satisfaction"] == pytest.approx(0.3, abs=1e-3)
    pairs = curate.load(work.out)
    assert (pairs.level, pairs.delta, pairs.clusters) == (2, 1, 6)
    for samples in (pairs.samples, pairs.validation, pairs.heldout):
        assert (samples.label == (samples.item // 8) ^ 1).all()
    assert np.bincount(pairs.samples.label).tolist() == [10] * 6


def test_only_what_was_seen_is_a_context(work: Work) -> None:
    some = np.arange(0, planted.ITEMS, 2, dtype=np.int32)
    seen = planted.seen(work.out, rows=some)
    outcome = curate.build(work, config.Pairs(), planted.serendipitous(), planted.tree(), seen)
    pairs = curate.load(work.out)
    assert not (pairs.samples.item % 2).any()
    assert outcome.counts["unseen_context"] > 0


def brute_force(log: PairSamples, per_label: int, prior: float) -> dict[int, list[float]]:
    """The best shrunk satisfactions of each label, best first."""
    out: dict[int, list[float]] = {}
    for c in set(log.label.tolist()):
        rows = [i for i in range(len(log)) if log.label[i] == c]
        usual = sum(log.satisfaction[i] * log.count[i] for i in rows) / sum(log.count[i] for i in rows)
        drawn = [(log.satisfaction[i] * log.count[i] + prior * usual) / (log.count[i] + prior) for i in rows]
        out[c] = sorted(drawn, reverse=True)[:per_label]
    return out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(
        st.tuples(st.integers(0, 20), st.integers(0, 4)),
        st.tuples(st.integers(1, 9), st.floats(0, 1, width=32)),
        min_size=1,
        max_size=60,
    ),
    per_label=st.integers(1, 12),
    prior=st.sampled_from([0.0, 2.0]),
)
def test_every_label_has_its_best_contexts_equally_often(
    rows: dict[tuple[int, int], tuple[int, float]], per_label: int, prior: float
) -> None:
    log = PairSamples(
        np.array([i for i, _ in rows], np.int32),
        np.array([c for _, c in rows], np.int32),
        np.array([n for n, _ in rows.values()], np.int32),
        np.array([s for _, s in rows.values()], np.float32),
    )
    kept = curate.diversified(log, per_label, prior, 5, np.random.default_rng(0))
    count = np.bincount(kept.label, minlength=5)
    there = np.bincount(log.label, minlength=5) > 0
    assert (count[there] == per_label).all()
    assert (count[~there] == 0).all()
    best = brute_force(log, per_label, prior)
    usual = {
        c: float(np.average(log.satisfaction[log.label == c], weights=log.count[log.label == c])) for c in best
    }
    for c, expected in best.items():
        own = np.flatnonzero(kept.label == c)
        drawn = [(kept.satisfaction[i] * kept.count[i] + prior * usual[c]) / (kept.count[i] + prior) for i in own]
        # Repeats of a label's own contexts aside, these are the best there are.
        different = {(int(kept.item[i])): d for i, d in zip(own, drawn, strict=True)}
        assert sorted(different.values(), reverse=True) == pytest.approx(expected, abs=1e-5)


def test_the_split_is_in_time() -> None:
    found = curate.find(planted.serendipitous(), 12.0)
    part = curate.split(found, True, 0.2, 0.1)
    assert found.time[part == 0].max() <= found.time[part == 1].min()
    assert found.time[part == 1].max() <= found.time[part == 2].min()
    assert (part == 2).mean() == pytest.approx(0.2, abs=0.01)


def test_levels_that_the_tree_has_not_got_are_refused(work: Work) -> None:
    for own in (config.Pairs(level=2, delta=2), config.Pairs(level=5), config.Pairs(level=1, delta=0)):
        with pytest.raises(UserError, match=r"pairs\.delta"):
            curate.build(work, own, planted.serendipitous(), planted.tree(), planted.seen(work.out))


def test_the_posterior_is_counts_backed_off_to_the_cluster_and_its_siblings() -> None:
    fine = np.array([0, 0, 1, 2, 3], np.int32)  # clusters 0, 1 and 2 have one parent, 3 is alone
    broad = np.array([0, 0, 0, 0, 1], np.int32)
    log = PairSamples(
        np.array([0, 0, 1, 2], np.int32),
        np.array([1, 2, 2, 0], np.int32),
        np.array([3, 1, 4, 2], np.int32),
        np.ones(4, np.float32),
    )
    pairs = curate.Pairs(2, 1, 4, log, log, log, log)
    items = np.array([0, 1, 3, 4], np.int32)
    found = curate.posterior(pairs, fine, broad, balanced=True)(items)
    as_it_is = curate.posterior(pairs, fine, broad, balanced=False)(items)
    popular = np.array([2, 3, 5, 0]) + 1.0
    w = curate.BACK_OFF
    siblings = np.array([0, popular[1], popular[2], 0]) / (popular[1] + popular[2])
    cluster = (np.array([0, 3, 5, 0]) + w * siblings) / (8 + w)
    for row, own in ((0, [0, 3, 1, 0]), (1, [0, 0, 4, 0])):
        assert as_it_is[row] == pytest.approx((np.array(own) + w * cluster) / (4 + w), abs=1e-6)
        wanted = (np.array(own) + w * cluster) / popular
        assert found[row] == pytest.approx(wanted / wanted.sum(), abs=1e-6)
    # A cluster that nothing followed says what is popular among its siblings, which divides out.
    assert found[2] == pytest.approx([0.5, 0.5, 0, 0], abs=1e-6)
    assert not found[3].any()
