"""The store of the history: SQLite files here, or a Redis or Valkey server (`valkey`) by its URL.

Events and answers stand in two files, because they are written with different care. An event is flushed to the disk
before it is acknowledged (a flush takes 4 to 30 ms here), an answer is in the operating system's hands before it
is sent: it outlives the process, and a power cut may take the last ones."""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from byway.serving import scrub
from byway.serving.history import LATE, LIMIT, Answered, Event, Unavailable, hashed

if TYPE_CHECKING:
    from byway.serving.valkey import Valkey


TABLES = {
    "events": """
        CREATE TABLE IF NOT EXISTS events (
            user TEXT NOT NULL, event TEXT NOT NULL, item TEXT NOT NULL, time INTEGER NOT NULL,
            satisfaction REAL NOT NULL, watch_seconds REAL, source TEXT NOT NULL, answer TEXT NOT NULL,
            UNIQUE (user, event));
        CREATE INDEX IF NOT EXISTS events_of ON events (user, time);
        CREATE INDEX IF NOT EXISTS events_at ON events (time);""",
    "answers": """
        CREATE TABLE IF NOT EXISTS answers (user TEXT NOT NULL, time INTEGER NOT NULL, body BLOB NOT NULL);
        CREATE INDEX IF NOT EXISTS answers_of ON answers (user, time);
        CREATE INDEX IF NOT EXISTS answers_at ON answers (time);
        CREATE TABLE IF NOT EXISTS gone (who BLOB PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS confirmed (
            user TEXT NOT NULL, answer TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (user, answer));
        CREATE INDEX IF NOT EXISTS confirmed_at ON confirmed (time);""",
}
NEXT = """
    WITH RECURSIVE next(user) AS (
        SELECT min(user) FROM {table} WHERE user > ?
        UNION ALL SELECT (SELECT min(user) FROM {table} WHERE user > next.user) FROM next WHERE user IS NOT NULL)
    SELECT user FROM next WHERE user IS NOT NULL LIMIT ?"""
"""The next people in order: a step through the index for each, however many rows each has."""
CONFIRMED = """
    AND EXISTS (SELECT 1 FROM confirmed WHERE confirmed.user = answers.user
                AND answer = json_extract(CAST(body AS TEXT), '$.answer')) """
PEOPLE = 1000
"""People listed at a time."""


Job = tuple[Callable[[sqlite3.Connection], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class _Writer:
    """The one thread of a process that writes a file. Jobs that wait together share a transaction and its flush."""

    def __init__(self, path: Path, durable: bool):
        self._path, self._durable = path, durable
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        _connect(path, durable).close()
        self._thread = threading.Thread(target=self._run, name=f"writes {path.name}", daemon=True)
        self._thread.start()

    async def do(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `job` in a transaction; returns when that is committed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((job, loop, done))
        return await done

    def close(self) -> None:
        """Finish what was handed in."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = _connect(self._path, self._durable)
        stop = False
        while not stop:
            batch: list[Job] = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) == 256 or self._jobs.empty():
                    break
                job = self._jobs.get()
            stop = job is None
            if batch:
                _transact(connection, batch)
        connection.close()


def _connect(path: Path, durable: bool) -> sqlite3.Connection:
    # What people did is for the owner's eyes alone; SQLite gives its journals the rights of the file.
    # Only a file that is not there is opened for it: closing one drops the locks that SQLite holds in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    name = path.stem
    for left in reversed(range(50)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # Another process turns the fresh file into WAL at this moment, which no timeout waits for.
            if not left:
                raise
            time.sleep(0.02)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    # What is deleted is overwritten, so that nothing of it is left in the file.
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(TABLES[name])
    return connection


def _rewrite(connection: sqlite3.Connection) -> None:
    """Write what is there already: a page of the journal."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def _transact(connection: sqlite3.Connection, batch: list[Job]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [job(connection) for job, _, _ in batch]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = Unavailable(f"The history cannot be written: {error}.")
        outcomes: list[tuple[Job, Any]] = [(job, failure) for job in batch]
    else:
        outcomes = list(zip(batch, results, strict=True))
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Any]]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0][1], []).append(outcome)
    for loop, mine in by_loop.items():
        # A loop that has ended waits for nobody.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(outcomes: list[tuple[Job, Any]]) -> None:
    for (_, _, done), result in outcomes:
        if done.done():
            continue
        if isinstance(result, Unavailable):
            done.set_exception(result)
        else:
            done.set_result(result)


class Files:
    """The store in a folder, shared by the processes of one machine."""

    def __init__(self, folder: Path, confirmed: bool = False):
        """With `confirmed`, answers that no client confirmed are not read."""
        self._confirmed = confirmed
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._events, self._answers = folder / "events.db", folder / "answers.db"
        self._event_writer = _Writer(self._events, durable=True)
        self._answer_writer = _Writer(self._answers, durable=False)
        # Reading takes microseconds and never waits for a writer, so it is done in place. Whoever locks the whole
        # file out must not hold up other requests.
        self._read = _connect(self._events, durable=False)
        self._read_answers = _connect(self._answers, durable=False)
        self._slow = {path.stem: _connect(path, durable=False) for path in (self._events, self._answers)}
        self._alone = threading.Lock()
        for connection in (self._read, self._read_answers):
            connection.execute("PRAGMA busy_timeout = 100")

    async def add(self, events: list[Event]) -> list[bool]:
        """Store events; whether each is new. When this returns they are on the disk."""
        rows = [
            (e.user, e.event, e.item, e.time, e.satisfaction, e.watch_seconds, e.source, e.answer) for e in events
        ]

        def store(connection: sqlite3.Connection) -> list[bool]:
            insert = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            return [connection.execute(insert, row).rowcount == 1 for row in rows]

        return await self._event_writer.do(store)

    async def of(self, user: str, since: int, limit: int = LIMIT) -> list[Event]:
        """The latest events of a user after `since`, the most recent last; equal times in order of arrival."""
        found = await self._rows(
            "events",
            limit,
            "SELECT event, user, item, time, satisfaction, watch_seconds, source, answer FROM events "
            "WHERE user = ? AND time > ? ORDER BY time DESC, rowid DESC LIMIT ?",
            (user, since, limit),
        )
        return [Event(*row) for row in reversed(found)]

    async def expose(self, *answered: Answered) -> None:
        """Log answers. One from before a deletion of its user is not logged after it."""
        rows = [(a.user, a.time, msgspec.json.encode(a), hashed(a.user), a.time) for a in answered]
        insert = (
            "INSERT INTO answers SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM gone WHERE who = ? AND time >= ?)"
        )
        await self._answer_writer.do(lambda c: c.executemany(insert, rows) and None)

    async def confirm(self, user: str, answer: str) -> None:
        """Log that a client showed an answer."""
        row = (user, answer, time.time_ns() // 1000)
        insert = "INSERT OR IGNORE INTO confirmed VALUES (?, ?, ?)"
        await self._answer_writer.do(lambda c: c.execute(insert, row) and None)

    async def answers(self, user: str, since: int, limit: int = LIMIT) -> list[Answered]:
        """The latest answers to a user after `since`, the most recent last."""
        found = await self._rows(
            "answers",
            limit,
            f"SELECT body FROM answers WHERE user = ? AND time > ? {CONFIRMED if self._confirmed else ''}"
            "ORDER BY time DESC, rowid DESC LIMIT ?",
            (user, since, limit),
        )
        if limit <= LIMIT:
            return _decoded(found)
        return await asyncio.to_thread(_decoded, found)

    async def delete(self, user: str) -> int:
        """Forget a user: events and answers, how many. `scrub` removes what is left of them in the files."""
        await asyncio.to_thread(scrub.want, self._folder)  # first, so that a kill in between does no harm
        remember = "INSERT OR REPLACE INTO gone VALUES (?, ?)"
        at = time.time_ns() // 1000

        def drop(c: sqlite3.Connection) -> int:
            c.execute(remember, (hashed(user), at))
            c.execute("DELETE FROM confirmed WHERE user = ?", (user,))
            return c.execute("DELETE FROM answers WHERE user = ?", (user,)).rowcount

        counts = [
            await self._event_writer.do(lambda c: c.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount),
            await self._answer_writer.do(drop),
        ]
        await asyncio.to_thread(scrub.want, self._folder)
        return sum(counts)

    async def forget(self, before: int) -> int:
        """Drop what happened before a time; how many rows."""
        counts = [
            await writer.do(
                lambda c, table=table: c.execute(f"DELETE FROM {table} WHERE time < ?", (before,)).rowcount
            )
            for writer, table in self._writers()
        ]
        late = time.time_ns() // 1000 - 2 * LATE
        for table, old in (("gone", late), ("confirmed", before)):
            drop = f"DELETE FROM {table} WHERE time < ?"
            await self._answer_writer.do(lambda c, drop=drop, old=old: c.execute(drop, (old,)) and None)
        if sum(counts):
            await asyncio.to_thread(scrub.want_daily, self._folder)
        return sum(counts)

    async def scrub(self, at_once: bool = False) -> bool:
        """Write the files anew where something was deleted; whether that was done. Raises Unavailable where it was
        due and could not be done."""
        paths = (self._events, self._answers)
        return await asyncio.to_thread(
            scrub.run, self._folder, paths, lambda path: _connect(path, durable=True), at_once
        )

    async def users(self, after: str = "") -> AsyncIterator[str]:
        """Everybody of whom something is known and whose id comes after another, in order."""
        while True:
            some: set[str] = set()
            for table in TABLES:
                some |= {user for (user,) in await self._slowly(table, NEXT.format(table=table), (after, PEOPLE))}
            # The first of both lie among the first of each.
            page = sorted(some)[:PEOPLE]
            for user in page:
                yield user
            if len(page) < PEOPLE:
                return
            after = page[-1]

    async def recent_users(self, limit: int) -> list[str]:
        """Some of the people who did something last."""
        query = "SELECT user FROM events ORDER BY time DESC LIMIT ?"
        found = await self._slowly("events", query, (20 * limit,))
        return list(dict.fromkeys(u for (u,) in found))[:limit]

    async def ping(self) -> None:
        """Raises Unavailable where the store cannot be read."""
        self._select(self._read, "SELECT 1 FROM events LIMIT 1", ())

    async def probe(self) -> None:
        """Raises Unavailable where the store cannot be read or written."""
        await self.ping()
        await asyncio.gather(*(writer.do(_rewrite) for writer, _ in self._writers()))

    async def close(self) -> None:
        """Finish what was handed in and close the files."""
        for writer, _ in self._writers():
            writer.close()
        with self._alone:
            for connection in (self._read, self._read_answers, *self._slow.values()):
                connection.close()

    def _writers(self) -> tuple[tuple[_Writer, str], tuple[_Writer, str]]:
        return (self._event_writer, "events"), (self._answer_writer, "answers")

    async def _rows(self, table: str, limit: int, query: str, values: tuple[Any, ...]) -> list[Any]:
        if limit > LIMIT:
            return await self._slowly(table, query, values)
        return self._select(self._read if table == "events" else self._read_answers, query, values)

    async def _slowly(self, table: str, query: str, values: tuple[Any, ...]) -> list[Any]:
        """Rows of a query that may take long: in a thread, on a connection of its own."""

        def read() -> list[Any]:
            with self._alone:
                return self._select(self._slow[table], query, values)

        return await asyncio.to_thread(read)

    @staticmethod
    def _select(connection: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"The history cannot be read: {error}.") from error


def _decoded(found: list[Any]) -> list[Answered]:
    return [msgspec.json.decode(body, type=Answered) for (body,) in reversed(found)]


def open(url: str, folder: Path, days: int, confirmed: bool = False) -> "Files | Valkey":
    """The store that a URL names: files in `folder` where it is empty, else `redis://host:port/number`.

    `days` is how long what happened is kept: a server forgets people who do not come back by itself. With
    `confirmed`, answers that no client confirmed are not read.
    """
    if not url:
        return Files(folder, confirmed)
    from byway.serving.valkey import Valkey

    return Valkey(url, days, confirmed)
