"""Everybody in the log, in a file: what each is answered alone, whatever was cut, stopped and taken up again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway.base import artifact
from byway.base.errors import UserError
from byway.serving.recommend import recommend
from byway.workflow import recommendations, showing
from tests.serving import house

USERS, PART = 50, 16


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("w")
    house.build(folder, users=USERS)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendations, "PART", PART)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The parts that were computed."""
    parts, real = list[range](), recommendations._answer_part

    def counted(*given: Any) -> pa.Table:
        parts.append(given[-1])
        return real(*given)

    monkeypatch.setattr(recommendations, "_answer_part", counted)
    return parts


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> Callable[[], None]:
    """Ctrl-C when so many parts are written; returns what lets the next run through."""
    real, written = artifact.write_atomic, list[Path]()

    def write(path: Path, data: bytes) -> None:
        if path.name.startswith("part-"):
            if len(written) == after:
                raise KeyboardInterrupt
            written.append(path)
        real(path, data)

    monkeypatch.setattr(artifact, "write_atomic", write)
    return lambda: monkeypatch.setattr(artifact, "write_atomic", real)


def test_everybody_is_answered_as_alone(workspace: Path, tmp_path: Path, asked: list[range]) -> None:
    out = tmp_path / "new" / "recs.parquet"
    found = recommendations.write(workspace, out, k=5, seed=3)
    assert asked == [range(0, 16), range(16, 32), range(32, 48), range(48, 50)]
    table = pq.read_table(out)
    assert found == {"users": USERS, "rows": table.num_rows}
    assert table.schema.equals(recommendations.SCHEMA)
    assert [path.name for path in out.parent.iterdir()] == ["recs.parquet"]
    opened, wanted = showing.served(workspace), []
    for user in (f"u{u}" for u in range(USERS)):
        seen, now = recommendations.logged(workspace, user)
        answer = recommend(opened, seen, recommendations.generator(3, user), 5, now)
        for rank, shown in enumerate(answer.items, 1):
            wanted.append((user, shown.item, rank, shown.score, shown.cluster, shown.propensity))
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert [row[:3] + row[4:] for row in rows] == [row[:3] + row[4:] for row in wanted]
    assert [row[3] for row in rows] == pytest.approx([row[3] for row in wanted], abs=2e-6)
    assert len({row[5] for row in rows}) > 10


def test_after_ctrl_c_only_what_is_missing_is_computed(
    workspace: Path, tmp_path: Path, asked: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    recommendations.write(workspace, tmp_path / "through.parquet", k=4)
    asked.clear()
    out, go_on = tmp_path / "recs.parquet", stopping(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        recommendations.write(workspace, out, k=4)
    assert not out.exists()
    assert asked == [range(0, 16), range(16, 32), range(32, 48)]
    go_on()
    # The second part was lost, and of the first one a kill left half of a later write.
    parts = tmp_path / "recs.parquet.parts"
    (parts / "part-000001.parquet").unlink()
    (parts / "part-000000.parquet.tmp").write_bytes(b"PAR1")
    asked.clear()
    recommendations.write(workspace, out, k=4)
    assert asked == [range(16, 32), range(32, 48), range(48, 50)]
    assert out.read_bytes() == (tmp_path / "through.parquet").read_bytes()
    assert not parts.exists()


def test_a_finished_file_is_left_as_it_is_until_something_is_asked_otherwise(
    workspace: Path, tmp_path: Path, asked: list[range]
) -> None:
    out = tmp_path / "recs.parquet"
    first = recommendations.write(workspace, out, k=4)
    asked.clear()
    assert recommendations.write(workspace, out, k=4) == first
    assert asked == []
    recommendations.write(workspace, out, k=3)
    assert len(asked) == 4
    assert max(pq.read_table(out)["rank"].to_pylist()) == 3


@pytest.mark.parametrize("other", ["k", "seed", "bundle"])
def test_parts_of_another_bundle_k_or_seed_are_not_taken(
    workspace: Path, tmp_path: Path, asked: list[range], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    folder, out = tmp_path / "w", tmp_path / "recs.parquet"
    shutil.copytree(workspace, folder)
    go_on = stopping(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        recommendations.write(folder, out, k=4, seed=0)
    go_on()
    asked.clear()
    if other == "bundle":
        shutil.rmtree(folder / "13-bundle")
        house.build(folder, seed=1, users=USERS)
    recommendations.write(folder, out, k=5 if other == "k" else 4, seed=int(other == "seed"))
    assert len(asked) == 4


def test_a_bundle_that_is_replaced_on_the_way_is_said(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "w", recommendations._keep_only
    shutil.copytree(workspace, folder)

    def replace(*given: Any) -> None:
        shutil.rmtree(folder / "13-bundle")
        house.build(folder, seed=1, users=USERS)
        real(*given)

    monkeypatch.setattr(recommendations, "_keep_only", replace)
    with pytest.raises(UserError, match="replaced meanwhile"):
        recommendations.write(folder, tmp_path / "recs.parquet")


@pytest.mark.parametrize("there", ["text", "table", "folder"])
def test_what_is_no_table_of_recommendations_is_not_overwritten(
    workspace: Path, tmp_path: Path, there: str
) -> None:
    out = tmp_path / "recs.parquet"
    if there == "text":
        out.write_text("my only copy", "utf-8")
    elif there == "table":
        pq.write_table(pa.table({"user": ["u1"]}), out)
    else:
        out.mkdir()
    with pytest.raises(UserError, match="is no table of recommendations"):
        recommendations.write(workspace, out)
    assert out.exists()


def test_two_that_write_one_file_do_not_meet(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    with artifact.locked(tmp_path / "recs.parquet.parts"), pytest.raises(UserError, match="is in use by"):
        recommendations.write(workspace, out)


def test_a_log_that_is_newer_than_the_bundle_is_said(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    shutil.copytree(workspace, folder)
    shutil.rmtree(folder / "01-catalog")
    house.log(folder, ["c0-0"] * len(house.NAMES), [""] * len(house.NAMES), 3)
    with pytest.raises(UserError, match="older than its catalog"):
        recommendations.write(folder, tmp_path / "recs.parquet")


def test_a_log_of_which_a_file_is_gone_is_one_sentence(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace, tmp_path / "w")
    (tmp_path / "w" / "01-catalog" / "users.parquet").unlink()
    with pytest.raises(UserError, match=r"01-catalog is damaged .*delete it and run again"):
        recommendations.write(tmp_path / "w", tmp_path / "recs.parquet")
