"""KuaiRec's matrix in both layouts: what is in the file is what people feel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from byway.base.errors import UserError
from byway.data.events import Events
from byway.simulation import replay, truth
from byway.simulation.runs import Setup, run_arm
from tests.simulation import planted

USERS, ITEMS = ["10", "11", "12"], ["v", "100", "101", "102"]


def nobody() -> Events:
    empty = np.empty(0)
    return Events(empty.astype("i4"), empty.astype("i4"), empty.astype("i8"), empty.astype("f4"), False, 3, 4)


def test_the_public_layout(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small_matrix.csv").write_text(
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "10,100,3000,3000,x,1,1.0,1.0\n10,102,9000,3000,x,1,1.0,3.0\n12,100,0,3000,x,1,,0.0\n99,100,1,1,x,1,1,1\n"
    )
    real, users, missing = truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)
    assert isinstance(real, replay.Replay)
    assert users.tolist() == [0, 2]
    assert missing.tolist() == [True, False, True, False]
    felt = real.watch(np.array([0, 2]), np.array([3, 1]), np.random.default_rng(0))
    assert felt.satisfaction.tolist() == [1.0, 0.0]
    assert felt.seconds.tolist() == [9.0, 0.0]
    once = real.watch(np.array([0]), np.array([1]), np.random.default_rng(0))
    assert once.satisfaction.tolist() == [0.5]
    assert real.visits(0, np.random.default_rng(0)).tolist() == [2, 0, 2]


def test_the_layout_of_positives(tmp_path: Path) -> None:
    (tmp_path / "positives_fully_observed.csv").write_text("user_id,video_id\n10,100\n12,102\n")
    real, users, missing = truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)
    assert isinstance(real, replay.Replay)
    assert users.tolist() == [0, 2]
    assert missing.tolist() == [True, False, True, False]
    assert real.satisfaction.sum() == 2
    # Seen by 10 and not liked.
    assert real.watch(np.array([0]), np.array([3]), np.random.default_rng(0)).satisfaction.tolist() == [0.0]


def test_strangers_and_an_empty_folder_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="what people feel"):
        truth.files(tmp_path)
    (tmp_path / "small_matrix.csv").write_text("user_id,video_id,play_duration,watch_ratio\n7,8,1,1\n")
    with pytest.raises(UserError, match="none of its users"):
        truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)


def test_an_arm_is_answered_by_the_matrix(tmp_path: Path) -> None:
    """Everything shown is in the matrix, and positive feedback is what the matrix says of just these pairs."""
    tiny = planted.tiny()
    setup = planted.setup(tiny, tmp_path, days=3)
    n, items = len(tiny.user_ids), np.arange(0, 420, 2)
    liked = (np.random.default_rng(0).random((n, 420)) < 0.3).astype(np.float32)
    users = np.arange(0, n, 3)
    matrix = liked[np.ix_(users, items)]
    real = replay.Replay(matrix, np.zeros_like(matrix), users, items, (n, 420), 5)
    own = Setup(setup.kit, real, real.users, real.missing(), None, setup.settings, tmp_path)
    run = run_arm(own, {}, "control", real.users, 0, "")
    assert run.items[1::2].sum() == 0
    assert run.tally["platform.impressions"][0].sum() == 3 * 5 * len(real.users)
    with np.load(next(tmp_path.glob("run*.npz"))) as saved:
        np.testing.assert_array_equal(saved["satisfaction"], liked[saved["user"], saved["item"]])
    assert "watch_minutes" not in run.tally


@pytest.mark.realdata
def test_the_real_matrix_is_read(realdata: Callable[[str], Path]) -> None:
    folder = realdata("kuairec")
    (path,) = truth.files(folder)
    pairs = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    users = [str(u) for u in np.unique(pairs[:, 0])]
    items = [str(v) for v in np.unique(pairs[:, 1])]
    real = replay.load(path, items, users, 10)
    assert len(real.users) == 688
    assert len(real.items) <= 3327
    assert real.satisfaction.sum() == len(pairs) == 107_309
