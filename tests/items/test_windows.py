"""Windows, batches and held-out events against what can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.data.events import Events
from byway.items import windows


def events_of(*histories, satisfaction=None, n_items=100):
    """A log of whole histories, one a user."""
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories]).astype(np.int32)
    item = np.concatenate([np.array(h, dtype=np.int32) for h in histories])
    liked = np.ones(len(item)) if satisfaction is None else np.concatenate(satisfaction)
    time = np.concatenate([np.arange(len(h)) for h in histories])
    return Events(user, item, time, liked.astype(np.float32), False, len(histories), n_items)


def test_held_out_is_the_first_good_event_with_an_item_new_to_the_user_in_the_last_quarter():
    """Of twelve events the last quarter begins at the tenth, place 9; of three it is the last."""
    twelve = list(range(1, 13))
    events = events_of(
        twelve,  # plain: the tenth
        [*twelve[:9], 3, 11, 12],  # the tenth is met already: the eleventh
        twelve,  # neither the tenth nor the eleventh was liked: the last
        twelve,  # nothing of the last quarter was liked: the ninth, which is the last such before it
        [*twelve[:6], 1, 2, 3, 1, 2, 3],  # nothing new since the sixth
        satisfaction=[
            np.ones(12),
            np.ones(12),
            [*np.ones(9), 0, 0.2, 1],
            [*np.ones(9), 0, 0.2, 0],
            np.ones(12),
        ],
    )
    heldout = windows.hold_out(events, 1.0, np.random.default_rng(0))
    assert (heldout.at - 12 * heldout.user).tolist() == [9, 10, 11, 8, 5]
    assert heldout.user.tolist() == [0, 1, 2, 3, 4]
    # Nothing from there on is seen in training.
    log = windows.sequences(events, heldout)
    assert (log.stop - log.start).tolist() == [9, 10, 11, 8, 5]


def test_held_out_of_few_events_is_the_last_that_can_be_asked_about():
    events = events_of(
        [1, 2, 3],  # plain: 3
        [1, 2, 1],  # the last is a repeat: 2
        [4, 5, 6],  # the last was not liked: 5
        [7],  # nothing before it
        [8, 9],  # only the first was liked
        satisfaction=[[1, 1, 1], [1, 1, 1], [1, 1, 0.2], [1], [1, 0]],
    )
    heldout = windows.hold_out(events, 1.0, np.random.default_rng(0))
    assert heldout.user.tolist() == [0, 1, 2]
    assert events.item[heldout.at].tolist() == [3, 2, 5]
    log = windows.sequences(events, heldout)
    assert (log.stop - log.start).tolist() == [2, 1, 1, 1, 2]
    assert log.item[log.seen()].tolist() == [1, 2, 1, 4, 7, 8, 9]
    assert log.frequency()[[1, 3, 5, 6]].tolist() == [2, 0, 0, 0]
    assert log.reward.tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0])


def test_a_share_of_the_users_is_held_out():
    events = events_of(*[[u % 7, 10 + u % 5] for u in range(50)])
    heldout = windows.hold_out(events, 0.3, np.random.default_rng(0))
    assert len(heldout.at) == len(set(heldout.user.tolist())) == 15
    assert len(windows.hold_out(events, 0.0, np.random.default_rng(0)).at) == 0


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_every_label_is_in_one_window_of_one_batch(lengths, history, size, epoch):
    histories = [np.arange(100 * u, 100 * u + n) for u, n in enumerate(lengths)]
    events = events_of(*histories, n_items=1200)
    log = windows.sequences(events, windows.HeldOut(np.empty(0, np.int64), np.empty(0, np.int64)))
    found = []
    for first, length in windows.batches(log, history, size, 7, epoch):
        assert length.min() >= 1
        assert length.max() <= history
        assert length.sum() < size + history
        batch = windows.assemble(log, first, length)
        assert (batch.history > 0).sum() == len(batch.label) == len(batch.reward)
        found += batch.label.tolist()
        # In this world the item after x is x + 1, so each label follows its own input.
        assert (batch.history[batch.history > 0] == batch.label).all()
    assert sorted(found) == sorted(x for h in histories for x in h[1:].tolist())


def test_batches_are_a_function_of_seed_and_epoch():
    events = events_of(*[np.arange(u % 9 + 2) for u in range(40)])
    log = windows.sequences(events, windows.hold_out(events, 0.1, np.random.default_rng(0)))

    def flat(seed, epoch):
        return [x for first, _ in windows.batches(log, 4, 16, seed, epoch) for x in first.tolist()]

    assert flat(1, 2) == flat(1, 2)
    assert flat(1, 2) != flat(1, 3)
    assert flat(1, 2) != flat(2, 2)


def test_assemble_pads_on_the_left():
    log = windows.sequences(
        events_of([10, 11, 12], [20, 21]), windows.HeldOut(np.empty(0, np.int64), np.empty(0, np.int64))
    )
    batch = windows.assemble(log, np.array([0, 3]), np.array([2, 1]))
    assert batch.history.tolist() == [[11, 12], [0, 21]]
    assert batch.label.tolist() == [11, 12, 21]


def test_questions():
    events = events_of([1, 2, 3, 4], [5, 6], [7, 8, 9])
    heldout = windows.HeldOut(np.array([0, 2]), np.array([3, 7]))
    (first,), (second,) = [[q] for q in windows.questions(events, heldout, 2, 1)]
    assert first.history.tolist() == [[3, 4]]
    assert first.target.tolist() == [4]
    assert [x.tolist() for x in first.met] == [[0, 0, 0], [1, 2, 3]]
    assert second.history.tolist() == [[0, 8]]
    assert second.target.tolist() == [8]
    assert [x.tolist() for x in second.met] == [[0], [7]]


def test_a_log_with_nothing_to_learn():
    events = events_of([1], [2])
    heldout = windows.hold_out(events, 0.5, np.random.default_rng(0))
    assert len(heldout.at) == 0
    assert windows.batches(windows.sequences(events, heldout), 5, 10, 0, 0) == []
