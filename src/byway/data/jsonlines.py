"""JSON as a table: an object a line, or one array of objects.

Owns the way from JSON to a plain parquet file of text columns: a number stays as it is written, lists of texts are
joined where one text is wanted, hashtags stay JSON. What Python wrote in place of JSON (single quotes, NaN) is read
too. A line that is no object is a row with `MALFORMED`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from byway.base.errors import UserError
from byway.data import tags
from byway.data.columns import role_of
from byway.data.containers import head
from byway.data.files import MALFORMED

MAX_ARRAY = 1 << 28
"""Bytes of a file that is one array, which is held at once; lines are streamed."""

MAX_LINE = 1 << 26

_ROWS = 1 << 15
_SAMPLE = 20_000
_TEXT = pa.large_string()
_EXTENDED = ("$oid", "$date", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal", "$uuid")


def keys(path: Path) -> list[str]:
    """Keys of the first objects, in order of appearance; UserError where the first is none."""
    names: dict[str, None] = {}
    for row in islice(_at_head(head(path)), _SAMPLE):
        names |= dict.fromkeys(_any(row) or {})
    if not names:
        raise UserError(
            f"{path} has no JSON object in its first line; give an object a line, or an array of objects."
        )
    return list(names)


def inside(path: Path) -> str:
    """How to bring out what lies inside an object or a list of them in the first row of a file; empty without."""
    start = head(path)
    first = _any(next(_at_head(start), b"")) or {}
    for name, value in first.items():
        if isinstance(value, dict) and not set(value) <= set(_EXTENDED):
            way = f"{_each(start)}. + {_at(name)}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            way = f"{_each(start)}{_at(name)}[]"
        else:
            continue
        return f" (bring out what lies inside {name!r} first, for example with jq -c '{way}')"
    return ""


def _bare(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()


def _each(start: bytes) -> str:
    return ".[] | " if _bare(start).startswith(b"[") else ""


def _at(name: str) -> str:
    return f".{name}" if name.isidentifier() and name.isascii() else f".{json.dumps(name)}"


def _at_head(start: bytes) -> Iterator[bytes]:
    """The whole rows at the head of a file, which may be cut: lines with anything, or the objects of an array."""
    start = _bare(start)
    if not start.startswith(b"["):
        *lines, last = start.split(b"\n")
        yield from (line for line in lines or [last] if line.strip())
        return
    text, decoder, at = start.decode("utf-8", "replace"), json.JSONDecoder(), 1
    while True:
        try:
            value, at = decoder.raw_decode(text, len(text) - len(text[at:].lstrip(" \t\r\n,")))
        except ValueError:
            return
        yield json.dumps(value).encode()


def copied(path: Path, wanted: dict[str, str], where: Path, out: Path) -> dict[str, str]:
    """Write the `wanted` columns (ours to theirs) and `MALFORMED` as parquet at `out`, under our names.

    Returns which of them any row has. Raises UserError where the file is no table, and for an id that is a list, an
    object or true.
    """
    names = set(wanted.values())
    schema = pa.schema([*((ours, _TEXT) for ours in wanted), (MALFORMED, pa.bool_())])
    kept = 0
    present: set[str] = set()
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        rows = _rows(path, where)
        while batch := [_values(row, names) for row in islice(rows, _ROWS)]:
            table: dict[str, pa.Array] = {}
            for ours, theirs in wanted.items():
                found = ((row or {}).get(theirs) for row in batch)
                table[ours] = pa.array([raw and _text(bytes(raw), ours, theirs, where) for raw in found], _TEXT)
            present |= {ours for ours, column in table.items() if column.null_count < len(column)}
            malformed = [row is None for row in batch]
            kept += malformed.count(False)
            writer.write_table(pa.table({**table, MALFORMED: pa.array(malformed)}, schema=schema))
    if not kept:
        raise UserError(
            f"{where} has no JSON object in any line; give an object a line (for example with jq -c .), or an "
            "array of objects."
        )
    return {ours: ours for ours in wanted if ours in present}


def _rows(path: Path, where: Path) -> Iterator[bytes]:
    """Each object as bytes; lines without anything are left out."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
        file.seek(3 if start.startswith(b"\xef\xbb\xbf") else 0)
        if not _bare(start).startswith(b"["):
            while line := file.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise UserError(f"{where} has a line of more than {MAX_LINE >> 20} MB: give an object a line.")
                if line := line.strip().rstrip(b","):
                    yield line
            return
        if path.stat().st_size > MAX_ARRAY:
            raise UserError(
                f"{where} is one JSON array of more than {MAX_ARRAY >> 20} MB; write an object a line "
                "(for example with jq -c '.[]')."
            )
        whole = file.read()
    try:
        yield from (bytes(each) for each in msgspec.json.decode(whole, type=list[msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeError):
        try:
            yield from (json.dumps(each).encode() for each in json.loads(whole))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{where} is not JSON to its end ({str(error)[:100]}).") from error


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _values(row: bytes, names: set[str]) -> Mapping[str, bytes | msgspec.Raw] | None:
    """The values of an object as they are written, of the `names` at least; None where the row is no object."""
    try:
        row.decode()
        return _decoder.decode(row)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = _any(row)
    if value is None:
        return None
    return {
        name: json.dumps(each, ensure_ascii=False).encode("utf-8", "replace")
        for name, each in value.items()
        if name in names
    }


def _any(row: bytes) -> dict[str, Any] | None:
    """An object as JSON, with NaN, or as Python writes it; None for anything else."""
    written = row.decode("utf-8", "replace")
    if "\ufffd" in written:
        return None
    try:
        value = json.loads(written, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        value = tags.literal(written)
    return value if isinstance(value, dict) else None


def _text(raw: bytes, ours: str, theirs: str, where: Path) -> str | None:
    """The text that stands for a value in this place."""
    first = raw[:1]
    if first == b'"':
        return _string(raw)
    if first in (b"n", b"N"):
        return None
    if first not in (b"t", b"f", b"[", b"{"):
        return raw.decode()
    role = role_of(ours)
    if first in (b"t", b"f"):
        if role == "number":
            return "1" if first == b"t" else "0"
        if role in ("id", "time", "whole"):
            raise _wrong(where, ours, theirs, raw)
        return raw.decode()
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:  # a number in it that no float64 holds
        return raw.decode() if role == "tags" else None
    if isinstance(value, dict) and len(value) == 1 and (key := next(iter(value))) in _EXTENDED:
        inner = value[key]
        return str(inner[_EXTENDED[2]] if isinstance(inner, dict) and _EXTENDED[2] in inner else inner)
    if role == "tags":
        return raw.decode()
    if role == "text" and isinstance(value, list):
        return (", " if ours == "creator" else " ").join(tags.names(value)) or None
    if role == "path" or (role == "number" and not value):
        return None
    raise _wrong(where, ours, theirs, raw)


def _string(raw: bytes) -> str:
    """A JSON string; halves of a surrogate pair become question marks."""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeError):
        return json.loads(raw).encode("utf-8", "replace").decode()


def _wrong(where: Path, ours: str, theirs: str, raw: bytes) -> UserError:
    shown, advice = re.sub(r"\s+", " ", raw[:60].decode("utf-8", "replace")), "give text or a number"
    key = next(iter(msgspec.json.decode(raw)), None) if raw[:1] == b"{" else None
    if key == "0":
        advice = "give an object a row (in pandas to_json(orient='records'))"
    elif key is not None:
        way = f"{_each(head(where))}{_at(theirs)} = {_at(theirs)}{_at(key)}"
        advice = f"take a field of it first, for example with jq -c '{way}'"
    return UserError(f"{where}: {ours} is read from {theirs!r}, which has {shown}; {advice}.")
