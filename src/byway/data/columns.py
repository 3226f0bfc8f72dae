"""Every type of Arrow in every place of our tables: read as it is, made plain, or refused in one sentence.

Owns what a typed column (parquet, Arrow) may stand for. Daft reads most types itself; what it does not read, and
what must not become text in two ways (ids that are floats or bytes), is copied through Arrow into a plain file, a
batch at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from byway.base.errors import UserError
from byway.data import tags, text
from byway.data.text import compute

Role = Literal["id", "text", "path", "tags", "number", "whole", "time"]

ROLES: dict[str, Role] = {
    "item": "id", "user": "id", "title": "text", "description": "text", "creator": "text", "hashtags": "tags",
    "thumbnail": "path", "media": "path", "source": "path", "duration": "number", "satisfaction": "number",
    "watch_seconds": "number", "propensity": "number", "order": "whole", "time": "time", "created_at": "time",
    "arm": "path", "cluster": "path", "answer": "path", "share": "number", "novel": "number", "sole": "number",
}  # fmt: skip

BATCH_ROWS = 1 << 16
_TEXT = pa.large_string()
_WORDS = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
_PRECISION = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
_WANTED: dict[Role, str] = {
    "id": "an id is text, a whole number or a UUID",
    "text": "give text or a number",
    "path": "give text or a number",
    "tags": "give a list of texts or one text",
    "number": "give text or a number",
    "whole": "give a whole number",
    "time": "give a timestamp, a date, text or a number since 1970",
}

Change = Callable[[pa.Array], pa.Array]
Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""The rows of a file, of the columns that are named."""


def role_of(ours: str) -> Role:
    """What one of our columns stands for; `description.2` is another part of `description`."""
    return ROLES[ours.partition(".")[0]]


def is_plain(kind: pa.DataType, role: Role) -> bool:
    """Whether Daft reads the type itself and it stands for what it should."""
    is_ = pa.types
    if kind in _WORDS[:2] or is_.is_null(kind):
        return True
    if role == "id":
        return is_.is_integer(kind)
    if kind in _BYTES[:2]:
        return True
    if role == "tags":
        return (is_.is_list(kind) or is_.is_large_list(kind)) and is_.is_string(kind.value_type)
    moment = role == "time" and (is_.is_timestamp(kind) or is_.is_date(kind))
    return moment or is_.is_integer(kind) or kind in (pa.float32(), pa.float64())


def change(kind: pa.DataType, role: Role, where: Path, name: str, ours: str) -> Change:
    """How a column of this type becomes a plain one; UserError where it cannot stand for what it should."""
    is_ = pa.types
    if is_.is_dictionary(kind):
        inner = change(kind.value_type, role, where, name, ours)
        return lambda column: inner(compute.cast(column, kind.value_type))
    if is_.is_run_end_encoded(kind):
        inner = change(kind.value_type, role, where, name, ours)
        return lambda column: inner(compute.run_end_decode(column))
    if is_text(kind):
        return _to(_TEXT)
    if is_bytes(kind):
        return _to(pa.large_binary())
    if role == "id":
        if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid":
            return lambda column: _hex(column.storage)
        if is_.is_floating(kind):
            return lambda column: _whole_floats(column, where, name, ours)
        if is_.is_integer(kind) or is_.is_decimal(kind):
            return lambda column: _whole_decimals(column, where, name, ours)
    elif is_.is_floating(kind):
        return _to(pa.float64())
    elif is_.is_integer(kind) or is_.is_decimal(kind):
        if role in ("number", "time", "whole"):
            scaled = is_.is_decimal(kind) and kind.scale > 0
            return _to(pa.float64() if scaled or role == "number" else pa.int64())
        if role != "tags":
            return _to(_TEXT)
    if is_.is_boolean(kind) and role == "number":
        return _to(pa.float64())
    if is_.is_duration(kind) and ours in ("duration", "watch_seconds"):
        seconds = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return lambda column: compute.divide(compute.cast(compute.cast(column, pa.int64()), pa.float64()), seconds)
    if role == "time" and (is_.is_timestamp(kind) or is_.is_date(kind)):
        return _to(pa.timestamp("us", kind.tz if is_.is_timestamp(kind) else None))
    listed = is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind) or _is_view(kind)
    if role == "tags" and (listed or is_.is_map(kind) or is_.is_struct(kind)):
        return _named
    if role == "text" and listed and _is_worded(unwrapped(kind.value_type)):
        blank = ", " if ours == "creator" else " "
        return lambda column: _joined(column, blank)
    # Of nested types the sentence leaves out the innards.
    raise UserError(f"{where}: {ours} is read from {name!r}, which is {str(kind)[:80]}; {_WANTED[role]}.")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column is text, or nothing."""
    return kind in _WORDS or pa.types.is_null(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column is bytes, which may be text."""
    return kind in _BYTES or pa.types.is_fixed_size_binary(kind)


def unwrapped(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary or of runs."""
    while pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    return kind


def is_readable(kind: pa.DataType) -> bool:
    """Whether Daft opens a file that has such a column at all."""
    is_ = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return is_readable(kind.storage_type)
    if kind.num_fields:
        return not _is_view(kind) and all(is_readable(kind.field(n).type) for n in range(kind.num_fields))
    narrow = is_.is_decimal32(kind) or is_.is_decimal64(kind) or is_.is_decimal256(kind)
    return not (narrow or is_.is_time32(kind) or kind in (pa.string_view(), pa.binary_view()))


def copied(
    batches: Batches, schema: pa.Schema, wanted: dict[str, str], where: Path, out: Path, *, flat: bool = False
) -> dict[str, str]:
    """Write the `wanted` columns (ours to theirs) as a plain parquet file at `out`; returns their names there.

    Ids that are raw bytes become hex digits; `flat` writes hashtags as text. Raises UserError for a column that
    cannot stand for what it should.
    """
    changes: dict[str, tuple[str, list[Change]]] = {}
    names: dict[str, str] = {}
    for ours, theirs in wanted.items():
        kind, role = schema.field(theirs).type, role_of(ours)
        steps = [] if is_plain(kind, role) else [change(kind, role, where, theirs, ours)]
        if role == "id" and is_bytes(unwrapped(kind)) and _are_raw(batches([theirs]), unwrapped(kind)):
            steps.append(_hex)
        if flat and role == "tags":
            steps.append(_as_text)
        # A column that stands for two of ours is written twice.
        names[ours] = theirs if theirs not in changes else f"{theirs} ({ours})"
        changes[names[ours]] = (theirs, steps)

    def plain(batch: pa.RecordBatch) -> pa.Table:
        columns: dict[str, pa.Array] = {}
        for name, (theirs, steps) in changes.items():
            columns[name] = batch.column(theirs)
            for step in steps:
                columns[name] = step(columns[name])
        return pa.table(columns)

    empty = plain(pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema.names))
    with pq.ParquetWriter(out, empty.schema, compression="zstd") as writer:
        for batch in batches(list(dict.fromkeys(wanted.values()))):
            writer.write_table(plain(batch))
    return names


def _are_raw(batches: Iterator[pa.RecordBatch], kind: pa.DataType) -> bool:
    """Whether bytes are no text but UUIDs or digests, which are read as hex digits.

    Bytes of a fixed width of 16 always are, others where a value is no text; of those of free width, as Spark and
    MySQL write UUIDs, all must be 16 bytes long.
    """
    fixed = pa.types.is_fixed_size_binary(kind)
    if fixed and kind.byte_width == 16:
        return True
    foreign = False
    for batch in batches:
        column = compute.cast(batch.column(0), pa.large_binary()).drop_null()
        if not fixed and not compute.all(compute.equal(compute.binary_length(column), 16)).as_py():
            return False
        words, bad = text.decoded(column)
        foreign = foreign or bool((bad | text.checked_ids(words)[1]).any())
    return foreign


def _to(kind: pa.DataType) -> Change:
    return lambda column: compute.cast(column, kind, safe=False)


def _hex(column: pa.Array) -> pa.Array:
    return pa.array([None if value is None else value.hex() for value in column.to_pylist()], _TEXT)


def _whole_floats(column: pa.Array, where: Path, name: str, ours: str) -> pa.Array:
    """Whole floats as their digits, NaN as null; UserError for others, and where the next number looks the same."""
    bits = _PRECISION[column.type]
    exact = compute.cast(column, pa.float64())
    value = exact.to_numpy(zero_copy_only=False)
    there = ~np.isnan(value)
    wrong = there & ((np.abs(value) >= 2.0**bits) | (value != np.floor(value)))
    if wrong.any():
        raise UserError(
            f"{where}: {ours} is read from {name!r}, which is {column.type} and has {float(value[wrong][0])!r}: "
            f"only whole numbers below 2^{bits} are exact ids there; write ids as text or as whole numbers."
        )
    whole = np.where(there, value, 0).astype(np.int64)
    return compute.cast(pa.array(whole, mask=~there), _TEXT)


def _whole_decimals(column: pa.Array, where: Path, name: str, ours: str) -> pa.Array:
    """Whole numbers as their digits; UserError for others."""
    if pa.types.is_integer(column.type):
        return compute.cast(column, _TEXT)
    plain = pa.array([None if each is None else f"{each:f}" for each in column.to_pylist()], _TEXT)
    broken = plain.filter(compute.match_substring_regex(plain, r"\.[0-9]*[1-9]"))
    if len(broken):
        raise UserError(
            f"{where}: {ours} is read from {name!r}, which is {column.type} and has {broken[0]}; "
            "write ids as text or as whole numbers."
        )
    return compute.replace_substring_regex(compute.replace_substring_regex(plain, r"\.0*$", ""), "^-0$", "0")


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)


def _is_worded(kind: pa.DataType) -> bool:
    """Text or number."""
    is_ = pa.types
    return is_text(kind) or kind in _BYTES or is_.is_integer(kind) or is_.is_floating(kind)


def _named(column: pa.Array) -> pa.Array:
    """Lists, maps and objects of any kind as lists of names."""
    values = column.to_pylist()
    if pa.types.is_map(column.type):  # which come as lists of pairs
        values = [None if value is None else dict(value) for value in values]
    return pa.array([None if value is None else tags.names(value) for value in values], pa.list_(pa.string()))


def _joined(column: pa.Array, blank: str) -> pa.Array:
    """The texts of each list in one text."""
    rows = [None if value is None else blank.join(tags.names(value)) or None for value in column.to_pylist()]
    return pa.array(rows, _TEXT)


def _as_text(column: pa.Array) -> pa.Array:
    """Lists as JSON, which the cleaning reads as lists again."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return compute.cast(column, _TEXT)
    rows = [
        None if value is None else msgspec.json.encode(tags.names(value)).decode() for value in column.to_pylist()
    ]
    return pa.array(rows, _TEXT)
