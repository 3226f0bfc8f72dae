"""Impressions of a live experiment in tables of one's own: columns by a map or by usual names, as `byway init`
does.

Owns the way from files to one Arrow table with our columns. What the figures are is decided in `evaluation.live`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from byway.base import config
from byway.base.errors import UserError
from byway.data import containers, meaning, naming, tables

_KINDS = {
    "time": pa.int64(),
    **dict.fromkeys(("satisfaction", "watch_seconds", "share", "novel", "sole"), pa.float64()),
}
"""What is not text."""


def read(paths: Sequence[Path], lift: config.Lift, catalog: config.Catalog, scratch: Path) -> pa.Table:
    """The rows of all tables: `user`, `item` and `time` (microseconds since 1970), and what else they have.

    Copies of files that are packed go to `scratch`. Raises UserError for a column that the map names and no table
    has, and where a table has no users, items or times.
    """
    for name in lift.columns:
        if name not in naming.IMPRESSION_COLUMNS:
            known = ", ".join(naming.IMPRESSION_COLUMNS)
            raise UserError(f"[lift] columns has no column {name!r}; it maps {known}.")
    settings = replace(catalog, event_columns={}, event_scale=lift.scale)
    found = [_read(part, lift, settings, scratch) for path in paths for part in containers.parts(path, "csv")]
    return pa.concat_tables(found, promote_options="default")


def _read(part: containers.Part, lift: config.Lift, settings: config.Catalog, scratch: Path) -> pa.Table:
    names = tables.names_of(part)
    chosen = naming.chosen(names, "impressions", lift.columns)
    for ours, theirs in lift.columns.items():
        if theirs and theirs not in names:
            raise UserError(f"{part.path} has no column {theirs!r}, which [lift] columns maps {ours} to.")
    for ours in ("user", "item", "time"):
        if ours not in chosen.columns:
            raise UserError(
                f"{part.path}: no column is the {ours} of an impression; name it in [lift] columns = "
                f'{{ {ours} = "..." }}.'
            )
    wanted = tables.Wanted(chosen.columns, tuple(chosen.columns.values()))
    frame, there = tables.frame(part, wanted, scratch)
    typed, _ = meaning.typed(frame, there, chosen, part.path, settings, propose=True)
    table = typed.select(*(name for name in typed.column_names if name in naming.IMPRESSION_COLUMNS)).to_arrow()
    fields = [pa.field(name, _KINDS.get(name, pa.string())) for name in table.column_names]
    return table.cast(pa.schema(fields))
