"""Opening a table on disk: it is what it says, or one sentence says what is wrong.

Owns: the checks on a file before it is read (is it there, is it UTF-8, has it the columns),
and the stream of record batches out of a dataframe. It knows neither layouts nor what a column means.

A CSV is read as bytes, never as guessed types: text that is not UTF-8 and numbers that are none then reach the
cleaning as they are, and one bad row costs one row. Quotes follow RFC 4180; a quote that is never closed swallows
the rows after it, which the cleaning sees as one text that is too long.
"""

import csv as text_csv
import glob
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from byway.base import engine
from byway.base.errors import UserError
from byway.data import containers

if TYPE_CHECKING:
    import daft

MALFORMED = "_malformed"
"""Name of the column that is true where a CSV row has more or fewer fields than its header."""

_HEAD_BYTES = 1 << 22
_HEADER_BYTES = 1 << 16
_CHUNK_ROWS = 1 << 17
_CHUNK_BYTES = 1 << 26
_FOREIGN_LINES = 20
_NO_QUOTE = "\x1f"
"""A character that no text has, for Daft, which always has a quote."""
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", ":": "colons", " ": "spaces"}


def present(path: Path) -> None:
    """Raise UserError where there is no file at `path`."""
    if path.is_dir():
        raise UserError(f"{path} is a directory where a file is expected.")
    if not path.exists():
        raise UserError(f"{path} does not exist.")


def header(path: Path, delimiter: str = ",", quote: str | None = '"') -> list[str]:
    """Column names of the CSV file at `path`, which may be packed.

    Raises UserError where it is empty or not UTF-8 as a whole.
    """
    start = head_text(path)
    line, _ = next(records(start, delimiter, quote), ([], 0))
    if not line:
        what = "has an empty first line" if start.strip() else "is empty"
        raise UserError(f"{path} {what}; its first line must name the columns.")
    if len(line) <= 2 and line[0].lower().startswith("sep="):
        raise UserError(f"{path} begins with {line[0]!r}, a hint for Excel; take out that line.")
    return [name.strip() for name in line]


def records(text: str, delimiter: str, quote: str | None, strict: bool = False) -> Iterator[tuple[list[str], int]]:
    """The records of delimited text, and the line in which each ends, from 1; csv.Error where it is `strict`."""
    quoting = text_csv.QUOTE_NONE if quote is None else text_csv.QUOTE_MINIMAL
    lines = io.StringIO(text, newline="")
    reader = text_csv.reader(lines, delimiter=delimiter, quotechar=quote, quoting=quoting, strict=strict)
    limit = text_csv.field_size_limit(len(text) + 1)
    try:
        for record in reader:
            yield record, reader.line_num
    finally:
        text_csv.field_size_limit(limit)


def head_text(path: Path) -> str:
    """The first 64 kB of a text file, which may be packed; what is no UTF-8 there is replaced."""
    return _head(path)[:_HEADER_BYTES].decode("utf-8-sig", "replace")


def csv(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    quote: str | None = '"',
    names: Sequence[str] | None = None,
    headless: bool = True,
) -> "daft.DataFrame":
    """Stream the named columns of one CSV file as binary, in file order, and `MALFORMED`.

    `names` gives the columns of a file without a header, or other names for one that has it (`headless=False`).
    Raises UserError for a missing column, a wrong delimiter, an empty file, one that is packed, and one that is not
    UTF-8 as a whole.
    """
    present(path)
    if packed := containers.packing(path):
        raise UserError(f"{path} is a {packed} file; unpack it first.")
    first = header(path, delimiter, quote)
    if names is not None and len(first) < len(names):
        raise UserError(
            f"{path} has no column {names[len(first)]!r}: its first line must have {len(names)} fields "
            f"separated by {_NAMES[delimiter]}, and has {len(first)}."
        )
    header_names = list(names) if names is not None else first
    require(path, header_names, columns, delimiter)
    daft = engine.daft()
    # Daft takes the schema by position. A name that comes twice keeps its first place; the sentinel at the end
    # catches what a too long row has beyond the header.
    unique = [name if name not in header_names[:i] else f"{name}#{i}" for i, name in enumerate(header_names)]
    binary = daft.DataType.binary()
    frame = daft.read_csv(
        literal(path),
        infer_schema=False,
        schema={name: binary for name in [*unique, MALFORMED]},
        has_headers=names is None or not headless,
        delimiter=delimiter,
        quote=_NO_QUOTE if quote is None else quote,
        allow_variable_columns=True,
        _chunk_size=_chunk_rows(path, delimiter, quote),
    )
    # An empty field is an empty string: null only where the row ended early.
    malformed = daft.col(unique[-1]).is_null() | daft.col(MALFORMED).not_null()
    return frame.select(*(daft.col(name) for name in dict.fromkeys(columns)), malformed.alias(MALFORMED))


def _chunk_rows(path: Path, delimiter: str, quote: str | None) -> int:
    """Rows that Daft may hold at once, by the longest record among the first 4 MB.

    Its reader sets aside room for that many records of the mean size plus a standard deviation, taken from the
    first records: with its default of 131,072 rows one title of 20 kB in a short file took 3.9 GB, one of a
    megabyte the process. Raises UserError where a quote stays open too long for that estimate to end.
    """
    longest, line, start = 1, 1, 1
    for record, end in records(_head(path).decode("latin-1"), delimiter, quote):
        longest, start, line = max(longest, sum(map(len, record)) + len(record)), line, end + 1
    if longest > _HEAD_BYTES // 2:
        raise UserError(f"{path} has a record of more than 2 MB in line {start}: is a quote never closed there?")
    return max(8, min(_CHUNK_ROWS, _CHUNK_BYTES // longest))


def parquet(path: Path, columns: Sequence[str]) -> "daft.DataFrame":
    """Stream the named columns of one parquet file, typed as they are, in file order.

    Raises UserError for a missing column and for a file that is not parquet or was cut short.
    """
    require(path, parquet_schema(path).names, columns)
    return engine.daft().read_parquet(literal(path)).select(*dict.fromkeys(columns))


def parquet_schema(path: Path) -> pa.Schema:
    """The columns of the parquet file at `path`; UserError where it is not one, was cut short or has one twice."""
    present(path)
    try:
        schema = pq.read_schema(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or 'permission denied'}.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a parquet file, or was cut short ({first_line(error)}).") from error
    if twice := next((name for i, name in enumerate(schema.names) if name in schema.names[:i]), None):
        raise UserError(f"{path} has two columns {twice!r}; leave one out.")
    return schema


def require(
    path: Path, names: Sequence[str], columns: Sequence[str], delimiter: str = "", advice: str = ""
) -> None:
    """Raise UserError, ending in `advice`, for the first of `columns` that is not among the `names` of the file."""
    missing = [name for name in columns if name not in names]
    if not missing:
        return
    other = [mark for mark in _NAMES if len(names) == 1 and mark in names[0] and mark != delimiter]
    if delimiter and other:
        raise UserError(
            f"{path} has no column {missing[0]!r}: its first line looks separated by {_NAMES[other[0]]}, "
            f"and {_NAMES[delimiter]} are expected."
        )
    if not advice and any(name.strip().isdigit() for name in names):
        advice = " (where the first line is no header, give item_columns or event_columns a list, left to right)"
    shown = ", ".join(name[:40] for name in names[:30])
    raise UserError(f"{path} has no column {missing[0]!r}; it has {shown or 'none'}{advice}.")


def whole(frame: "daft.DataFrame", what: Path) -> pa.Table:
    """A small table at once; UserError where it has no rows."""
    if pieces := list(_stream(frame, what)):
        return pa.Table.from_batches(pieces)
    raise UserError(f"{what} has a table without rows.")


def batches(frame: "daft.DataFrame", what: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """Stream a dataframe in its order as batches of exactly `rows` rows; the last one is shorter.

    `what` is the path in the UserError that replaces the engine's own for a file damaged in its middle.
    """
    held: list[pa.RecordBatch] = []
    count = 0
    for piece in _stream(frame, what):
        held.append(piece)
        count += piece.num_rows
        while count >= rows:
            joined = pa.concat_batches(held)
            yield joined.slice(0, rows)
            held = [joined.slice(rows)]
            count -= rows
    if count:
        yield pa.concat_batches(held)


def _stream(frame: "daft.DataFrame", what: Path) -> Iterator[pa.RecordBatch]:
    errors = engine.daft().exceptions.DaftCoreException
    try:
        yield from frame.to_arrow_iter()
    except (errors, OSError) as error:
        raise UserError(f"{what} could not be read to its end: {first_line(error)}.") from error
    except engine.lost() as error:
        raise UserError(f"The cluster lost a worker while it read {what}; type the same command again.") from error


def _head(path: Path) -> bytes:
    """The first 4 MB of a text file; UserError where they show that it is not UTF-8.

    Single bad lines belong to the cleaning. A file counts as foreign where it holds
    NUL bytes in its first line, or fails in most of the lines that have anything beyond ASCII (20 at least).
    """
    present(path)
    head = containers.head(path, _HEAD_BYTES)
    if name := containers.utf16(head):
        head = head[: len(head) // 2 * 2].decode(name, "ignore").encode()
    lines = head.split(b"\n")
    if b"\0" in lines[0]:
        raise UserError(f"{path} is not UTF-8 text; convert it first, for example with iconv.")
    if len(head) == _HEAD_BYTES and len(lines) > 1:
        lines.pop()
    beyond = [line for line in lines if not line.isascii()]
    bad = sum(not _decodes(line) for line in beyond)
    if not _decodes(lines[0]) or (bad >= _FOREIGN_LINES and 2 * bad > len(beyond)):
        raise UserError(
            f"{path} is not UTF-8 text ({bad:,} of its first {len(lines):,} lines); "
            "convert it first, for example with iconv."
        )
    return head


def _decodes(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def literal(path: Path) -> str:
    """The path as Daft wants it: marks that it would read as a pattern are taken literally."""
    return glob.escape(str(path))


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:300].rstrip(".")
