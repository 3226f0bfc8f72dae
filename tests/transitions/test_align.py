"""Aggregated satisfaction: what is collected from a log, what it is shrunk to, and what it picks."""

import numpy as np
import pytest

from byway.data.events import Events
from byway.transitions import align

# Items are clusters. User 0 likes 0 and 1, dislikes 2, likes 3; user 1 starts with 3.
LOG = [(0, 0, 1.0), (0, 1, 0.9), (0, 0, 0.8), (0, 2, 0.1), (0, 3, 0.7), (1, 3, 1.0), (1, 2, 0.3), (1, 3, 1.0)]


def events(clock: bool) -> Events:
    user, item, satisfaction = (np.array(column) for column in zip(*LOG, strict=True))
    time = np.array([0, 1, 2, 3, 4, 0, 1, 2])
    return Events(user.astype(np.int32), item.astype(np.int32), time, satisfaction.astype(np.float32), clock, 2, 4)


def test_first_events_in_new_clusters_are_collected_whether_liked_or_not() -> None:
    found = align.collect(events(clock=True), np.arange(4, dtype=np.int32), 2, until=10)
    # Disliked 2 is feedback, and no part of the context after it; 0 came again after 1, so it is the most recent.
    assert found.context.tolist() == [[0, 0], [1, 0], [1, 0], [3, 3]]
    assert found.label.tolist() == [1, 2, 3, 2]
    np.testing.assert_allclose(found.satisfaction, [0.9, 0.1, 0.7, 0.3])


@pytest.mark.parametrize(("clock", "until", "left"), [(True, 3, 3), (False, 0.4, 1)])
def test_nothing_later_than_the_training_part_is_collected(clock: bool, until: float, left: int) -> None:
    assert len(align.collect(events(clock), np.arange(4, dtype=np.int32), 2, until).label) == left


def test_means_follow_the_context_where_there_is_evidence_and_the_cluster_where_there_is_none() -> None:
    n = 4000
    context = np.tile(np.array([[0, 1], [1, 0]], np.int32), (n // 2, 1))
    label = np.full(n, 2, np.int32)
    liked_after = np.where(context[:, 0] == 0, 0.9, 0.2).astype(np.float32)
    label[: n // 2] = 3
    found = align.Satisfaction.of(align.Feedback(context, label, liked_after), 5)
    asked = np.array([[0, 1], [1, 0], [4, 4]])
    listed = np.tile(np.array([2, 3, 4, -1]), (3, 1))
    expected = found.expected(asked, listed)
    np.testing.assert_allclose(expected[:2, :2], [[0.9, 0.9], [0.2, 0.2]], atol=0.05)
    np.testing.assert_allclose(expected[2, :3], 0.55, atol=0.01)
    assert np.isnan(expected[:, 3]).all()


def test_few_votes_are_not_believed() -> None:
    context = np.array([[0, 1]] * 1001, np.int32)
    label = np.array([2] * 1000 + [3], np.int32)
    value = np.array([0.8] * 1000 + [1.0], np.float32)
    expected = align.Satisfaction.of(align.Feedback(context, label, value), 4).expected(
        context[:1], np.array([[2, 3]])
    )
    assert expected[0, 0] == pytest.approx(0.8, abs=0.01)
    assert expected[0, 1] < 0.85


def test_no_feedback_at_all_leaves_the_order() -> None:
    nothing = align.Feedback(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    expected = align.Satisfaction.of(nothing, 4).expected(np.array([[0, 1]]), np.array([[3, 2, -1]]))
    assert align.pick(expected, 3).tolist() == [[0, 1, 2]]
