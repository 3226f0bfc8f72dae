"""Pairs against counting by hand, and what curation promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data.events import Events
from byway.data.heldout import split
from byway.interests.tree import Tree
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
    outcome = curate.build(work, 2, log, planted.tree(), planted.seen(work.out))
    assert outcome.metrics["video.serendipitous_satisfaction"] == pytest.approx(0.9, abs=1e-3)
    assert outcome.metrics["video.similar_satisfaction"] == pytest.approx(0.3, abs=1e-3)
    pairs = curate.load(work.out)
    assert (pairs.level, pairs.clusters) == (2, 6)
    for samples in (pairs.samples, pairs.validation, pairs.heldout, pairs.fresh):
        assert len(samples)
        assert (samples.label == (samples.item // 8) ^ 1).all()
    assert np.bincount(pairs.samples.label).tolist() == [10] * 6


def test_only_what_was_seen_is_a_context(work: Work) -> None:
    some = np.arange(0, planted.ITEMS, 2, dtype=np.int32)
    seen = planted.seen(work.out, rows=some)
    outcome = curate.build(work, 2, planted.serendipitous(), planted.tree(), seen)
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
        np.zeros(len(rows), np.float32),
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


def test_a_log_without_a_serendipitous_pair_is_one_sentence(work: Work) -> None:
    log = planted.events([(i, (i + 16) % planted.ITEMS, 0.9) for i in range(planted.ITEMS)])
    with pytest.raises(UserError, match=r"none to learn from.*tree\.levels"):
        curate.build(work, 2, log, planted.tree(), planted.seen(work.out))


def test_the_split_is_in_time() -> None:
    found = curate.find(planted.serendipitous(), 12.0)
    part = split(found.time, found.progress, found.user, True, 0.2, 0.1)
    assert found.time[part == 0].max() <= found.time[part == 1].min()
    assert found.time[part == 1].max() <= found.time[part == 2].min()
    assert (part == 2).mean() == pytest.approx(0.2, abs=0.01)


def test_the_posterior_is_counts_backed_off_to_the_cluster_and_its_siblings() -> None:
    fine = np.array([0, 0, 1, 2, 3], np.int32)  # clusters 0, 1 and 2 have one parent, 3 is alone
    broad = np.array([0, 0, 0, 0, 1], np.int32)
    log = PairSamples(
        np.array([0, 0, 1, 2], np.int32),
        np.array([1, 2, 2, 0], np.int32),
        np.array([3, 1, 4, 2], np.int32),
        np.full(4, 0.5, np.float32),
        np.array([3, 1, 4, 2], np.float32),
    )
    w, own_w = curate.BACK_OFF, 7.0
    pairs = curate.Pairs(2, 4, log, log, log, log, log, back_off=own_w)
    items = np.array([0, 1, 3, 4], np.int32)
    found = curate.posterior(pairs, fine, broad)(items)
    popular = np.array([2, 3, 5, 0]) + 1.0
    siblings = np.array([0, popular[1], popular[2], 0]) / (popular[1] + popular[2])
    cluster = (np.array([0, 3, 5, 0]) + w * siblings) / (8 + w)
    for row, own in ((0, [0, 3, 1, 0]), (1, [0, 0, 4, 0])):
        assert found[row] == pytest.approx((np.array(own) + own_w * cluster) / (4 + own_w), abs=1e-6)
    # A cluster that nothing followed says what is popular among its siblings.
    assert found[2] == pytest.approx(popular * [1, 1, 0, 0] / popular[:2].sum(), abs=1e-6)
    assert not found[3].any()


def test_what_did_not_please_is_no_evidence(work: Work) -> None:
    """Shown twice as often, but liked by nobody: the feed's habit is not what is learned."""
    rows = [(i % 8, 8, 0.9) for i in range(100)] + [(i % 8, 16, 0.1) for i in range(200)]
    edges = ([0, 48], [0, 8, 16, 48], [0, 8, 16, 48], list(range(49)))
    tree = Tree(np.arange(planted.ITEMS, dtype=np.int32), tuple(np.array(s, np.int64) for s in edges))
    curate.build(work, 2, planted.events(rows), tree, planted.seen(work.out))
    pairs = curate.load(work.out)
    assert np.bincount(pairs.log.label, pairs.log.count).argmax() == 2
    found = curate.posterior(pairs, tree.assign(2), tree.assign(1))(np.arange(8, dtype=np.int32))
    assert (found.argmax(axis=1) == 1).all()


def test_no_training_sees_a_fresh_context(work: Work) -> None:
    curate.build(work, 2, planted.serendipitous(), planted.tree(), planted.seen(work.out))
    pairs = curate.load(work.out)
    fresh = set(pairs.fresh.item.tolist())
    assert len(fresh) == int(curate.FRESH * planted.ITEMS)
    for samples in (pairs.log, pairs.samples, pairs.validation, pairs.heldout):
        assert not fresh & set(samples.item.tolist())


@pytest.mark.parametrize(("own", "wanted"), [(True, 1.0), (False, 500.0)])
def test_the_weight_of_the_cluster_follows_from_what_an_item_tells(own: bool, wanted: float) -> None:
    """One cluster of items, three that follow: each item has a successor of its own, or all have all."""
    rng = np.random.default_rng(0)
    fine = np.repeat(np.arange(4, dtype=np.int32), [90, 1, 1, 1])
    broad = np.zeros(len(fine), np.int32)

    def drawn(n: int) -> PairSamples:
        item = np.repeat(np.arange(90), n)
        label = 1 + (item % 3 if own else rng.integers(0, 3, len(item)))
        key, count = np.unique(item * 4 + label, return_counts=True)
        satisfied = np.ones(len(key), np.float32)
        return PairSamples(
            (key // 4).astype(np.int32), (key % 4).astype(np.int32), count, satisfied, count.astype(np.float32)
        )

    evidence = curate.Evidence.of(drawn(5), fine, broad, 4)
    assert curate.fit_back_off(evidence, drawn(20)) == wanted
