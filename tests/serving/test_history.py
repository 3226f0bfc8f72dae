"""One suite for both stores: files, and a real server. Reading gives what was written; what is deleted is gone."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from byway.serving import history, stores
from byway.serving.history import DAY, Answered, Event, Exposure, as_rows
from byway.serving.stores import Files
from byway.serving.valkey import Valkey
from tests.serving import running, valkey_server

NOW = 20_000 * DAY
DAYS = 30
Store = Files | Valkey


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that keeps an append-only file."""
    with valkey_server.running(tmp_path_factory.mktemp("valkey"), running.free_port()) as found:
        yield found


@pytest.fixture(params=["files", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """What `stores.open` is given."""
    if request.param == "files":
        return "", tmp_path / "store"
    import redis

    found = request.getfixturevalue("url")
    with redis.Redis.from_url(found) as client:
        client.flushdb()
    return found, tmp_path


def event(n: int, user: str = "ann", item: str | None = None, time: int | None = None, **more: object) -> Event:
    return Event(f"e{n}", user, item or f"i{n}", NOW + n if time is None else time, **more)


def answered(n: int, user: str = "ann", time: int = NOW) -> Answered:
    shown = [Exposure(f"i{n}", "table", 0.25, "jazz"), Exposure("x", "known", 1.0, "chess")]
    return Answered(f"a{n}", user, time, "exp", "b", ["chess"], shown)


def run(place: tuple[str, Path], *steps: object) -> list[object]:
    """Open the store, await each step, close it."""

    async def main() -> list[object]:
        store = stores.open(*place, DAYS)
        try:
            return [await step(store) for step in steps]
        finally:
            await store.close()

    return asyncio.run(main())


def test_what_was_added_is_read_in_order_of_time(place: tuple[str, Path]) -> None:
    rows = [event(3), event(1, satisfaction=0.25, watch_seconds=1.5, source="s", answer="a"), event(2)]
    (new, found, limited, after, other) = run(
        place,
        lambda s: s.add(rows),
        lambda s: s.of("ann", 0),
        lambda s: s.of("ann", 0, 2),
        lambda s: s.of("ann", NOW + 2),
        lambda s: s.of("bo", 0),
    )
    assert new == [True] * 3
    assert found == [rows[1], rows[2], rows[0]]
    assert limited == [rows[2], rows[0]]
    assert (after, other) == ([rows[0]], [])


def test_equal_times_stay_in_order_of_arrival(place: tuple[str, Path]) -> None:
    rows = [event(n, time=NOW) for n in (5, 3, 9, 1, 10, 2)]
    _, _, found = run(place, lambda s: s.add(rows[:3]), lambda s: s.add(rows[3:]), lambda s: s.of("ann", 0))
    assert found == rows


def test_an_event_that_comes_again_changes_nothing(place: tuple[str, Path]) -> None:
    same = event(1, item="other", time=NOW + 50)
    (_, new, twice, elsewhere, found) = run(
        place,
        lambda s: s.add([event(1)]),
        lambda s: s.add([same, event(2)]),
        lambda s: s.add([event(3), event(3)]),
        # Ids are those of one user.
        lambda s: s.add([event(1, user="bo")]),
        lambda s: s.of("ann", 0),
    )
    assert (new, twice, elsewhere) == ([False, True], [True, False], [True])
    assert found == [event(1), event(2), event(3)]


def test_events_of_several_users_in_one_batch(place: tuple[str, Path]) -> None:
    rows = [event(n, user=f"u{n % 7}") for n in range(300)]
    new, found, users = run(place, lambda s: s.add(rows), lambda s: s.of("u3", 0), everybody)
    assert new == [True] * 300
    assert found == [e for e in rows if e.user == "u3"]
    assert users == sorted({e.user for e in rows})


async def everybody(store: Store) -> list[str]:
    return [user async for user in store.users()]


def test_ids_of_any_script(place: tuple[str, Path]) -> None:
    users = ["🎬", "a b", "{x}", "}{", "a:b", "%00", "é", "e\u0301", "'; DROP TABLE events; --", "\u202eevil"]
    rows = [event(1, user=user, item=user) for user in users]
    new, found = run(place, lambda s: s.add(rows), lambda s: asyncio.gather(*(s.of(u, 0) for u in users)))
    assert new == [True] * len(users)
    assert list(found) == [[row] for row in rows]


def test_answers_are_read_as_they_were_logged(place: tuple[str, Path]) -> None:
    rows = [answered(n, time=NOW + n) for n in (2, 0, 1)]
    *_, found, other = run(
        place,
        *(lambda s, row=row: s.expose(row) for row in rows),
        lambda s: s.answers("ann", NOW),
        lambda s: s.answers("bo", 0),
    )
    assert (found, other) == ([rows[2], rows[0]], [])


def test_what_was_shown_is_stored_without_names_of_columns_that_could_change() -> None:
    stored = (
        b'{"answer":"a1","user":"ann","time":1728000000000000,"experiment":"exp","bundle":"b","interests":["chess"],'
        b'"shown":[["i1","table",0.25,"jazz"],["x","known",1.0,"chess"]],"arm":"","share":1.0}'
    )
    assert msgspec.json.encode(answered(1)) == stored
    assert msgspec.json.decode(stored, type=Answered) == answered(1)


def test_old_rows_are_forgotten(place: tuple[str, Path]) -> None:
    old = NOW - 31 * DAY
    rows = [event(1, time=old), event(2), event(1, user="bo", time=old)]
    (*_, gone, ann, bo, answers, users, again) = run(
        place,
        lambda s: s.add(rows),
        lambda s: s.expose(answered(1, time=old)),
        lambda s: s.expose(answered(2)),
        lambda s: s.forget(NOW - 30 * DAY),
        lambda s: s.of("ann", 0),
        lambda s: s.of("bo", 0),
        lambda s: s.answers("ann", 0),
        everybody,
        # A forgotten event is new again.
        lambda s: s.add([event(1)]),
    )
    assert gone == 3
    assert (ann, bo, answers, users, again) == ([event(2)], [], [answered(2)], ["ann"], [True])


def test_a_deleted_user_is_gone(place: tuple[str, Path]) -> None:
    (*_, gone, ann, answers, bo, users, twice) = run(
        place,
        lambda s: s.add([event(1), event(2), event(1, user="bo")]),
        lambda s: s.expose(answered(1)),
        lambda s: s.expose(answered(1, user="bo")),
        lambda s: s.delete("ann"),
        lambda s: s.of("ann", 0),
        lambda s: s.answers("ann", 0),
        lambda s: s.of("bo", 0),
        everybody,
        lambda s: s.delete("ann"),
    )
    assert (gone, ann, answers, twice) == (3, [], [], 0)
    assert (bo, users) == ([event(1, user="bo")], ["bo"])


def test_a_name_that_cannot_be_written_fails_alone_and_the_writer_goes_on(place: tuple[str, Path]) -> None:
    async def unwritable(store: Store) -> None:
        with pytest.raises(UnicodeEncodeError):
            await asyncio.wait_for(store.delete("\udcff"), 10)

    _, new, found = run(place, unwritable, lambda s: s.add([event(1)]), lambda s: s.of("ann", 0))
    assert (new, found) == ([True], [event(1)])


def test_nothing_of_a_deleted_user_is_left_in_the_files(tmp_path: Path) -> None:
    name = "somebody-with-a-name"

    async def main() -> None:
        store = Files(tmp_path)
        await store.add([event(n, user=name) for n in range(200)] + [event(n, user="bo") for n in range(200)])
        await store.expose(answered(1, user=name))
        files = [p for p in tmp_path.iterdir() if name.encode() in p.read_bytes()]
        assert files, "the test looks at the wrong files"
        await store.delete(name)
        await store.scrub(at_once=True)
        # While the store is still open: not only when the journal is put away at the end.
        assert not [p for p in tmp_path.iterdir() if name.encode() in p.read_bytes()]
        assert len(await store.of("bo", 0)) == 200
        await store.close()

    asyncio.run(main())


def test_what_is_stored_is_there_when_it_is_opened_again(place: tuple[str, Path]) -> None:
    run(place, lambda s: s.add([event(1)]), lambda s: s.expose(answered(1)))
    found = run(place, lambda s: s.of("ann", 0), lambda s: s.answers("ann", 0), lambda s: s.add([event(1)]))
    assert found == [[event(1)], [answered(1)], [False]]


def test_two_stores_on_one_place_see_each_other(place: tuple[str, Path]) -> None:
    async def main() -> None:
        one, two = stores.open(*place, DAYS), stores.open(*place, DAYS)
        rows = [event(n) for n in range(100)]
        news = await asyncio.gather(
            *(store.add(rows[n : n + 10]) for n in range(0, 100, 10) for store in (one, two))
        )
        # Each event was new to exactly one of them.
        assert sum(map(sum, news)) == 100
        assert await one.of("ann", 0) == await two.of("ann", 0) == rows
        await one.close()
        await two.close()

    asyncio.run(main())


WRITER = """
import asyncio, sys
from pathlib import Path
from byway.serving import stores
from byway.serving.history import Event, Answered, Exposure

async def main():
    store = stores.open(sys.argv[1], Path(sys.argv[2]), 30)
    async def write(k):
        for n in range(10**9):
            e = Event(f"{k}-{n}", "ann", f"i{n}", n + 1)
            await store.add([e])
            await store.expose(Answered(f"a{k}-{n}", "ann", n + 1, "", "", [], []))
            sys.stdout.write(e.event + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(write(k) for k in range(4)))
asyncio.run(main())
"""


def test_no_acknowledged_event_is_lost_when_the_process_is_killed(place: tuple[str, Path]) -> None:
    command = [sys.executable, "-c", WRITER, place[0], str(place[1])]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(100)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().splitlines(keepends=True)
    said = {line.decode().strip() for line in acknowledged if line.endswith(b"\n")}
    events, answers = run(place, lambda s: s.of("ann", 0, 10**6), lambda s: s.answers("ann", 0, 10**6))
    assert len(said) >= 100
    assert said <= {e.event for e in events}
    assert {f"a{name}" for name in said} <= {a.answer for a in answers}


def test_a_server_that_is_not_there_is_said() -> None:
    async def main() -> None:
        store = Valkey("redis://127.0.0.1:1/0", DAYS)
        for ask in (store.ping(), store.of("ann", 0), store.add([event(1)]), store.delete("ann")):
            with pytest.raises(history.Unavailable, match="does not answer"):
                await ask
        await store.close()

    asyncio.run(main())


def test_somebody_with_very_many_events_is_read_whole(place: tuple[str, Path]) -> None:
    rows = [event(n) for n in range(9000)]
    _, found = run(place, lambda s: s.add(rows), lambda s: s.of("ann", 0, 10**6))
    assert found == rows


def test_a_server_keeps_what_happened_as_long_as_the_setting_says(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        for days in (30, 400):
            client.flushdb()
            where = (url, Path(), days)

            async def main(where: tuple[str, Path, int] = where) -> None:
                store = stores.open(*where)
                await store.add([event(1)])
                await store.expose(answered(1))
                await store.close()

            asyncio.run(main())
            left = [client.ttl(key) for key in client.keys("byway:{*")]
            assert len(left) == 4
            assert min(left) > days * 86_400


def test_a_new_store_is_opened_while_another_process_turns_it_into_its_form(tmp_path: Path) -> None:
    """A file that is about to be written is locked at once, without the wait that other locks have."""
    other = sqlite3.connect(tmp_path / "events.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    _, found = run(("", tmp_path), lambda s: s.add([event(1)]), lambda s: s.of("ann", 0))
    assert found == [event(1)]
    release.join()
    other.close()


def test_an_append_only_file_is_noticed(url: str) -> None:
    (kept,) = run((url, Path()), lambda s: s.keeps())
    assert kept is True


# The log as a table of events


def test_every_exposure_is_a_row_with_what_came_of_it() -> None:
    first, second = answered(1), answered(2, time=NOW + 100)
    events = [
        event(1, item="x", time=NOW + 50, satisfaction=0.75, watch_seconds=3.0),
        event(2, item="x", time=NOW + 150, satisfaction=0.5),
        event(3, item="i2", time=NOW + 10, answer="a2", satisfaction=1.0),
        event(4, item="elsewhere", time=NOW + 60, source="search"),
        event(5, item="i1", time=NOW - 5),
    ]
    rows = as_rows(events, [first, second])
    brief = [(r["item"], r["time"] - NOW, r["satisfaction"], r["source"], r["propensity"]) for r in rows]
    assert brief == [
        ("i1", -5, 1.0, "", None),
        ("i1", 0, 0.0, "byway:exp:table", 0.25),
        ("i2", 10, 1.0, "byway:exp:table", 0.25),
        ("x", 50, 0.75, "byway:exp:known", 1.0),
        ("elsewhere", 60, 1.0, "search", None),
        ("x", 150, 0.5, "byway:exp:known", 1.0),
    ]
    assert [r["watch_seconds"] for r in rows] == [None, None, None, 3.0, None, None]


def test_a_probe_finds_a_server_that_takes_no_writes(url: str) -> None:
    import redis

    async def probe() -> None:
        store = Valkey(url, DAYS)
        try:
            await store.ping()
            await store.probe()
        finally:
            await store.close()

    asyncio.run(probe())
    with redis.Redis.from_url(url) as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(history.Unavailable):
                asyncio.run(probe())
        finally:
            client.config_set("min-replicas-to-write", 0)
    asyncio.run(probe())
