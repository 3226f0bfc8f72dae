"""Progress on long work, on standard error: a bar with the time that remains, or nothing when quiet."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

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


@contextmanager
def bar(label: str, total: int, done: int = 0) -> Generator[Callable[[int], None]]:
    """Show `label` with `done` of `total` units; yields a function that advances by n units."""
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


def say(text: str) -> None:
    """Print one line of progress."""
    console.print(text, highlight=False)
