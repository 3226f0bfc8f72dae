"""The item policy on planted logs: it must find the successor, prefer what people liked, and survive a kill."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data.events import Events
from byway.items import sequence, windows

SMALL = config.ItemPolicy(dim=16, history=10, epochs=6)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block that forgets nothing and learns fast."""
    monkeypatch.setattr(sequence, "LEARNING_RATE", 0.01)
    monkeypatch.setattr(sequence, "LAYERS", 1)
    monkeypatch.setattr(sequence, "DROPOUT", 0.0)


def log_of(histories, satisfaction=None, n_items=None):
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories]).astype(np.int32)
    item = np.concatenate(histories).astype(np.int32)
    liked = np.ones(len(item)) if satisfaction is None else np.concatenate(satisfaction)
    time = np.concatenate([np.arange(len(h)) for h in histories])
    n_items = n_items or int(item.max()) + 1
    return Events(user, item, time, liked.astype(np.float32), False, len(histories), n_items)


def circle(users=400, items=120, seed=0):
    """Everybody walks around one circle of items from a place of their own: the successor is certain."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(items)
    starts, lengths = rng.integers(items, size=users), rng.integers(3, 15, size=users)
    return log_of([order[(s + np.arange(n)) % items] for s, n in zip(starts, lengths, strict=True)])


def vectors_of(n, width=24, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


train = sequence.train


def train_fast(*given):
    """As `quick` says how fast: in another process too, which reads the module anew."""
    sequence.LEARNING_RATE = 0.01
    return train(*given)


def work_in(path, seed=0):
    (path / "out").mkdir(parents=True)
    (path / "scratch").mkdir(exist_ok=True)
    return Work(path / "out", path / "scratch", np.random.default_rng(seed))


def files(path):
    return {file.name: file.read_bytes() for file in sorted((path / "out").iterdir())}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"negatives": 30},
        {"top_k": 16},
        {"top_k": 16, "negatives": 30},
        {"processes": 2, "epochs": 20},
    ],
)
def test_learns_the_successor(work, settings, monkeypatch):
    if "processes" in settings:
        monkeypatch.undo()  # the other process reads the module anew
        monkeypatch.setattr(sequence, "LEARNING_RATE", 0.01)
        monkeypatch.setattr(sequence, "train", train_fast)
    events = circle()
    if "negatives" in settings:
        monkeypatch.setattr(sequence, "NEGATIVES", settings.pop("negatives"))
    processes = settings.pop("processes", 1)
    outcome = sequence.build(work, replace(SMALL, **settings), events, vectors_of(events.n_items), processes)
    found = outcome.metrics
    assert found["item_policy.recall_at_10"] > 0.9
    assert found["item_policy.ndcg_at_10"] > 0.8
    assert found["baseline.item_popularity.recall_at_10"] < 0.3
    assert outcome.counts["heldout"] == events.n_users / 4
    assert all(gate.passed for gate in outcome.gates.values())

    policy = sequence.load(work.out)
    session = onnxruntime.InferenceSession(policy.model, providers=["CPUExecutionProvider"])
    heldout = windows.hold_out(events, 1.0, np.random.default_rng(0))
    asked = next(windows.questions(events, heldout, SMALL.history, 50))
    scores = session.run(["vector"], {"history": asked.history})[0] @ policy.items.T
    assert policy.items.shape == (events.n_items, 16)
    assert (scores.argmax(axis=1) == asked.target).mean() > 0.8


@pytest.mark.parametrize("top_k", [0, 16])
def test_satisfaction_decides_between_two_successors(work, top_k, monkeypatch):
    """After each item come two others equally often: one is liked, the other is not, or less."""
    histories, liked = [], []
    for visit in range(600):
        pair, kind = visit % 20, (visit // 20) % 2 == 0
        histories.append([pair, 20 + pair if kind else 40 + pair])
        # Disliked where the pair is even: no label. Liked less where it is odd: a weaker one.
        liked.append([1.0, 1.0 if kind else 0.0 if pair % 2 == 0 else 0.6])
    events = log_of(histories, liked, 60)
    monkeypatch.setattr(sequence, "held_share", lambda users: 0.0)
    settings = replace(SMALL, top_k=top_k, epochs=15)
    sequence.build(work, settings, events, vectors_of(60))
    policy = sequence.load(work.out)
    session = onnxruntime.InferenceSession(policy.model, providers=["CPUExecutionProvider"])
    scores = session.run(["vector"], {"history": np.arange(1, 21)[:, None]})[0] @ policy.items.T
    own = np.arange(20)
    margin = scores[own, 20 + own] - scores[own, 40 + own]
    assert (margin > 0).all()
    assert margin[::2].mean() > margin[1::2].mean()


def test_behaviour_learns_what_people_did_not_like():
    """Beta sees every event, pi those with reward; and beta's gradient stops before the states."""
    events = log_of([[0, 1], [0, 2]] * 50, [[1.0, 1.0], [1.0, 0.1]] * 50, 4)
    log = windows.sequences(events, windows.hold_out(events, 0.0, np.random.default_rng(0)))
    settings = replace(SMALL, top_k=16)
    parts = sequence.initial(4, vectors_of(4), settings, 0)
    (first, length), *_ = windows.batches(log, 10, 1000, 0, 0)
    batch = windows.assemble(log, first, length)
    share = np.full(4, 0.25)
    sequence.loss(parts, batch, share, settings, 0).backward()
    to_policy = parts["policy"].items.weight.grad.clone()
    assert parts["behaviour"].weight.grad[2].abs().max() > 0
    # Without reward the policy has nothing to learn, whatever the behaviour does.
    parts.zero_grad()
    nothing = windows.Batch(batch.history, batch.label, np.zeros_like(batch.reward))
    sequence.loss(parts, nothing, share, settings, 0).backward()
    assert parts["behaviour"].weight.grad.abs().max() > 0
    assert parts["policy"].items.weight.grad.abs().max() == 0
    assert to_policy.abs().max() > 0


class Killed(Exception):
    pass


@pytest.mark.parametrize("top_k", [0, 16])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, top_k):
    events = circle(users=150)
    vectors = vectors_of(events.n_items)
    monkeypatch.setattr(sequence, "DROPOUT", 0.2)
    monkeypatch.setattr(sequence, "NEGATIVES", 40)
    monkeypatch.setattr(sequence, "CHECKPOINT_EVERY", 7)
    settings = replace(SMALL, top_k=top_k, epochs=3)
    assembled = windows.assemble

    def build(folder, kills=()):
        for kill in kills:
            left = [kill]

            def until(*arguments, left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return assembled(*arguments)

            monkeypatch.setattr(windows, "assemble", until)
            with pytest.raises(Killed):
                sequence.build(work_in(tmp_path / folder), settings, events, vectors)
            (tmp_path / folder / "out").rmdir()
        monkeypatch.setattr(windows, "assemble", assembled)
        return sequence.build(work_in(tmp_path / folder), settings, events, vectors)

    undisturbed = build("whole")
    assert undisturbed.counts["steps"] > 12
    # Killed before the first checkpoint, just before the second, and just after it.
    disturbed = build("killed", kills=(3, 13, 1))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert disturbed.metrics == undisturbed.metrics
    assert disturbed.counts == undisturbed.counts
    # Killed after the training, with all of it in the checkpoint.
    again = sequence.build(
        Work(tmp_path / "killed" / "out", tmp_path / "killed" / "scratch", np.random.default_rng(0)),
        settings,
        events,
        vectors,
    )
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert again.counts == undisturbed.counts


def test_no_global_randomness_is_drawn_or_set(work):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    events = circle(users=30)
    sequence.build(work, replace(SMALL, epochs=1), events, vectors_of(events.n_items))
    assert torch.equal(before, torch.get_rng_state())


def test_an_item_that_training_never_met_has_a_vector_by_its_content(work, monkeypatch):
    """Two blocks of items whose users never mix; content tells the blocks apart, and one item of each is unseen."""
    rng = np.random.default_rng(2)
    centre = vectors_of(2, seed=3)
    vectors = np.repeat(centre, 30, axis=0) + 0.3 * vectors_of(60, seed=4)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    histories = [rng.permutation(np.arange(1, 30) + 30 * (u % 2))[:8] for u in range(200)]
    monkeypatch.setattr(sequence, "held_share", lambda users: 0.0)
    sequence.build(work, SMALL, log_of(histories, n_items=60), vectors)
    policy = sequence.load(work.out)
    session = onnxruntime.InferenceSession(policy.model, providers=["CPUExecutionProvider"])
    of_blocks = session.run(["vector"], {"history": np.array([[3, 5, 8], [33, 35, 38]])})[0]
    unseen = vectors[[0, 30]] @ policy.content
    scores = of_blocks @ unseen.T
    assert scores[0, 0] > scores[0, 1]
    assert scores[1, 1] > scores[1, 0]


def test_a_log_too_short_to_learn_from(work):
    outcome = sequence.build(work, SMALL, log_of([[0], [1], [2]]), vectors_of(3))
    assert outcome.counts["steps"] == outcome.counts["heldout"] == 0
    assert sequence.load(work.out).items.shape == (3, 16)


def test_heads_must_divide_the_width(work):
    with pytest.raises(UserError, match=r"item_policy\.dim is 15"):
        sequence.build(work, replace(SMALL, dim=15), circle(users=5), vectors_of(120))


def test_places_break_ties_by_the_catalogs_order():
    scores = np.array([[1.0, 3.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 5.0]], dtype=np.float32)
    met = np.array([0, 1]), np.array([1, 4])
    assert sequence.places(scores, np.array([3, 0]), met).tolist() == [1, 0]


def test_schedule_climbs_and_falls():
    rates = [sequence.schedule(p) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert 0 < top <= 10
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert max(rates) > 0.98


def test_two_trainings_end_in_the_same_bytes(tmp_path):
    """Long histories, so that threads share the gradient of the distances' vectors."""
    rng = np.random.default_rng(0)
    events = log_of([rng.integers(200, size=60) for _ in range(80)])
    settings = config.ItemPolicy(dim=64, history=50, epochs=4)
    for name in ("a", "b"):
        sequence.build(work_in(tmp_path / name), settings, events, vectors_of(events.n_items))
    assert files(tmp_path / "a") == files(tmp_path / "b")
