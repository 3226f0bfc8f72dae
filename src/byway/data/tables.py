"""One table of your own, whatever it is kept in: from a path to a streaming dataframe with the columns asked for.

Owns the choice of a reader for each file (parquet, Arrow, delimited text, JSON) and the copies that some need,
which lie in a folder that the caller gives and clears. It knows our columns only as places for types (`columns`).
"""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from byway.base import engine
from byway.base.errors import UserError
from byway.data import columns as types
from byway.data import containers, dialect, files, jsonlines
from byway.data.containers import Part

if TYPE_CHECKING:
    import daft


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of every file of a table."""

    columns: dict[str, str]
    """Our columns to theirs, all that there might be."""
    required: tuple[str, ...]
    """Theirs, which each file must have."""
    header: tuple[str, ...] = ()
    """Names of the columns where the files have none in their first line."""
    quoted: bool = True
    """Whether quotes in delimited text may mean something."""


def column_names(path: Path, source: str, header: Sequence[str] = ()) -> list[str]:
    """The columns of the table at `path`, by its first file; for JSON those among its first objects.

    Raises UserError where it is not there or is no table.
    """
    return names_of(containers.parts(path, source)[0], header)


def names_of(part: Part, header: Sequence[str] = ()) -> list[str]:
    """The columns of one file, and those that the names of its folders say."""
    with tempfile.TemporaryDirectory() as scratch, _named_after(part) as copies:
        found = _found(part, _ready(part, Path(scratch), copies), header)
    return [*found, *(name for name in part.partition if name not in found)]


_ENDINGS = ("parquet", "csv", "tsv", "jsonl", "ndjson", "json", "txt", "feather", "arrow")
_PACKED = ("", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


def pair(folder: Path, source: str) -> tuple[Path, str]:
    """The tables of items and of events in a folder: `items` and `events` with any ending, packed or a folder of
    parts, that of `source` first; or RecBole's one `.item` and one `.inter`.

    Where there are none, the names that are missed.
    """
    found = [_named(folder, name, source) for name in ("items", "events")]
    if not any(each.exists() for each in found):
        items, inters = (sorted(folder.glob(f"*.{ending}*")) for ending in ("item", "inter"))
        if inters and len(items) != 1:
            raise UserError(f"{folder} has {len(items)} .item files beside its .inter; one with words is needed.")
        if inters:
            # A log that was split for a benchmark is one log.
            whole = [each for each in inters if each.name.split(".")[0] == each.name.partition(".inter")[0]]
            found = [items[0], whole[0] if len(whole) == 1 else folder / "*.inter*"]
    return found[0], str(found[1])


def _named(folder: Path, name: str, source: str) -> Path:
    endings = [source, *(ending for ending in _ENDINGS if ending != source)]
    places = [folder / f"{name}.{ending}{packed}" for ending in endings for packed in _PACKED]
    return next((each for each in [*places, folder / name] if each.exists()), places[0])


def frame(part: Part, wanted: Wanted, scratch: Path, flat: bool = False) -> tuple["daft.DataFrame", dict[str, str]]:
    """Stream one file: its dataframe, and under which of its names there each of our columns is.

    `flat` gives lists of hashtags as text. Copies go to `scratch`, which must live as long as the dataframe.
    """
    with _named_after(part) as copies:
        path = _ready(part, scratch, copies, whole=True)
        if part.kind == "json":
            out = _fresh(scratch, part)
            names = jsonlines.copied(path, wanted.columns, part.path, out)
            absent = {theirs: ours for ours, theirs in wanted.columns.items() if theirs in wanted.required}
            found = [theirs for ours, theirs in wanted.columns.items() if ours in names]
            if missing := [theirs for theirs in absent if theirs not in (*found, *part.partition)]:
                known = [*jsonlines.keys(path), *part.partition]
                files.require(part.path, known, missing, advice=jsonlines.inside(path))
                raise UserError(f"{part.path} has nothing in {missing[0]!r}, which every row needs.")
            opened = engine.daft().read_parquet(files.literal(out))
        else:
            found = _found(part, path, wanted.header)
            known = [*found, *part.partition]
            names = {
                ours: theirs
                for ours, theirs in wanted.columns.items()
                if theirs in known or theirs in wanted.required
            }
            files.require(path, known, wanted.required, dialect.sniff(path)[0] if part.kind == "text" else "")
            names_here = {ours: theirs for ours, theirs in names.items() if theirs in found}
            opened, renamed = _opened(part, path, names_here, wanted, scratch, flat)
            names |= renamed
        return _with_partition(opened, part, wanted, names), names


def lists_tags(part: Part, theirs: str) -> bool | None:
    """Whether hashtags are a list in this file; None where it has none."""
    if part.kind == "arrow" or part.packed:
        return part.kind not in ("text", "json")
    if part.kind != "parquet":
        return False
    schema = _schema(part.path)
    if theirs not in schema.names:
        return None
    kind, text = schema.field(theirs).type, types.is_text(schema.field(theirs).type)
    return not text and not pa.types.is_null(kind)


def _opened(
    part: Part, path: Path, names: dict[str, str], wanted: Wanted, scratch: Path, flat: bool
) -> tuple["daft.DataFrame", dict[str, str]]:
    theirs = list(dict.fromkeys(names.values()))
    if part.kind == "text":
        opened, barred = _text(path, theirs, wanted)
        return opened, {"hashtags": f"{names['hashtags']}|"} if names.get("hashtags") in barred else {}
    if part.kind == "arrow":
        schema = _schema(path, arrow=True)
        return _copy(part, path, schema, names, scratch, flat)
    schema = _schema(path)
    kinds = {ours: schema.field(each).type for ours, each in names.items()}
    raw = any(types.role_of(ours) == "id" and types.is_bytes(kind) for ours, kind in kinds.items())
    plain = all(types.is_plain(kind, types.role_of(ours)) for ours, kind in kinds.items())
    if plain and not raw and not flat and all(types.is_readable(field.type) for field in schema):
        return files.parquet(path, theirs), {}
    return _copy(part, path, schema, names, scratch, flat)


def _text(path: Path, theirs: Sequence[str], wanted: Wanted) -> tuple["daft.DataFrame", list[str]]:
    """Delimited text; and those of its columns that are sequences of words, which stand there with bars too."""
    header = wanted.header
    delimiter, quote = dialect.sniff(path)
    quote = quote if wanted.quoted else None
    names = list(header) or files.header(path, delimiter, quote)
    kinds = {} if header else dialect.typed(names)
    names = names if header else dialect.untyped(names)
    found = files.csv(path, theirs, delimiter=delimiter, quote=quote, names=names, headless=bool(header))
    listed = [name for name in theirs if kinds.get(name, "").endswith("_seq")]
    return found.with_columns({f"{name}|": dialect.barred(found, name) for name in listed}), listed


def _copy(
    part: Part, path: Path, schema: pa.Schema, names: dict[str, str], scratch: Path, flat: bool
) -> tuple["daft.DataFrame", dict[str, str]]:
    out = _fresh(scratch, part)
    try:
        hexed = {
            ours
            for ours, theirs in names.items()
            if types.role_of(ours) == "id"
            and types.is_bytes(schema.field(theirs).type)
            and types.are_raw(_batches(part, path, [theirs]), types.width(schema.field(theirs).type))
        }
        chosen = list(dict.fromkeys(names.values()))
        renamed = types.copied(_batches(part, path, chosen), schema, names, part.path, out, hexed=hexed, flat=flat)
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise UserError(
            f"{part.path} could not be read to its end: {files.first_line(error)}; write its columns as text, "
            "numbers and timestamps."
        ) from error
    return engine.daft().read_parquet(files.literal(out)), renamed


def _batches(part: Part, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if part.kind == "arrow":
        with ExitStack() as stack:
            reader = stack.enter_context(_ipc(path, stack))
            for batch in _ipc_batches(reader):
                yield batch.select(list(columns))
        return
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(types.BATCH_ROWS, columns=list(columns))


def _schema(path: Path, arrow: bool = False) -> pa.Schema:
    try:
        if arrow:
            with ExitStack() as stack:
                return stack.enter_context(_ipc(path, stack)).schema
        files.parquet_columns(path)
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not an Arrow file, or was cut short ({files.first_line(error)}).") from error


def _ipc(path: Path, stack: ExitStack) -> Any:
    source = stack.enter_context(pa.memory_map(str(path)))
    start = source.read(6)
    source.seek(0)
    return ipc.open_file(source) if start == b"ARROW1" else ipc.open_stream(source)


def _ipc_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, ipc.RecordBatchFileReader):
        yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
    else:
        yield from reader


def _found(part: Part, path: Path, header: Sequence[str]) -> list[str]:
    """Names of the columns in one file."""
    if part.kind == "parquet":
        return files.parquet_columns(path)
    if part.kind == "arrow":
        return list(_schema(path, arrow=True).names)
    if part.kind == "json":
        return jsonlines.keys(path)
    return list(header) or dialect.untyped(files.header(path, *dialect.sniff(path)))


def _with_partition(
    opened: "daft.DataFrame", part: Part, wanted: Wanted, names: dict[str, str]
) -> "daft.DataFrame":
    """With what the names of the folders say as columns of text."""
    daft = engine.daft()
    there = opened.column_names
    for ours, theirs in wanted.columns.items():
        if theirs in part.partition and theirs not in there:
            value = part.partition[theirs]
            written = daft.lit(None if value is None else value.encode()).cast(daft.DataType.binary())
            opened = opened.with_column(theirs, written)
            there = opened.column_names
            names[ours] = theirs
    return opened


def _ready(part: Part, scratch: Path, copies: dict[Path, Path], whole: bool = False) -> Path:
    """The file to read: itself, or its unpacked copy; only looking at text needs no copy."""
    if not whole and part.kind in ("text", "json"):
        return part.path
    copy = containers.plain(part, scratch)
    copies[copy] = part.path
    return copy


def _fresh(scratch: Path, part: Part) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch / f"{len(list(scratch.iterdir()))}-{part.path.name}.parquet"


@contextmanager
def _named_after(part: Part) -> Generator[dict[Path, Path]]:
    """A fault of a copy is told of the file that it was made of."""
    copies: dict[Path, Path] = {}
    try:
        yield copies
    except UserError as error:
        sentence = str(error)
        for copy, path in copies.items():
            sentence = sentence.replace(str(copy), str(path))
        if sentence == str(error):
            raise
        raise UserError(sentence) from error
