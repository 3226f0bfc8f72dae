"""What lies at a path: one file, several, or a folder of parts; plain, packed or of another kind altogether.

Owns the way from a path to files of one of three kinds (parquet, delimited text, JSON), told by their content and
not by their names, and the unpacking of gzip, bzip2, xz, zstd, lz4 and zip into a folder that the caller gives and
clears. It knows no columns.
"""

import bz2
import codecs
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa

from byway.base.errors import UserError

Kind = Literal["parquet", "arrow", "text", "json"]

HEAD = 1 << 22
"""Bytes that are looked at to tell what a file is."""

MAX_RATIO = 250
"""A packed file may become this many times as large, and `ROOM` bytes in any case; real logs pack 3 to 100."""

ROOM = 1 << 28

_BLOCK = 1 << 20
_XZ_MEMORY = 1 << 29
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a table."""

    path: Path
    """What a sentence names."""
    kind: Kind
    packed: str = ""
    """Name of the packing, empty where there is none."""
    utf16: bool = False
    latin: bool = False
    """Whether a line that is no UTF-8 is Latin-1."""
    partition: dict[str, str | None] = field(default_factory=dict)
    """Columns that only the names of the folders say, as in `day=2024-01-01/part-0.parquet`."""


def matched(path: Path) -> list[Path]:
    """The path itself, or what its last name matches where that is a pattern (`*`, `?`), in alphabetical order."""
    return sorted(path.parent.glob(path.name)) if any(mark in path.name for mark in "*?") else [path]


def expand(path: Path) -> list[Path]:
    """The files that a path means, in alphabetical order: those `matched`, and those in a folder of parts.

    Raises UserError where there is none, and for a folder that is a table of another system.
    """
    files: list[Path] = []
    for place in matched(path):
        if not place.exists():
            raise UserError(f"{place} does not exist.")
        files += _in_folder(place) if place.is_dir() else [place]
    if not files:
        raise UserError(f"{path} matches no file.")
    return files


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder of parts, as Spark, Hive and Daft write it; what begins with `_` or `.` is theirs."""
    for mark, system in (("_delta_log", "a Delta table"), (".hoodie", "a Hudi table")):
        if (folder / mark).exists():
            raise UserError(f"{folder} is {system}, which may hold rows that were deleted; export it as parquet.")
    if any((folder / "metadata").glob("*.metadata.json")):
        raise UserError(f"{folder} is an Iceberg table; export it as parquet.")
    files = [file for file in sorted(folder.rglob("*")) if is_part(file, folder)]
    full = [file for file in files if file.stat().st_size]
    if not full:
        raise UserError(f"{folder} is a folder without files of data.")
    return full


def is_part(file: Path, folder: Path) -> bool:
    """Whether what lies in a folder is a file of the table: no mark, checksum or word to the reader."""
    names = file.relative_to(folder).parts
    hidden = any(name.startswith(("_", ".")) and "=" not in name for name in names)
    aside = file.suffix == ".crc" or file.name.split(".")[0].lower() in ("readme", "license", "licence")
    return file.is_file() and not hidden and not aside


def parts(path: Path, source: str) -> list[Part]:
    """The files at `path` and what each of them is.

    `source` ("parquet", "csv", "json") decides where neither content nor ending does. Raises UserError for what is
    no table.
    """
    files: list[Part] = []
    for file in expand(path):
        packed = packing(file)
        start = head(file)
        wide = utf16(start)
        text = start[: len(start) // 2 * 2].decode(wide, "ignore").encode() if wide else start
        kind = _kind(file, text, source, packed)
        files.append(Part(file, kind, packed, bool(wide) and kind != "parquet", partition=_partition(file, path)))
    return files


def _partition(file: Path, path: Path) -> dict[str, str | None]:
    """Columns said by folders below `path`."""
    if file == path:
        return {}
    columns: dict[str, str | None] = {}
    for name in file.relative_to(path.parent).parts[:-1]:
        key, equals, value = name.partition("=")
        if equals and key:
            columns[unquote(key)] = None if value == _DEFAULT_PARTITION else unquote(value)
    return columns


# --- What a file is ---------------------------------------------------------------------------------------

_PACKED = (
    ("gzip", b"\x1f\x8b\x08"),
    ("xz", b"\xfd7zXZ\0"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("lz4", b"\x04\x22\x4d\x18"),
    ("zip", b"PK\x03\x04"),
    ("zip", b"PK\x05\x06"),
)
_CALLED_PACKED = {
    ".gz", ".gzip", ".tgz", ".bz2", ".bz", ".xz", ".lzma", ".zst", ".zstd", ".lz4", ".zip", ".br",
    ".deflate", ".zlib", ".snappy", ".sz",
}  # fmt: skip
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)")

_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"SQLite format 3\0", "an SQLite database", "export its tables, for example with sqlite3 -csv -header"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save its sheets as CSV"),
    (b"version https://git-lfs", "a pointer of git-lfs and not the file itself", "fetch it with git lfs pull"),
    (b"version https://hawser", "a pointer of git-lfs and not the file itself", "fetch it with git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write it as parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write it as parquet or CSV with named columns"),
    (b"FEA1", "an old Feather file", "write it as parquet"),
    (b"Obj\x01", "an Avro file", "write it as parquet"),
    (b"ORC", "an ORC file", "write it as parquet"),
    (b"PARE", "an encrypted parquet file", "write it without encryption"),
    (b"%PDF", "a PDF", "give the table itself"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (b"\x1f\x9d", "a file packed with compress", "unpack it first"),
    (b"RDX", "data of R", "write it as CSV or parquet"),
    (b"RDA", "data of R", "write it as CSV or parquet"),
    (b"<?xml", "XML", "give CSV, parquet or JSON lines"),
    (b"MATLAB 5.0", "a MATLAB file", "write it as CSV or parquet"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


def packing(file: Path) -> str:
    """How the file is packed, by its first bytes; empty where it is not."""
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    return _packing(start)


def _packing(start: bytes) -> str:
    if _BZIP2.match(start):
        return "bzip2"
    return next((name for name, mark in _PACKED if start.startswith(mark)), "")


def _kind(file: Path, start: bytes, source: str, packed: str) -> Kind:
    if again := _packing(start):
        raise UserError(f"{file} is packed twice, {again} in {packed}; unpack it once.")
    for mark, what, advice in _FOREIGN:
        if start.startswith(mark):
            raise UserError(f"{file} is {what}; {advice}.")
    if _PICKLE.match(start):
        raise UserError(f"{file} is a pickle, which is not read since it could run code; write it as parquet.")
    if start[257:262] == b"ustar":
        raise UserError(f"{file} is a tar archive; unpack it and name the file in it.")
    if _HTML.match(start.removeprefix(codecs.BOM_UTF8)):
        raise UserError(f"{file} is a web page (HTML), saved in place of the table; download the file itself.")
    endings = [suffix.lower() for suffix in file.suffixes[-2:]]
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if ".parquet" in endings or (source == "parquet" and not _TEXT & set(endings)):
        return "parquet"  # its reader says what is wrong
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if _BEGINS_JSON.match(text) or _JSON & set(endings) or (source == "json" and not _TEXT & set(endings)):
        return "json"
    return "text"


_JSON = {".json", ".jsonl", ".ndjson", ".jsonlines"}
_TEXT = {".csv", ".tsv", ".txt", ".dat", ".data", ".tab", ".psv", ".inter", ".item", ".user", *_JSON}
_BEGINS_JSON = re.compile(rb"\{\s*(\}|u?['\"])|\[\s*(\]|\{\s*(\}|u?['\"]))")
"""An object a line, or one array of objects."""


def utf16(start: bytes) -> str:
    """The name of the UTF-16 that a text is in, empty where it is not."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    line = start[:200]
    if len(line) > 8 and b"\0" in line:
        even, odd = line[0::2].count(0), line[1::2].count(0)
        if odd > 0.9 * len(line[1::2]) and not even:
            return "utf-16-le"
        if even > 0.9 * len(line[0::2]) and not odd:
            return "utf-16-be"
    return ""


# --- Unpacking --------------------------------------------------------------------------------------------


def head(file: Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, unpacked; UserError where it cannot be read or unpacked."""
    start = bytearray()
    for block in _blocks(file, packing(file)):
        start += block
        if len(start) >= size:
            break
    return bytes(start[:size])


def plain(part: Part, scratch: Path) -> Path:
    """The file itself, or its unpacked UTF-8 copy in `scratch`.

    Raises UserError where the file is damaged, and where it becomes larger than a log does (`MAX_RATIO`).
    """
    called_packed = part.path.suffix.lower() in _CALLED_PACKED  # by which Daft would go
    if not part.packed and not part.utf16 and not part.latin and not called_packed:
        return part.path
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / f"{len(list(scratch.iterdir()))}-{part.path.stem}.{part.kind}"
    limit = max(ROOM, MAX_RATIO * part.path.stat().st_size)
    written = 0
    try:
        with copy.open("wb") as out:
            for block in _in_utf8(part):
                written += len(block)
                if written > limit:
                    raise UserError(
                        f"{part.path} becomes more than {limit >> 20:,} MB when it is unpacked, over "
                        f"{MAX_RATIO} times its size, as no log does; unpack it yourself if it is one."
                    )
                try:
                    out.write(block)
                except OSError as error:
                    raise UserError(f"{part.path} cannot be unpacked into {scratch}: {error.strerror}.") from error
    except UserError:
        copy.unlink()
        raise
    return copy


def in_utf8(part: Part, scratch: Path) -> Part:
    """A copy of text of which single lines are in Latin-1, as old public data sets have them."""
    copy = plain(replace(part, latin=True), scratch)
    return Part(copy, part.kind, partition=part.partition)


def _in_utf8(part: Part) -> Iterator[bytes]:
    """The bytes of a file, unpacked; of UTF-16, and of lines in Windows' Latin-1, in UTF-8."""
    blocks = _blocks(part.path, part.packed)
    if part.utf16:
        try:
            for text in codecs.iterdecode(blocks, utf16(head(part.path, 256))):
                yield text.encode()
        except UnicodeDecodeError as error:
            raise UserError(f"{part.path} is not UTF-16 text to its end ({error.reason}).") from error
    elif part.latin:
        left = b""
        for block in blocks:
            *lines, left = (left + block).split(b"\n")
            yield from (_recoded(line) + b"\n" for line in lines)
        yield _recoded(left)
    else:
        yield from blocks


def _recoded(line: bytes) -> bytes:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace").encode()
    return line


def _blocks(file: Path, packed: str) -> Iterator[bytes]:
    """The bytes of a file, unpacked, a block at a time."""
    try:
        if packed == "xz":
            yield from _xz(file)
        else:
            with ExitStack() as opened:
                stream = _stream(file, packed, opened)
                yield from iter(lambda: stream.read(_BLOCK), b"")
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException) as error:
        if isinstance(error, OSError) and (not packed or error.errno is not None):
            raise UserError(f"{file} cannot be read: {error.strerror}.") from error
        raise UserError(f"{file} is a {packed} file that is damaged or was cut short ({error}).") from error
    except (RuntimeError, NotImplementedError) as error:  # how zipfile says a password and a method it lacks
        raise UserError(f"{file} is a {packed} file that cannot be unpacked ({error}); unpack it first.") from error


def _stream(file: Path, packed: str, opened: ExitStack) -> Any:
    if packed == "gzip":
        return opened.enter_context(gzip.open(file, "rb"))
    if packed == "bzip2":
        return opened.enter_context(bz2.open(file, "rb"))
    if packed == "zip":
        archive = opened.enter_context(zipfile.ZipFile(file))
        return opened.enter_context(archive.open(_member(file, archive)))
    if packed:  # zstd or lz4
        return opened.enter_context(pa.CompressedInputStream(pa.OSFile(str(file), "rb"), packed))
    return opened.enter_context(file.open("rb"))


def _xz(file: Path) -> Iterator[bytes]:
    """Streams one after the other; the memory that a stream may ask for is bounded."""
    with file.open("rb") as stream:
        waiting = stream.read(_BLOCK)
        while waiting:
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            while not decoder.eof:
                if decoder.needs_input and not waiting:
                    raise EOFError("its end is missing")
                yield decoder.decompress(waiting, max_length=_BLOCK)
                waiting = stream.read(_BLOCK) if decoder.needs_input and not decoder.eof else b""
            waiting = (decoder.unused_data + stream.read(_BLOCK)).lstrip(b"\0")


def _member(file: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file in a zip archive."""
    names = {info.filename for info in archive.infolist()}
    if "[Content_Types].xml" in names:
        raise UserError(f"{file} is an Excel or Office file; save its sheets as CSV.")
    if "mimetype" in names and "content.xml" in names:
        raise UserError(f"{file} is an OpenDocument file; save its sheets as CSV.")
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith(("__MACOSX/", ".")) and "/." not in info.filename
    ]
    if len(members) != 1:
        shown = ", ".join(info.filename for info in members[:5]) or "none"
        raise UserError(f"{file} is a zip archive of {len(members):,} files ({shown}); unpack it and name one.")
    return members[0]
