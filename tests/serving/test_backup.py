"""A history is copied and put back while a service writes it."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import backup, stores
from byway.serving.history import Event
from tests.serving import house, running

SETTINGS = config.Serving()


def events(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as opened:
        return {event for (event,) in opened.execute("SELECT event FROM events")}


def test_a_copy_under_load_is_whole_and_goes_back_into_a_service_that_runs(tmp_path: Path) -> None:
    workspace, copies = tmp_path / "w", tmp_path / "copies"
    house.published(workspace)
    stop, acknowledged, wrong = threading.Event(), list[str](), list[str]()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            body = [{"event": f"{n}-{i}", "user": f"u{i}", "item": "c0-1"} for i in range(5)]
            reply = client.post("/v1/events", json=body)
            if reply.status_code == 200:
                acknowledged.extend(one["event"] for one in body)
            else:
                wrong.append(reply.text)
            if client.post("/v1/recommend", json={"user": "u1", "k": 2}).status_code != 200:
                wrong.append("no answer")

    with running.thread(workspace, rate=0) as client:
        writing = threading.Thread(target=write)
        writing.start()
        try:
            for turn in range(8):
                while len(acknowledged) < 10 * turn:
                    time.sleep(0.01)
                before = set(acknowledged)
                assert backup.save(workspace, copies, SETTINGS) > 0
                assert before <= events(copies / "events.db")
        finally:
            stop.set()
            writing.join(30)
        assert wrong == []
        assert (copies / "events.db").stat().st_mode & 0o077 == 0
        saved = events(copies / "events.db")
        # Somebody deletes everything; the running service reads what was put back, and goes on writing.
        for i in range(5):
            client.delete(f"/v1/users/u{i}")
        assert events(workspace / "serving" / "events.db") == set()
        backup.restore(workspace, copies, SETTINGS)
        assert events(workspace / "serving" / "events.db") == saved
        reply = client.post("/v1/recommend", json={"user": "u1", "k": 2}).json()
        assert reply["strategy"] != "popular_items"
        more = {"event": "later", "user": "u1", "item": "c1-1"}
        assert client.post("/v1/events", json=more).json()["stored"] == 1
        assert client.post("/v1/events", json={**more, "event": sorted(saved)[0], "user": "u0"}).status_code == 200
    backup.restore(tmp_path / "elsewhere", copies, SETTINGS)
    assert events(tmp_path / "elsewhere" / "serving" / "events.db") == saved


def test_what_is_no_copy_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no history yet"):
        backup.save(tmp_path, tmp_path / "copies", SETTINGS)
    copies = tmp_path / "copies"
    copies.mkdir()
    with pytest.raises(UserError, match=r"events\.db is missing"):
        backup.restore(tmp_path, copies, SETTINGS)
    for name in backup.FILES:
        (copies / name).write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="no whole copy"):
        backup.restore(tmp_path, copies, SETTINGS)
    for name in backup.FILES:
        (copies / name).write_bytes(b"")
    with pytest.raises(UserError, match="no whole copy"):
        backup.restore(tmp_path, copies, SETTINGS)
    assert not (tmp_path / "serving").exists()
    with pytest.raises(UserError, match="the server"):
        backup.save(tmp_path, copies, config.Serving(history="redis://127.0.0.1/0"))


def test_a_copy_is_not_put_in_the_place_of_the_history(tmp_path: Path) -> None:
    asyncio.run(written(tmp_path))
    own = tmp_path / "serving"
    before = [(own / name).stat().st_ino for name in backup.FILES]
    for act in (backup.save, backup.restore):
        with pytest.raises(UserError, match="where the history itself is"):
            act(tmp_path, tmp_path / "elsewhere" / ".." / "serving", SETTINGS)
    assert [(own / name).stat().st_ino for name in backup.FILES] == before


async def written(workspace: Path) -> None:
    """A history with one event."""
    store = stores.open("", workspace / "serving", SETTINGS.forget_days)
    await store.add([Event("e", "ann", "i", 1_790_000_000_000_000)])
    await store.close()


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(written(tmp_path))

    def full(path: Path) -> sqlite3.Connection:
        opened = sqlite3.connect(path)
        if path.suffix == ".part":
            opened.execute("PRAGMA max_page_count = 1")
        return opened

    monkeypatch.setattr(backup, "_opened", full)
    with pytest.raises(
        UserError, match=r"events\.db\.part could not be written \(database or disk is full\); make"
    ):
        backup.save(tmp_path, tmp_path / "copies", SETTINGS)
