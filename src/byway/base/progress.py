"""Progress on long work, on standard error: a bar on a terminal, now and then a line elsewhere."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def bar(label: str, total: int, done: int = 0) -> Generator[Callable[[int], None]]:
    """Show `label` with `done` of `total` units; yields a function that advances by n units."""
    if not console.is_terminal:
        yield _lines(label, total, done)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        yield lambda n: progress.advance(task, n)


def _lines(label: str, total: int, done: int) -> Callable[[int], None]:
    """Progress for a log file: a line every EVERY seconds with what is done and the time that remains."""
    began = said = time.monotonic()
    now_done = done

    def advance(n: int) -> None:
        nonlocal said, now_done
        now_done += n
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            fresh = now_done - done
            left = f", about {(now - began) / fresh * (total - now_done):.0f} s left" if fresh else ""
            say(f"  {label}: {now_done} of {total}{left}")

    return advance


def command(*words: str | Path) -> str:
    """What to type next: the program as the user called it, and words as a shell takes them."""
    called = Path(sys.argv[0])
    program = os.path.relpath(called) if called.is_absolute() else str(called)
    if called.name != "byway" or shutil.which("byway") == str(called):
        program = "byway"
    return " ".join([program, *(shlex.quote(str(word)) for word in words)])


def say(text: str) -> None:
    """Print one line of progress."""
    console.print(text, highlight=False)
