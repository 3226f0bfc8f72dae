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
        columns = [
            pa.repeat(pa.scalar(table), len(rows)),
            pa.array(rows, pa.int64()),
            clipped(ids),
            pa.repeat(pa.scalar(reason), len(rows)),
            clipped(details),
        ]
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))

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


def clipped(column: pa.Array, length: int = MAX_DETAIL) -> pa.Array:
    """Any column as text of at most `length` characters."""
    return compute.cast(
        compute.utf8_slice_codeunits(compute.cast(column, pa.large_string()), 0, length), pa.string()
    )
