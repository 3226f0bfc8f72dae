"""The history's files copied and put back while the service runs, by SQLite's own means.

A copy is what the file held at one moment, whoever writes meanwhile. It knows the files and nothing of what stands
in them. A Redis or Valkey server has its own means.
"""

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from byway.base import config
from byway.base.errors import UserError

FILES = ("events.db", "answers.db")
PATIENCE = 60.0
"""Seconds for which somebody who holds a file is waited for."""


def save(workspace: Path, folder: Path, settings: config.Serving) -> int:
    """Copy the history of a workspace into `folder`, over what was copied there before; bytes.

    Events that were acknowledged before this began are in it. Raises UserError where there is no history in files.
    """
    here = _files(workspace, settings)
    missing = [path.name for path in here if not path.exists()]
    if missing:
        raise UserError(f"{workspace} has no history yet: {', '.join(missing)} is missing in {here[0].parent}.")
    _require_elsewhere(folder, here)
    folder.mkdir(parents=True, exist_ok=True)
    for path in here:
        part = folder / f"{path.name}.part"
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _writing(part), closing(_opened(path)) as source, closing(_opened(part)) as copy:
            # In one step: in several it would begin again with each write of another process.
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        _require_whole(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, folder / path.name)
    return sum((folder / name).stat().st_size for name in FILES)


def restore(workspace: Path, folder: Path, settings: config.Serving) -> None:
    """Have the history be what was saved in `folder`. What came since is gone; who was deleted since is back.

    Raises UserError, before anything changes, where the copy is not whole.
    """
    here = _files(workspace, settings)
    _require_elsewhere(folder, here)
    for path in here:
        if not (folder / path.name).is_file():
            raise UserError(f"{folder} holds no copy of a history: {path.name} is missing.")
        _require_whole(folder / path.name)
    here[0].parent.mkdir(parents=True, exist_ok=True)
    for path in here:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        with _writing(path), closing(_opened(folder / path.name)) as copy, closing(_opened(path)) as target:
            target.execute("PRAGMA journal_mode = WAL")
            copy.backup(target)


def _files(workspace: Path, settings: config.Serving) -> list[Path]:
    if settings.history:
        raise UserError("The history is kept by the server of serving.history; use its own means (BGSAVE).")
    return [workspace / "serving" / name for name in FILES]


def _require_elsewhere(folder: Path, here: list[Path]) -> None:
    """A copy in the place of the files would be none, and take them from whoever has them open."""
    if folder.resolve() == here[0].parent.resolve():
        raise UserError(f"{folder} is where the history itself is; name another folder for its copy.")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=PATIENCE)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    """A full disk, to SQLite, is a sentence."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(
            f"{path} could not be written ({error}); make room there and type the same command."
        ) from error


def _require_whole(path: Path) -> None:
    try:
        with closing(_opened(path)) as copy:
            (said,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise UserError(f"{path} is no whole copy of a history ({error}).") from error
    if said != "ok" or path.name.partition(".")[0] not in tables:
        raise UserError(f"{path} is no whole copy of a history ({said}).")
