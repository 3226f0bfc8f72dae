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
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from byway.base import config
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


Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


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
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, done))
        return await done

    def close(self) -> None:
        """Finish what was handed in."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = _connect(self._path, self._durable)
        goes_on = True
        while goes_on:
            batch = [self._jobs.get()]
            while len(batch) < 256 and not self._jobs.empty():
                batch.append(self._jobs.get())
            goes_on = None not in batch
            if jobs := [job for job in batch if job is not None]:
                _transact(connection, jobs)
        connection.close()


def _connect(path: Path, durable: bool = True) -> sqlite3.Connection:
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
        results: list[Any] = [job(connection) for job, _ in batch]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - a writer that ended would let all who come after wait for ever
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            error = Unavailable(f"The history cannot be written: {error}.")
        results = [error] * len(batch)
    waiting = [(done, result) for (_, done), result in zip(batch, results, strict=True)]
    for loop in {done.get_loop() for done, _ in waiting}:
        if not loop.is_closed():  # one that has ended waits for nobody
            loop.call_soon_threadsafe(_resolve, [each for each in waiting if each[0].get_loop() is loop])


def _resolve(waiting: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for done, result in waiting:
        if done.done():
            continue
        if isinstance(result, Exception):
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
        self._paths = {table: folder / f"{table}.db" for table in TABLES}
        self._writers = {table: _Writer(path, durable=table == "events") for table, path in self._paths.items()}
        # Reading takes microseconds and never waits for a writer, so it is done in place. Whoever locks the whole
        # file out must not hold up other requests.
        self._quick = {table: _connect(path, durable=False) for table, path in self._paths.items()}
        for connection in self._quick.values():
            connection.execute("PRAGMA busy_timeout = 100")
        self._slow = {table: _connect(path, durable=False) for table, path in self._paths.items()}
        self._alone = threading.Lock()

    async def add(self, events: list[Event]) -> list[bool]:
        """Store events; whether each is new. When this returns they are on the disk."""
        rows = [
            (e.user, e.event, e.item, e.time, e.satisfaction, e.watch_seconds, e.source, e.answer) for e in events
        ]

        def store(connection: sqlite3.Connection) -> list[bool]:
            insert = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            return [connection.execute(insert, row).rowcount == 1 for row in rows]

        return await self._writers["events"].do(store)

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
        await self._writers["answers"].do(lambda c: c.executemany(insert, rows).rowcount)

    async def confirm(self, user: str, answer: str) -> None:
        """Log that a client showed an answer."""
        row = (user, answer, time.time_ns() // 1000)
        await self._change("answers", "INSERT OR IGNORE INTO confirmed VALUES (?, ?, ?)", *row)

    async def answers(self, user: str, since: int, limit: int = LIMIT) -> list[Answered]:
        """The latest answers to a user after `since`, the most recent last."""
        found = await self._rows(
            "answers",
            limit,
            f"SELECT body FROM answers WHERE user = ? AND time > ? {CONFIRMED if self._confirmed else ''}"
            "ORDER BY time DESC, rowid DESC LIMIT ?",
            (user, since, limit),
        )
        return _decoded(found) if limit <= LIMIT else await asyncio.to_thread(_decoded, found)

    async def delete(self, user: str) -> int:
        """Forget a user: events and answers, how many. `scrub` removes what is left of them in the files."""
        await asyncio.to_thread(scrub.want, self._folder)  # first, so that a kill in between does no harm
        at = time.time_ns() // 1000

        def drop(c: sqlite3.Connection) -> int:
            c.execute("INSERT OR REPLACE INTO gone VALUES (?, ?)", (hashed(user), at))
            c.execute("DELETE FROM confirmed WHERE user = ?", (user,))
            return c.execute("DELETE FROM answers WHERE user = ?", (user,)).rowcount

        gone = await self._change("events", "DELETE FROM events WHERE user = ?", user)
        gone += await self._writers["answers"].do(drop)
        await asyncio.to_thread(scrub.want, self._folder)
        return gone

    async def forget(self, before: int) -> int:
        """Drop what happened before a time; how many rows."""
        late = time.time_ns() // 1000 - 2 * LATE
        gone = await self._change("events", "DELETE FROM events WHERE time < ?", before)
        gone += await self._change("answers", "DELETE FROM answers WHERE time < ?", before)
        await self._change("answers", "DELETE FROM gone WHERE time < ?", late)
        await self._change("answers", "DELETE FROM confirmed WHERE time < ?", before)
        if gone:
            await asyncio.to_thread(scrub.want_daily, self._folder)
        return gone

    async def scrub(self, at_once: bool = False) -> bool:
        """Write the files anew where something was deleted; whether that was done. Raises Unavailable where it was
        due and could not be done."""
        return await asyncio.to_thread(scrub.run, self._folder, list(self._paths.values()), _connect, at_once)

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
        self._select(self._quick["events"], "SELECT 1 FROM events LIMIT 1", ())

    async def probe(self) -> None:
        """Raises Unavailable where the store cannot be read or written."""
        await self.ping()
        await asyncio.gather(*(writer.do(_rewrite) for writer in self._writers.values()))

    async def close(self) -> None:
        """Finish what was handed in and close the files."""
        for writer in self._writers.values():
            writer.close()
        with self._alone:
            for connection in (*self._quick.values(), *self._slow.values()):
                connection.close()

    async def _change(self, table: str, statement: str, *values: Any) -> int:
        """Carry out a statement on the file of a table; how many rows it changed."""
        return await self._writers[table].do(lambda c: c.execute(statement, values).rowcount)

    async def _rows(self, table: str, limit: int, query: str, values: tuple[Any, ...]) -> list[Any]:
        if limit > LIMIT:
            return await self._slowly(table, query, values)
        return self._select(self._quick[table], query, values)

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


@contextlib.asynccontextmanager
async def opened(settings: config.Serving, folder: Path) -> AsyncGenerator["Files | Valkey"]:
    """The store of these settings, closed at the end."""
    store = open(settings.history, folder, settings.forget_days, settings.exposures == "confirmed")
    try:
        yield store
    finally:
        await store.close()
