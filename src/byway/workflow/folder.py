"""The folder of a workspace: how it begins, and its settings. It knows no artifact, and loads nothing heavy."""

from collections.abc import Sequence
from pathlib import Path

from byway.base import config
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import command

CONFIG = "byway.toml"
"""The file of a workspace's settings, which makes a folder one."""


def require(directory: Path) -> None:
    """Raise UserError where `directory` is no workspace."""
    if not (directory / CONFIG).exists():
        raise UserError(f"{directory} is not a workspace: it has no {CONFIG}; make one with {command('init')}.")


def settings(directory: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings of a workspace, with `section.setting=value` laid over them."""
    require(directory)
    return config.load(directory / CONFIG, overrides)


def begin(directory: Path, data: Path, source: str) -> tuple[str, ...]:
    """Make a workspace in `directory` for the data set at `data`; returns what was found there, in sentences.

    Raises UserError where it is one already, and where something in the data is unclear: then `byway.toml` is
    there, with the line to mend.
    """
    from byway.base.artifact import write_atomic
    from byway.data import starting

    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; choose another directory.")
    if (directory / CONFIG).exists():
        raise UserError(f"{directory / CONFIG} is there already; edit it, or choose another directory.")
    begun = starting.start(source, data.resolve())
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / CONFIG, begun.text.encode())
    if begun.stopped:
        raise UserError(
            f"{begun.stopped} Mend line {begun.line} of {directory / CONFIG}, then: {command('run', directory)}"
        )
    return begun.notes
