"""Raw items and raw events: what a source has to say, before cleaning.

Owns the columns that every source brings: ids and titles as the files have them (bytes, where
the file is text), in file order. It knows neither the layouts nor what is wrong with a row.

Raw items: `item`, and any of `title`, `hashtags` (a list, or one text), `description`, `creator`, `duration`
(seconds), `thumbnail`, `media`, `created_at` (microseconds). Raw events: `user`, `item`, and any of `time`
(microseconds since 1970), `order`, `satisfaction`, `watch_seconds`, `source`, `propensity`. Both may have
`files.MALFORMED`; events may have a column as it was written beside one (`WRITTEN`). A log without `time` and
without `order` is in the order of its rows.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from byway.data.scales import Scale

if TYPE_CHECKING:
    import daft


@dataclass(slots=True)
class Decisions:
    """What was decided about one file."""

    notes: list[str] = field(default_factory=list)
    """Sentences for people."""
    satisfaction: Scale | None = None
    unread: list[str] = field(default_factory=list)
    """Ours that are not read after all."""


@dataclass(frozen=True, slots=True)
class Raw:
    """What a source has to say, not yet cleaned."""

    items: "daft.DataFrame"
    events: "daft.DataFrame"
    items_from: Path
    """The file or folder that an error about items names."""
    events_from: Path
    decisions: tuple[Decisions, ...] = ()
    """What was decided about the columns of each file on the way."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The same in sentences."""
        return tuple(dict.fromkeys(sentence for file in self.decisions for sentence in file.notes))


WRITTEN = "_written_"
"""Before the name of a column of events: what stood in the file, where `events` converts it."""
