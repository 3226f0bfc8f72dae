"""Impressions of a live experiment in tables of one's own: columns by a map or by usual names, as `byway init`
does.

Owns the way from files to one Arrow table with our columns. What the figures are is decided in `evaluation.live`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from byway.base import config
from byway.base.errors import UserError
from byway.data import containers, meaning, naming, scales, survey, tables, text
from byway.data.casts import is_text
from byway.data.text import compute

if TYPE_CHECKING:
    import daft

_KINDS = {
    "time": pa.int64(),
    **dict.fromkeys(("satisfaction", "watch_seconds", "share", "novel", "sole"), pa.float64()),
}
"""What is not text."""
_COUNTED = ("watch_seconds", "share", *meaning.FLAGS)


def read(
    paths: Sequence[Path],
    columns: Mapping[str, str],
    scale: Sequence[float],
    catalog: config.Catalog,
    scratch: Path,
) -> tuple[pa.Table, int]:
    """The rows of all tables: `user`, `item` and `time` (microseconds since 1970), and what else they have.

    A row that stands in several tables, as where exports overlap, counts as often as in the one that has it most;
    how many others are left out is returned too.

    `columns` maps ours to theirs, "" to none; `scale` is the worst and best satisfaction, or empty. Copies of files
    that are packed go to `scratch`. Raises UserError for a column that the map names and no table has, where a
    table has no users, items or times, and for a column of numbers of which most are none.
    """
    for name in columns:
        if name not in naming.IMPRESSION_COLUMNS:
            known = ", ".join(naming.IMPRESSION_COLUMNS)
            raise UserError(f"--column knows no {name!r}; an impression has {known}.")
    config.require_scale("--scale", list(scale))
    settings = replace(catalog, event_columns={}, event_scale=list(scale))
    logs = [
        _joined([_read(part, columns, settings, scratch) for part in containers.parts(path, "csv")])
        for path in paths
    ]
    every = sum(table.num_rows for table in logs)
    if not every:
        raise UserError(f"{paths[0]} has no rows; give a table with an impression a row.")
    rows = _once(logs) if len(logs) > 1 else logs[0]
    return rows, every - rows.num_rows


def _joined(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts, promote_options="default")


def _once(logs: list[pa.Table]) -> pa.Table:
    """The rows of some tables, each as often as in the table that has it most often."""
    numbered = [table.append_column("table", pa.repeat(n, table.num_rows)) for n, table in enumerate(logs)]
    whole = _joined(numbered)
    names = [name for name in whole.column_names if name != "table"]
    counted = whole.group_by([*names, "table"], use_threads=False).aggregate([([], "count_all")])
    most = counted.group_by(names, use_threads=False).aggregate([("count_all", "max")])
    return most.select(names).take(np.repeat(np.arange(most.num_rows), most["count_all_max"].to_numpy()))


def _read(part: containers.Part, columns: Mapping[str, str], settings: config.Catalog, scratch: Path) -> pa.Table:
    names = tables.names_of(part)
    column_map = naming.column_map(names, "impressions", columns)
    for ours, theirs in columns.items():
        if theirs and theirs not in names:
            raise UserError(f"{part.path} has no column {theirs!r}, which --column says is {ours}.")
    for ours in ("user", "item", "time"):
        if ours not in column_map.columns:
            raise UserError(
                f"{part.path}: no column is the {ours} of an impression; name it with --column {ours}=NAME."
            )
    wanted = tables.Wanted(column_map.columns, tuple(column_map.columns.values()))
    frame, there = tables.frame(part, wanted, scratch)
    try:
        typed, _ = meaning.typed(frame, there, column_map, part.path, settings, propose=True)
    except UserError as error:
        raise UserError(_by_options(str(error))) from error
    _require_numbers(frame, there, part.path)
    table = typed.select(*(name for name in typed.column_names if name in naming.IMPRESSION_COLUMNS)).to_arrow()
    rows = {name: _settled(name, table[name].combine_chunks()) for name in table.column_names}
    return pa.table(rows)


def _settled(name: str, column: pa.Array) -> pa.Array:
    """A column in its type; of those that say who, what and which arm a cell without text is null, as one not UTF-8
    is. Elsewhere � stands for what is not."""
    if name in _KINDS:
        return compute.cast(column, _KINDS[name])
    words, broken = text.decoded(column)
    if name in ("user", "item", "arm"):
        empty = compute.equal(compute.utf8_trim_whitespace(words), "")
        words = compute.if_else(compute.or_kleene(empty, pa.array(broken)), None, words)
    return compute.cast(words, pa.string())


def _by_options(said: str) -> str:
    """A sentence that names settings of a log, with the options of `byway lift` in their place.

    >>> _by_options('leave out: event_columns = { satisfaction = "" }; or give [catalog] event_scale = [1, 5]')
    'leave out: --column satisfaction=; or give --scale 1 5'
    """
    said = re.sub(r'(\[catalog\] )?event_columns = \{ (\w+) = "([^"]*)" \}', r"--column \2=\3", said)
    said = re.sub(r"(\[catalog\] )?event_scale = \[(\S+), (\S+)\]", r"--scale \2 \3", said)
    return re.sub(r"(\[catalog\] )?event_(column|scale)s?", r"--\2", said)


def _require_numbers(frame: "daft.DataFrame", there: dict[str, str], where: Path) -> None:
    """Raise UserError for a text column of which most are no numbers: its figures would be of nothing."""
    texts = {ours: theirs for ours, theirs in there.items() if ours in _COUNTED and is_text(frame, theirs)}
    profiles = survey.profile(frame, list(texts.values()), where, list(texts.values()))
    for ours, theirs in texts.items():
        profile = profiles[theirs]
        wrong = profile.filled - profile.numbers
        worded = ours in meaning.FLAGS and wrong and scales.detect(profile).writing == "word"
        if 2 * wrong > profile.filled and not worded:
            raise UserError(
                f"{where}: {wrong:,} of {profile.filled:,} values of {theirs!r}, from which {ours} is read, are no "
                f"numbers, such as {profile.sample[0].as_py()[:40]!r}; mend the column, name another with --column "
                f"{ours}=NAME, or none with --column {ours}=."
            )
