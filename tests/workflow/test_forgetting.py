"""People who are taken out of a workspace: no file of it holds their ids, and all that stays is as it was."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from byway.base import artifact, config
from byway.base.errors import UserError
from byway.data import events
from byway.serving import history, stores
from byway.workflow import forgetting, pipeline, refresh, stages
from tests.workflow import test_refresh as small

ANN, BO = "a-person-named-ann", "a-person-named-bo"


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    counted = replace(
        stages.TRANSITION_TABLE,
        build=lambda work, inputs: small.table(work, inputs.transitions),
        reads=(stages.TRANSITIONS,),
    )
    with small.without_language_model(counted):
        yield


def named(rows: list[str]) -> list[str]:
    names = {"u7": ANN, "u65": BO}
    return [",".join([names.get(user := row.split(",")[0], user), *row.split(",")[1:]]) for row in rows]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Built from files that lie elsewhere, and refreshed: one person is in the log, another came later."""
    folder, data = tmp_path / "w", tmp_path / "data"
    folder.mkdir()
    data.mkdir()
    small.write(data / "items.csv", small.ITEM, small.titles(0, small.ITEMS))
    rows = named(small.log(0, small.USERS, small.ITEMS, 1_700_000_000, 0))
    # One row that is kept out, with the reason.
    small.write(data / "events.csv", small.EVENT, [*rows, f"{ANN},no-such-item,1700000000,1"])
    toml = small.TOML.replace('"items.csv"', f'"{data}/items.csv"').replace('"events.csv"', f'"{data}/events.csv"')
    (folder / "byway.toml").write_text(toml, "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"))
    late = named(small.log(50, 70, small.ITEMS, 1_710_000_000, 1))
    refresh.run(folder, settings(folder), None, small.write(data / "new.csv", small.EVENT, late))

    async def main() -> None:
        store = stores.open("", folder / "serving", 30)
        for user in (ANN, BO, "u3"):
            await store.add([history.Event(f"e{n}", user, f"i{n}", 10**15 + n) for n in range(50)])
            await store.expose(history.Answered("a", user, 10**15, "", "", [], []))
        await store.close()

    asyncio.run(main())
    return folder


def settings(folder: Path) -> config.Config:
    return config.load(folder / "byway.toml")


def holding(folder: Path, word: str) -> list[str]:
    """The files in whose bytes, or in whose columns once unpacked, a word stands."""
    found = list[str]()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += repr(pq.read_table(path).to_pydict()).encode()
        if word.encode() in data:
            found.append(str(path.relative_to(folder)))
    return found


def test_no_file_of_the_workspace_holds_who_was_forgotten(workspace: Path) -> None:
    assert {"01-catalog/users.parquet", "01-catalog/quarantine.parquet"} <= set(holding(workspace, ANN))
    assert "17-refresh/users.parquet" in holding(workspace, BO)
    assert any(name.startswith("serving/") for name in holding(workspace, ANN))
    before, users = events.load(workspace / "01-catalog"), events.load_users(workspace / "01-catalog")
    found = forgetting.forget(workspace, settings(workspace), [ANN, BO])
    assert found == {"users": 2, "history": 102, "events": small.EVENTS, "refreshes": True}
    said = forgetting.in_words(workspace, found)
    assert said.startswith(f"102 rows of the history and {small.EVENTS} events of the log are deleted.")
    assert "byway run" in said
    assert holding(workspace, ANN) == holding(workspace, BO) == []
    assert not (workspace / "17-refresh").exists()
    # Everybody else's log is as it was, under numbers without a gap.
    after, left = events.load(workspace / "01-catalog"), events.load_users(workspace / "01-catalog")
    assert left == [user for user in users if user != ANN]
    stays = before.user != users.index(ANN)
    assert [left[u] for u in after.user] == [users[u] for u in before.user[stays]]
    for name in ("item", "time", "satisfaction"):
        assert np.array_equal(getattr(after, name), getattr(before, name)[stays])
    assert (after.clock, after.positive, after.n_users) == (before.clock, before.positive, len(left))
    record = artifact.read_record(workspace / "01-catalog")
    assert record is not None
    assert artifact.edited(workspace / "01-catalog", record) == []
    assert (record.counts["users"], record.counts["events"]) == (len(left), len(after))


def test_the_next_run_builds_on_what_is_left(workspace: Path) -> None:
    before = {name: record.created for name, record in pipeline.records(workspace).items()}
    transitions = pipeline.records(workspace)["transitions"].digest
    forgetting.forget(workspace, settings(workspace), [ANN])
    kept = pipeline.records(workspace)["catalog"].digest
    pipeline.run(workspace, settings(workspace))
    after = pipeline.records(workspace)
    assert after["catalog"].digest == kept  # not read from the source again
    assert after["transitions"].digest != transitions
    assert set(after) == set(before)
    assert holding(workspace, ANN) == []


def test_who_is_not_there_changes_nothing(workspace: Path) -> None:
    before = {name: record.digest for name, record in pipeline.records(workspace).items()}
    assert forgetting.forget(workspace, settings(workspace), ["nobody"])["events"] == 0
    assert {name: record.digest for name, record in pipeline.records(workspace).items()} == before
    assert (workspace / "17-refresh").exists()


def test_a_history_that_does_not_answer_is_one_sentence(workspace: Path) -> None:
    away = config.load(workspace / "byway.toml", ["serving.history=redis://127.0.0.1:1/0"])
    with pytest.raises(UserError, match="same command again"):
        forgetting.forget(workspace, away, [ANN])
    assert holding(workspace, ANN)


def test_a_name_that_is_no_text_is_one_sentence(workspace: Path) -> None:
    with pytest.raises(UserError, match="no text in UTF-8"):
        forgetting.forget(workspace, settings(workspace), [ANN, "\udcff"])
    assert holding(workspace, ANN)  # nothing was deleted yet
