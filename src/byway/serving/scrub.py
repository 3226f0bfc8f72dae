"""Overwriting what deleted people left in the files of the history: gaps of pages, and journals.

A row that is deleted is overwritten with zeros, but copies of it stay where SQLite has moved rows between pages,
and in the journal. Only writing a file anew (VACUUM) is sure to remove them. That takes long for a large history
and holds up writers, so it is done by one process a while after a deletion, for all deletions since the last time.

A file `scrub.wanted` says that it is to be done, `scrub.begun` that it is not finished: a kill forgets nothing.
"""

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from byway.serving.history import Unavailable

DELAY = 10.0
"""Seconds from a deletion, at least: deletions often come together."""
SHARE = 100
"""After a rewriting the next waits for this many times as long as it took."""
DAILY = 86_400.0
"""Seconds between two rewritings that are due to age alone."""


def want(folder: Path) -> None:
    """Say that something was deleted. The file is as old as the first deletion since the last rewriting began."""
    (folder / "scrub.wanted").open("ab").close()


def want_daily(folder: Path) -> None:
    """Say that something was dropped for its age: its bytes may stay for a day more."""
    try:
        last = (folder / "scrub.lock").stat().st_mtime
    except FileNotFoundError:
        last = 0.0
    if time.time() - last > DAILY:
        want(folder)


def run(
    folder: Path, paths: Sequence[Path], connect: Callable[[Path], sqlite3.Connection], at_once: bool = False
) -> bool:
    """Write the files anew where that is due (or wanted `at_once`); whether it was done.

    Raises Unavailable where a file is in use for too long; it is tried again then.
    """
    wanted, begun = folder / "scrub.wanted", folder / "scrub.begun"
    if not at_once and not begun.exists() and _age(wanted) < DELAY:
        return False
    with (folder / "scrub.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if at_once else fcntl.LOCK_NB))
        except BlockingIOError:  # another worker is at it
            return False
        lock.seek(0)
        if not at_once and time.time() < float(lock.read() or 0):
            return False
        began = time.time()
        # What is deleted from here on asks anew.
        with contextlib.suppress(FileNotFoundError):
            wanted.replace(begun)
        for path in paths:
            _rewrite(path, connect)
        took = time.time() - began
        lock.truncate(0)
        lock.write(f"{time.time() + SHARE * took:.3f}")
        lock.flush()
        begun.unlink(missing_ok=True)
    return True


def _age(path: Path) -> float:
    """Seconds since a file was made; none where there is no such file."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _rewrite(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> None:
    connection = connect(path)
    try:
        connection.execute("VACUUM")
        # Readers hold the journal for moments, and writers too: what is busy is asked again.
        for _ in range(200):
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
            time.sleep(0.02)
    except sqlite3.Error as error:
        raise Unavailable(f"{path.name} cannot be written anew: {error}.") from error
    finally:
        connection.close()
    raise Unavailable(f"{path.name} is in use, so its journal could not be emptied.")
