"""Deletion that deletes: the bytes of every file are searched, of the history here and of a server's."""

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from byway.serving import scrub, service, stores
from byway.serving.stores import Files
from byway.serving.valkey import Valkey
from tests.serving import house, running, valkey_server
from tests.serving.test_history import DAYS, NOW, answered, event


def holding(folder: Path, *words: str) -> dict[str, list[str]]:
    """The files under a folder in which a word stands, and which."""
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if some := [word for word in words if word.encode() in data]:
                found[str(path.relative_to(folder))] = some
    return found


def name(n: int) -> str:
    return f"person-{n:04d}-{'x' * (n % 40)}!"


async def fill(store: Files | Valkey) -> None:
    """People whose rows are of many lengths and came in any order, so that pages are split."""
    rows = [
        event(
            100 * n + k, user=name(n), item=f"i{k}" * (1 + (n * k) % 9), time=NOW + (7919 * n + 104729 * k) % 9973
        )
        for k in range(6)
        for n in range(400)
    ]
    for start in range(0, len(rows), 50):
        await store.add(rows[start : start + 50])
    await store.expose(*(answered(n, user=name(n)) for n in range(400)))


def test_nothing_of_hundreds_deleted_at_once_is_left_in_any_file(tmp_path: Path) -> None:
    gone = [name(n) for n in range(0, 400, 2)]

    async def main() -> None:
        one, two = Files(tmp_path), Files(tmp_path)
        await fill(one)
        assert holding(tmp_path, *gone)
        # Two workers at once, while others read and write.
        deletions = [(one, two)[n % 2].delete(user) for n, user in enumerate(gone)]
        writes = [one.add([event(n, user=name(1))]) for n in range(1000, 1050)]
        counts, _ = await asyncio.gather(asyncio.gather(*deletions), asyncio.gather(*writes))
        assert counts == [7] * len(gone)
        assert await one.scrub(at_once=True)
        assert holding(tmp_path, *gone) == {}
        assert len([user async for user in two.users()]) == 200
        assert (len(await two.of(name(1), 0)), len(await two.answers(name(3), 0))) == (56, 1)
        assert not await one.scrub()
        await one.close()
        await two.close()
        assert holding(tmp_path, *gone) == {}

    asyncio.run(main())


def test_a_kill_between_deletion_and_rewriting_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "DELAY", 0.0)
    rewrite = scrub._rewrite

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        store = Files(tmp_path)
        await fill(store)
        await store.delete(name(1))
        monkeypatch.setattr(scrub, "_rewrite", killed)
        with pytest.raises(KeyboardInterrupt):
            scrub.run(tmp_path, [tmp_path / "events.db"], sqlite3.connect)
        monkeypatch.setattr(scrub, "_rewrite", rewrite)
        # Deleted while the files were being written: another round.
        await store.delete(name(2))
        assert await store.scrub()
        assert holding(tmp_path, name(1), name(2)) == {}
        await store.close()

    asyncio.run(main())


def test_rewriting_takes_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "DELAY", 0.0)

    async def main() -> None:
        store = Files(tmp_path)
        await store.delete("a")
        monkeypatch.setattr(scrub, "_rewrite", lambda *_: time.sleep(0.05))
        assert await store.scrub()
        await store.delete("b")
        assert not await store.scrub()
        until = float((tmp_path / "scrub.lock").read_text())
        assert 10 <= until - time.time() <= 100
        (tmp_path / "scrub.lock").write_text(f"{time.time() - 1:.3f}")  # past, however it is rounded
        assert await store.scrub()
        await store.close()

    asyncio.run(main())


def test_what_is_on_its_way_to_the_log_does_not_come_back(tmp_path: Path) -> None:
    with valkey_server.running(tmp_path, running.free_port()) as url:
        for where in ("", url):

            async def main(where: str = where) -> None:
                store = stores.open(where, tmp_path / "store", DAYS)
                now = time.time_ns() // 1000
                await store.expose(answered(1, time=now - 5), answered(2, user="bo", time=now - 5))
                await store.delete("ann")
                await store.expose(answered(3, time=now - 1), answered(4, user="bo", time=now - 1))
                assert await store.answers("ann", 0) == []
                assert len(await store.answers("bo", 0)) == 2
                # Who comes back is logged again.
                await store.expose(answered(5, time=time.time_ns() // 1000 + 1))
                assert len(await store.answers("ann", 0)) == 1
                await store.close()

            asyncio.run(main())


PLAIN = ("--save", "3600 100000", "--rdbcompression", "no")
"""A server that makes snapshots too, in which bytes can be searched."""


def test_nothing_is_left_in_the_files_of_a_server(tmp_path: Path) -> None:
    gone = [name(n) for n in range(0, 400, 2)]
    folder = tmp_path / "valkey"
    folder.mkdir()
    with valkey_server.running(folder, running.free_port(), *PLAIN) as url:

        async def main() -> None:
            store = Valkey(url, DAYS)
            await fill(store)
            await store._rewritten("bgsave", "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
            assert "dump.rdb" in holding(folder, *gone)
            assert await asyncio.gather(*(store.delete(user) for user in gone)) == [7] * len(gone)
            assert len(holding(folder, *gone)) >= 2
            assert await store.scrub()
            assert holding(folder, *gone) == {}
            assert len([user async for user in store.users()]) == 200
            assert not await store.scrub()
            await store.close()

        asyncio.run(main())
    assert holding(folder, *gone) == {}


def test_the_service_overwrites_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "DELAY", 0.5)
    # On a busy machine the first rewriting, in the midst of the deletions, takes long enough for a long wait.
    monkeypatch.setattr(scrub, "SHARE", 1)
    monkeypatch.setattr(service, "SCRUB", 0.2)
    house.published(tmp_path / "w")
    gone = [name(n) for n in range(60)]
    with running.thread(tmp_path / "w") as client:
        for user in [*gone, "stays"]:
            events = [{"event": f"e{k}", "user": user, "item": f"c{k}-0"} for k in range(5)]
            assert client.post("/v1/events", json=events).status_code == 200
            assert client.post("/v1/recommend", json={"user": user, "k": 2}).status_code == 200

        def delete(user: str) -> int:
            with httpx.Client(base_url=client.base_url, timeout=30) as other:
                return other.delete(f"/v1/users/{user}").status_code

        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(delete, gone)) == {200}
        # At once nobody knows of them; their bytes go soon.
        said = client.get("/v1/log").text
        assert not [user for user in gone if user in said]
        assert "stays" in said
        end = time.monotonic() + 30
        while holding(tmp_path / "w", *gone) and time.monotonic() < end:
            time.sleep(0.1)
        assert holding(tmp_path / "w", *gone) == {}
        assert "stays" in client.get("/v1/log").text
    assert threading.active_count() < 20


# What is too old, and who may read


def test_what_is_too_old_goes_at_the_start_and_is_not_exported_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.published(tmp_path / "w")
    old, young = service.now() - 31 * 86_400_000_000, service.now() - 1000

    async def main() -> None:
        store = Files(tmp_path / "w" / "serving")
        await store.add([event(1, user="long-ago", time=old), event(2, user="lately", time=young)])
        await store.close()

    asyncio.run(main())
    with monkeypatch.context() as patch:
        # As with a service that could not forget yet.
        async def nothing(*given: object) -> int:
            return 0

        patch.setattr(Files, "forget", nothing)
        with running.thread(tmp_path / "w") as client:
            said = client.get("/v1/log").text
            assert ("lately" in said, "long-ago" in said) == (True, False)
    with running.thread(tmp_path / "w") as client:
        end = time.monotonic() + 10
        while time.monotonic() < end and "long-ago" in people(tmp_path / "w" / "serving"):
            time.sleep(0.05)
        assert people(tmp_path / "w" / "serving") == ["lately"]


def people(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "events.db") as found:
        return [user for (user,) in found.execute("SELECT DISTINCT user FROM events")]


def test_the_history_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "events.db").touch(0o644)

    async def main() -> None:
        store = Files(tmp_path)
        await store.add([event(1)])
        await store.expose(answered(1))
        files = sorted(path.name for path in tmp_path.iterdir() if path.suffix.startswith(".db"))
        assert files == [
            "answers.db",
            "answers.db-shm",
            "answers.db-wal",
            "events.db",
            "events.db-shm",
            "events.db-wal",
        ]
        assert [name for name in files if (tmp_path / name).stat().st_mode & 0o077] == []
        await store.close()

    asyncio.run(main())
