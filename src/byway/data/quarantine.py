"""Rows that are kept out, each with its reason: nothing is dropped silently.

Owns `quarantine.parquet`: `table` (items or events), `row` (0-based, in reading order), `id` (the item, or the
user of an event), `reason`, `detail` (at most 200 characters of what was found). It does not decide what is wrong.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data import survey, text
from byway.data.text import compute

MAX_DETAIL = 200

_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Quarantine:
    """Collects the rows of one build. They go to disk as they come, since a whole log may turn out wrong."""

    def __init__(self, path: Path) -> None:
        self.reasons: Counter[str] = Counter()
        self.unknown: str | None = None
        """The first id of an item that the catalog does not know."""
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd")

    def put(
        self, table: str, reason: str, rows: NDArray[np.int64], ids: pa.Array, details: pa.Array | None = None
    ) -> None:
        """Keep out the rows with these numbers; `ids` and `details` run parallel to `rows`."""
        if len(rows) == 0:
            return
        self.reasons[reason] += len(rows)
        if details is None:
            details = pa.nulls(len(rows), pa.string())
        elif reason == "unknown item" and self.unknown is None:
            self.unknown = details[0].as_py()
        texts = [compute.utf8_slice_codeunits(text.decoded(column)[0], 0, MAX_DETAIL) for column in (ids, details)]
        columns = [pa.repeat(table, len(rows)), rows, texts[0], pa.repeat(reason, len(rows)), texts[1]]
        self._writer.write_table(pa.table(columns, _SCHEMA.names).cast(_SCHEMA))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class Sieve:
    """One batch of a table on its way through the checks: a row is kept out for the first reason that fits."""

    def __init__(self, quarantine: Quarantine, table: str, first_row: int, ids: pa.Array) -> None:
        self.kept: NDArray[np.bool_] = np.ones(len(ids), bool)
        self._quarantine, self._table, self._first_row, self._ids = quarantine, table, first_row, ids

    def reject(self, reason: str, wrong: NDArray[np.bool_], found: pa.Array | None = None) -> None:
        """Keep out the rows where `wrong` holds and nothing was wrong before; `found` is what the detail shows."""
        rows = np.flatnonzero(wrong & self.kept)
        if len(rows) == 0:
            return
        self.kept[rows] = False
        details = None if found is None else found.take(pa.array(rows))
        ids = self._ids.take(pa.array(rows))
        self._quarantine.put(self._table, reason, rows + self._first_row, ids, details)


class Faults:
    """Counts what cannot be read in each column; where that is most of what is there, the column is at fault."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._rows: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()
        self._shown: dict[str, str] = {}

    def add(self, name: str, wrong: NDArray[np.bool_], written: pa.Array) -> None:
        """Take in the next rows of a column, which of them are wrong, and what stood in the file."""
        self._rows[name] += len(wrong)
        rows = np.flatnonzero(wrong)
        if len(rows) == 0:
            return
        found = survey.filled(written.take(pa.array(rows)))
        self._missing[name] += len(rows) - len(found)
        self._bad[name] += len(found)
        if len(found):
            self._shown.setdefault(name, found[0].as_py()[:40])

    def require_few(self) -> None:
        """Raise UserError for a column of which most cannot be read, or of which nothing is there."""
        for name, rows in self._rows.items():
            there = rows - self._missing[name]
            if 2 * self._bad[name] > there > 0:
                raise UserError(
                    f"{self._where}: {self._bad[name]:,} of {there:,} values of {name} are out of range or no "
                    f'{name}, such as {self._shown[name]!r}; mend the column, or name another (or none, "") in '
                    "event_columns."
                )
            if rows and not there and name in ("time", "order", "satisfaction"):
                raise UserError(
                    f"{self._where}: {name} is empty in every row; leave it out with event_columns = "
                    f'{{ {name} = "" }}.'
                )
