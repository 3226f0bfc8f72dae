"""The table: legal everywhere, the same however it is cut, and what its pairs say one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway import config
from byway.artifact import Work
from byway.errors import UserError
from byway.interests.describe import Descriptions
from byway.language import plan, tune
from byway.language.curate import Samples, Transitions
from byway.language.generate import Choices, ask
from tests.language.conftest import HOSTILE, make_tiny

M = len(HOSTILE)
DESCRIPTIONS = Descriptions(([], HOSTILE, [], []))
KNOBS = config.TransitionTable(top=4, rows_per_chunk=5, precision="float32")


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
    return tune.Tuned(folder, str(folder), request.param, [])


def build(path: Path, tuned: tune.Tuned) -> plan.Table:
    (path / "scratch").mkdir(parents=True, exist_ok=True)
    work = Work(path, path / "scratch", np.random.default_rng(1))
    outcome = plan.build(work, KNOBS, transitions(), DESCRIPTIONS, tuned)
    assert outcome.metrics["table.entries"] == M * M
    assert outcome.metrics["table.legal"] == 1.0
    return plan.load(path)


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
    asked_of = plan.open_policy(tuned, transitions(), DESCRIPTIONS, KNOBS)
    pairs = np.array([[0, 1], [5, 5], [11, 3], [7, 2]], dtype=np.int32)
    with plan.torch.no_grad():
        log_p = Choices(asked_of, ask(asked_of, pairs)).resolve_all()
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
        written.append(path.name)
        write(path, data)

    monkeypatch.setattr(plan, "write_atomic", cut)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", tuned)
    monkeypatch.setattr(plan, "write_atomic", write)
    rows = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut" / "scratch").glob("rows-*")}
    assert sorted(rows) == sorted(written)
    build(tmp_path / "cut", tuned)
    for name, when in rows.items():
        assert (tmp_path / "cut" / "scratch" / name).stat().st_mtime_ns == when
    for name in ("clusters.npy", "scores.npy", "model.npy"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_table_of_triples_is_refused(tmp_path: Path, tuned: tune.Tuned) -> None:
    work = Work(tmp_path, tmp_path, np.random.default_rng(0))
    with pytest.raises(UserError, match="history"):
        plan.build(work, KNOBS, transitions(history=3), DESCRIPTIONS, tuned)
