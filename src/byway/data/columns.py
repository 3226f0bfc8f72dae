"""Every type of Arrow in every place of our tables: read as it is, made plain, or refused in one sentence.

Owns what a typed column (parquet, Arrow) may stand for. Daft reads most types itself; what it does not read, and
what must not become text in two ways (ids that are floats or bytes), is copied through Arrow into a plain file, a
batch at a time.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

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


def role_of(ours: str) -> Role:
    """What one of our columns stands for; `description.2` is another part of `description`."""
    return ROLES[ours.partition(".")[0]]


def is_plain(kind: pa.DataType, role: Role) -> bool:
    """Whether Daft reads the type itself and it stands for what it should."""
    is_ = pa.types
    word = is_.is_string(kind) or is_.is_large_string(kind)
    if role == "id":
        return word or is_.is_integer(kind) or is_.is_null(kind)
    if word or is_.is_null(kind) or is_.is_binary(kind) or is_.is_large_binary(kind):
        return True
    if role == "tags":
        return (is_.is_list(kind) or is_.is_large_list(kind)) and is_.is_string(kind.value_type)
    number = is_.is_integer(kind) or is_.is_float32(kind) or is_.is_float64(kind)
    if role == "time":
        return number or is_.is_timestamp(kind) or is_.is_date32(kind) or is_.is_date64(kind)
    return number


def change(kind: pa.DataType, role: Role, where: Path, name: str, ours: str) -> Change:
    """How a column of this type becomes a plain one; UserError where it cannot stand for what it should."""
    is_ = pa.types
    if is_.is_dictionary(kind):
        inner = change(kind.value_type, role, where, name, ours)
        return lambda column: inner(compute.cast(column, kind.value_type))
    if is_.is_run_end_encoded(kind):
        inner = change(kind.value_type, role, where, name, ours)
        return lambda column: inner(compute.run_end_decode(column))
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid" and role == "id":
        return lambda column: _hex(column.storage)
    word = is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
    raw = is_bytes(kind)
    number = is_.is_integer(kind) or is_.is_decimal(kind)
    if is_.is_null(kind) or word:
        return _to(_TEXT)
    if raw:
        return _to(pa.large_binary())
    if is_.is_floating(kind):
        if role == "id":
            return lambda column: _whole_floats(column, where, name, ours)
        return _to(pa.float64())
    if number:
        if role == "id":
            return lambda column: _whole_decimals(column, where, name, ours)
        scaled = is_.is_decimal(kind) and kind.scale > 0
        if role in ("number", "time", "whole"):
            return _to(pa.float64() if scaled or role == "number" else pa.int64())
        if role != "tags":
            return _to(_TEXT)
    if is_.is_boolean(kind) and role == "number":
        return _to(pa.float64())
    if is_.is_duration(kind) and role == "number" and ours in ("duration", "watch_seconds"):
        seconds = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return lambda column: compute.divide(compute.cast(compute.cast(column, pa.int64()), pa.float64()), seconds)
    if role == "time" and (is_.is_timestamp(kind) or is_.is_date(kind)):
        return _to(pa.timestamp("us", kind.tz if is_.is_timestamp(kind) else None))
    listed = is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind) or _is_view(kind)
    if role == "tags" and (listed or is_.is_map(kind) or is_.is_struct(kind)):
        return _named
    if role == "text" and listed and _is_worded(kind.value_type):
        blank = ", " if ours == "creator" else " "
        return lambda column: joined(column, blank)
    raise UserError(f"{where}: {ours} is read from {name!r}, which is {_said(kind)}; {_WANTED[role]}.")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column is text, in a dictionary or not."""
    kind = unwrapped(kind)
    is_ = pa.types
    return is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column is bytes, which may be text."""
    kind = unwrapped(kind)
    is_ = pa.types
    free = is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind)
    return free or is_.is_fixed_size_binary(kind)


def width(kind: pa.DataType) -> int:
    """Bytes of each value where all have as many, else 0."""
    kind = unwrapped(kind)
    return kind.byte_width if pa.types.is_fixed_size_binary(kind) else 0


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
    return not (narrow or is_.is_time32(kind) or is_.is_string_view(kind) or is_.is_binary_view(kind))


def copied(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    wanted: dict[str, str],
    where: Path,
    out: Path,
    hexed: set[str],
    *,
    flat: bool = False,
) -> dict[str, str]:
    """Write the `wanted` columns (ours to theirs) as a plain parquet file at `out`; returns their names there.

    Those in `hexed` become hex digits; `flat` writes hashtags as text. Raises UserError for a column that cannot
    stand for what it should.
    """
    changes: dict[str, tuple[str, Change]] = {}
    names: dict[str, str] = {}
    for ours, theirs in wanted.items():
        kind, role = schema.field(theirs).type, role_of(ours)
        made = _same if is_plain(kind, role) else change(kind, role, where, theirs, ours)
        if ours in hexed:
            made = _then(made, _hex)
        if flat and role == "tags":
            made = _then(made, _as_text)
        # A column that stands for two of ours is written twice.
        names[ours] = theirs if theirs not in changes else f"{theirs} ({ours})"
        changes[names[ours]] = (theirs, made)
    writer = None
    try:
        for batch in _with_one_empty(batches, schema):
            table = pa.table({name: made(batch.column(theirs)) for name, (theirs, made) in changes.items()})
            writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
    return names


def _then(first: Change, second: Change) -> Change:
    return lambda column: second(first(column))


def _with_one_empty(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches, and one without rows where there are none."""
    none = True
    for batch in batches:
        none = False
        yield batch
    if none:
        yield pa.RecordBatch.from_arrays([_empty(field.type) for field in schema], names=schema.names)


def _empty(kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
    return pa.array([], kind)


def are_raw(batches: Iterator[pa.RecordBatch], width: int) -> bool:
    """Whether bytes are no text but UUIDs or digests, which are read as hex digits.

    Bytes of a fixed `width` of 16 always are, others where a value is no text; of those of free width (0), as Spark
    and MySQL write UUIDs, all must be 16 bytes long.
    """
    if width == 16:
        return True
    foreign = False
    for batch in batches:
        column = compute.cast(batch.column(0), pa.large_binary()).drop_null()
        if len(column) == 0:
            continue
        if not width and not compute.all(compute.equal(compute.binary_length(column), 16)).as_py():
            return False
        words, bad = text.decoded(column)
        foreign = foreign or bool((bad | text.checked_ids(words)[1]).any())
    return foreign


def _same(column: pa.Array) -> pa.Array:
    return column


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
    words = compute.cast(column, _TEXT)
    if pa.types.is_integer(column.type) or column.type.scale <= 0:
        if pa.types.is_decimal(column.type) and column.type.scale < 0:
            words = pa.array([None if each is None else f"{each:f}" for each in column.to_pylist()], _TEXT)
        return words
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
    """Text or number, or a dictionary of such."""
    is_ = pa.types
    if is_.is_dictionary(kind):
        return _is_worded(kind.value_type)
    return any(
        test(kind)
        for test in (
            is_.is_string, is_.is_large_string, is_.is_string_view, is_.is_binary, is_.is_large_binary,
            is_.is_binary_view, is_.is_integer, is_.is_floating, is_.is_null,
        )
    )  # fmt: skip


def _named(column: pa.Array) -> pa.Array:
    """Lists, maps and objects of any kind as lists of names."""
    rows = [None if value is None else tags.names(_mapped(value, column.type)) for value in column.to_pylist()]
    return pa.array(rows, pa.list_(pa.string()))


def _mapped(value: Any, kind: pa.DataType) -> Any:
    """Arrow's maps come as lists of pairs."""
    return dict(value) if pa.types.is_map(kind) else value


def joined(column: pa.Array, blank: str) -> pa.Array:
    """The texts of each list in one text."""
    rows = (None if value is None else blank.join(tags.names(value)) or None for value in column.to_pylist())
    return pa.array(list(rows), _TEXT)


def _as_text(column: pa.Array) -> pa.Array:
    """Lists as JSON, which the cleaning reads as lists again."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return compute.cast(column, _TEXT)
    rows = (
        None if value is None else msgspec.json.encode(tags.names(value)).decode() for value in column.to_pylist()
    )
    return pa.array(list(rows), _TEXT)


def _said(kind: pa.DataType) -> str:
    """A type in a sentence: nested ones without their innards."""
    return str(kind)[:80]
