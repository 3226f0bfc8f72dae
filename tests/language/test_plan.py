"""The table: legal everywhere, the same however it is cut, and what its pairs say one by one."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.base.ranking import best_first
from byway.interests import tree as trees
from byway.interests.describe import Descriptions
from byway.language import plan, prompts, tune
from byway.language.fast import bulk, half
from byway.language.fast.choices import TrieSearch
from byway.language.fast.generate import Policy, prefill
from byway.transitions import table as tables
from byway.transitions import triples
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Ranked, Scorer, TableWeights
from tests.language.conftest import HOSTILE, make_tiny, needs_mkl, resolved

M = len(HOSTILE)
DESCRIPTIONS = Descriptions(([], HOSTILE, [], []))
VECTORS = np.random.default_rng(3).normal(size=(M, 8)).astype(np.float32)
TREE = trees.from_labels([np.zeros(M, np.int64), *[np.arange(M)] * 3])


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ROWS_PER_CHUNK", 4)
    monkeypatch.setattr(plan, "TOP", 4)


def transitions(history: int = 2) -> Transitions:
    rng = np.random.default_rng(0)
    context = np.array([rng.choice(M, history, replace=False) for _ in range(300)], dtype=np.int32)
    some = Samples(context, rng.integers(0, M, 300).astype(np.int32), np.ones(300, dtype=np.int32))
    return Transitions(2, M, True, some, some, some, some)


@pytest.fixture(params=["block", "causal"])
def tuned(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Any) -> tune.Tuned:
    folder = tmp_path / "model"
    make_tiny().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tune.Tuned(folder, str(folder), request.param, prompts.ENDINGS[request.param], [])


FILES = ("clusters.npy", "scores.npy", "model.npy")


def given(tuned: tune.Tuned, arithmetic: str, some: Transitions) -> plan.Given:
    return plan.Given(some, DESCRIPTIONS, tuned, TREE.similarity(VECTORS, 2), arithmetic)


def build(path: Path, tuned: tune.Tuned, arithmetic: str = "float32") -> tables.Table:
    (path / "scratch").mkdir(parents=True, exist_ok=True)
    work = Work(path, path / "scratch", np.random.default_rng(1))
    outcome = plan.build(work, given(tuned, arithmetic, transitions()))
    assert outcome.metrics["table.entries"] == M * M
    assert outcome.metrics["table.legal"] == 1.0
    return tables.load(path)


def test_every_entry_is_legal(tmp_path: Path, tuned: tune.Tuned) -> None:
    table = build(tmp_path / "t", tuned)
    own = np.arange(M)
    for ranking in (table.clusters, table.model):
        assert ranking.shape == (M, M, 4)
        assert ((ranking >= 0) & (ranking < M)).all()
        assert (ranking != own[:, None, None]).all()
        assert (ranking != own[None, :, None]).all()
        assert (np.diff(np.sort(ranking, axis=2), axis=2) > 0).all()
    assert (np.diff(table.scores, axis=2) <= 0).all()


def test_the_table_is_what_its_pairs_say_one_by_one(tmp_path: Path, tuned: tune.Tuned) -> None:
    table = build(tmp_path / "t", tuned)
    policy = plan.open_policy(tuned, transitions(), DESCRIPTIONS, "float32")
    pairs = np.array([[0, 1], [5, 5], [11, 3], [7, 2]], dtype=np.int32)
    with torch.no_grad():
        log_p = resolved(TrieSearch(policy, prefill(policy, pairs)))
    np.put_along_axis(log_p, pairs.astype(np.int64), -np.inf, axis=1)
    best = np.argsort(-log_p, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(table.model[pairs[:, 0], pairs[:, 1]], best)


def test_a_cut_table_goes_on_and_ends_the_same(
    tmp_path: Path, tuned: tune.Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", tuned)
    write, written = plan.write_atomic, list[str]()

    def cut(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        if path.name.startswith("rows-"):
            written.append(path.name)
        write(path, data)

    monkeypatch.setattr(plan, "write_atomic", cut)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", tuned)
    monkeypatch.setattr(plan, "write_atomic", write)
    rows = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut" / "scratch").glob("rows-*.npy")}
    assert sorted(rows) == sorted(written)
    build(tmp_path / "cut", tuned)
    for name, when in rows.items():
        assert (tmp_path / "cut" / "scratch" / name).stat().st_mtime_ns == when
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16", pytest.param("float16", marks=needs_mkl)])
def test_shards_make_the_bytes_of_the_single_run_however_batched(
    tmp_path: Path, tuned: tune.Tuned, arithmetic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ROWS_PER_CHUNK", 100)
    build(tmp_path / "whole", tuned, arithmetic)
    scratch = tmp_path / "shards" / "scratch"
    scratch.mkdir(parents=True)
    monkeypatch.setattr(plan, "ROWS_PER_CHUNK", 3)
    for number in (2, 3, 1):
        work = Work(tmp_path / "none", scratch, np.random.default_rng(1))
        before = {p.name for p in scratch.glob("rows-*.npy")}
        plan.fill(work, given(tuned, arithmetic, transitions()), (number, 3))
        assert {p.name for p in scratch.glob("rows-*.npy")} > before
    rows = {p: p.stat().st_mtime_ns for p in scratch.glob("rows-*.npy")}
    build(tmp_path / "shards", tuned, arithmetic)
    assert rows == {p: p.stat().st_mtime_ns for p in scratch.glob("rows-*.npy")}, "nothing is left to compute"
    for name in FILES:
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_shard_computes_as_the_first_did_whatever_is_fastest_where_it_runs(
    tmp_path: Path, tuned: tune.Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", tuned, "bfloat16")
    scratch = tmp_path / "shards" / "scratch"
    scratch.mkdir(parents=True)
    for number, fastest in enumerate(("bfloat16", "float32", "float32"), 1):
        monkeypatch.setattr(half, "fastest", lambda fastest=fastest: fastest)
        work = Work(tmp_path / "none", scratch, np.random.default_rng(1))
        plan.fill(work, given(tuned, "auto", transitions()), (number, 3))
    build(tmp_path / "shards", tuned, "auto")
    for name in FILES:
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_shards_that_begin_together_are_weighed_by_one_fit(
    tmp_path: Path, tuned: tune.Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", tuned)
    scratch = tmp_path / "shards" / "scratch"
    scratch.mkdir(parents=True)
    fit, fits = bulk.fit, list[object]()

    def slow(*given: Any) -> tuple[Scorer, float]:
        fits.append(given)
        time.sleep(0.5)
        # Whoever fits second finds another weight, as one under load finds another arithmetic.
        scorer, weight = fit(*given)
        return scorer.weighed(popularity=-float(len(fits) - 1)), weight

    open_policy, one_at_a_time = plan.open_policy, threading.Lock()

    def opened(*given: Any) -> Policy:
        with one_at_a_time:  # the library that loads models is not for several threads
            return open_policy(*given)

    monkeypatch.setattr(bulk, "fit", slow)
    monkeypatch.setattr(plan, "open_policy", opened)

    def shard(number: int) -> TableWeights:
        work = Work(tmp_path / "none", scratch, np.random.default_rng(1))
        with torch.no_grad():
            return plan.fill(work, given(tuned, "float32", transitions()), (number, 3))

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(shard, (1, 2, 3)))
    assert len(fits) == 1
    assert found == [found[0]] * 3
    build(tmp_path / "shards", tuned)
    for name in FILES:
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_with_three_interests_pairs_and_the_log_s_triples_are_answered(
    tmp_path: Path, tuned: tune.Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").mkdir()
    work = Work(tmp_path / "out", tmp_path / "scratch", np.random.default_rng(1))
    three = transitions(history=3)
    monkeypatch.setattr(plan, "TRIPLES", 100)
    outcome = plan.build(work, given(tuned, "float32", three))
    table = tables.load(tmp_path / "out")
    assert table.triples is not None
    assert table.model_triples is not None
    assert outcome.counts["triples"] == len(table.triples.keys) == 100
    # What is looked up is what the model says to the context asked for by itself.
    known = triples.key(three.train.context, M)
    kept = np.isin(known, table.triples.keys)
    assert kept.any()
    assert not kept.all()
    policy = plan.open_policy(tuned, three, DESCRIPTIONS, "float32")
    some = np.concatenate([three.train.context[kept][:3], three.train.context[~kept][:2]])
    asked_for = some.copy()
    asked_for[3:, 0] = asked_for[3:, 1]  # not in the list: the last two interests, as the pair (C1, C1, C2)
    with torch.no_grad():
        log_p = resolved(TrieSearch(policy, prefill(policy, asked_for)))
    np.put_along_axis(log_p, asked_for.astype(np.int64), -np.inf, axis=1)
    found = triples.look_up(table.model, table.model_triples, some)
    np.testing.assert_array_equal(found, best_first(log_p, 4))
    served = triples.look_up(table.clusters, table.triples, some)
    assert not (served[:, :, None] == asked_for[:, None, :]).any()


def test_more_interests_than_three_are_refused(tmp_path: Path, tuned: tune.Tuned) -> None:
    work = Work(tmp_path, tmp_path, np.random.default_rng(0))
    with pytest.raises(UserError, match="history"):
        plan.build(work, given(tuned, "float32", transitions(history=4)))


def test_near_ties_are_settled_in_float32(
    tmp_path: Path, tuned: tune.Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rounding is measured the first answers of bfloat16 are float32's, but for one in a thousand."""

    def firsts(arithmetic: Any, pairs: int) -> np.ndarray:
        monkeypatch.setattr(plan, "ROUNDING", pairs)
        found = build(tmp_path / f"{arithmetic}-{pairs}", tuned, arithmetic)
        return np.asarray(found.model[..., 0])

    exact, again, rough = firsts("float32", 256), firsts("bfloat16", 256), firsts("bfloat16", 0)
    assert (rough != exact).sum() > 3, "the model must have near ties, or nothing is shown"
    assert (again != exact).sum() <= 1


def test_only_pairs_that_another_cluster_follows_most_often_are_ranked_anew(tuned: tune.Tuned) -> None:
    since = Samples(np.array([[3, 4]], np.int32), np.array([9], np.int32), np.array([500], np.int32))
    alike = np.zeros((M, M))

    def ask_model() -> plan.Policy:
        return plan.open_policy(tuned, transitions(), DESCRIPTIONS, "float32")

    def follow(new: Samples, weight: float) -> tuple[Any, Any]:
        return plan.follow(transitions(), new, alike, TableWeights({"language_model": weight}), 4, ask_model)

    pairs, counted = follow(since, 0.0)
    at = pairs.tolist().index([3, 4])
    # Only 9 has been turned to since, so whichever pairs have changed now lead there.
    assert (counted[:, 0] == 9).all()
    assert len(pairs) < M * M
    assert not (pairs == 9).any()
    _, weighed = follow(since, 1e-9)
    np.testing.assert_array_equal(counted[at], weighed[at])
    _, spoken = follow(since, 100.0)
    with torch.no_grad():
        log_p = resolved(TrieSearch(ask_model(), prefill(ask_model(), pairs)))
    np.put_along_axis(log_p, pairs.astype(np.int64), -np.inf, axis=1)
    assert (spoken[:, 0] == log_p.argmax(axis=1)).mean() > 0.8
    three = np.array([[3, 5, 4], [5, 3, 4]], np.int32)
    own = Samples(three[:1], np.array([8], np.int32), np.array([900], np.int32))
    of_three, found = plan.follow(transitions(history=3), own, alike, TableWeights({}), 4, ask_model, triples=three)
    assert [3, 5, 4] in of_three.tolist()
    assert found[of_three.tolist().index([3, 5, 4])][0] == 8
    # What a model that was asked elsewhere named first leads, where it has all the weight, and nobody is asked.
    named = np.tile(np.array([7, 1], np.int32), (M, M, 1))
    named[:, 7] = named[7] = named[:, 1] = named[1] = 2
    said = Ranked(named, np.tile(np.arange(M, dtype=np.int32), (M, M, 1)))
    heavy = TableWeights({"counts": 0.0, "language_model": 1.0})
    again, ranked = plan.follow(transitions(), since, alike, heavy, 4, lambda: pytest.fail("asked"), said=said)
    outside = ~np.isin(again, [7, 1, 2]).any(axis=1)
    assert outside.any()
    assert (ranked[outside, :2] == [7, 1]).all()
    nothing = Samples(since.context[:0], since.label[:0], since.count[:0])
    assert [len(found) for found in follow(nothing, 0.0)] == [0, 0]
