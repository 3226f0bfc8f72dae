"""One table of your own, whatever it is kept in: from a path to a streaming dataframe with the columns asked for.

Owns the choice of a reader for each file (parquet, Arrow, delimited text, JSON) and the copies that some need,
which lie in a folder that the caller gives and clears. It knows our columns only as places for types (`columns`).
"""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


def names_of(part: Part, header: Sequence[str] = ()) -> list[str]:
    """The columns of one file, and those that the names of its folders say; for JSON those of its first objects.

    Raises UserError where it is no table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Only to look at text needs no copy.
        path = part.path if part.kind in ("text", "json") else containers.plain(part, Path(scratch))
        with _named_after(part, path):
            names = _columns_in(part, path, header)
    return [*names, *(name for name in part.partition if name not in names)]


def _columns_in(part: Part, path: Path, header: Sequence[str]) -> list[str]:
    """Names of the columns in one file."""
    if part.kind == "json":
        return jsonlines.keys(path)
    if part.kind == "text":
        return list(header) or dialect.untyped(files.header(path, *dialect.sniff(path)))
    return list(_schema(part, path).names)


_ENDINGS = ("parquet", "csv", "tsv", "jsonl", "ndjson", "json", "txt", "feather", "arrow")
_PACKED = ("", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


def pair(folder: Path, source: str) -> tuple[Path, str]:
    """The tables of items and of events in a folder: `items` and `events` with any ending, packed or a folder of
    parts, that of `source` first; or RecBole's one `.item` and one `.inter`.

    Where there are none, the names that are missed.
    """
    paths = [_named(folder, name, source) for name in ("items", "events")]
    if not any(path.exists() for path in paths):
        items, inters = (sorted(folder.glob(f"*.{ending}*")) for ending in ("item", "inter"))
        if inters and len(items) != 1:
            raise UserError(f"{folder} has {len(items)} .item files beside its .inter; one with words is needed.")
        if inters:
            # A log that was split for a benchmark is one log.
            whole = [log for log in inters if log.name.split(".")[0] == log.name.partition(".inter")[0]]
            paths = [items[0], whole[0] if len(whole) == 1 else folder / "*.inter*"]
    return paths[0], str(paths[1])


def _named(folder: Path, name: str, source: str) -> Path:
    endings = [source, *(ending for ending in _ENDINGS if ending != source)]
    places = [folder / f"{name}.{ending}{packed}" for ending in endings for packed in _PACKED]
    return next((each for each in [*places, folder / name] if each.exists()), places[0])


def frame(part: Part, wanted: Wanted, scratch: Path, flat: bool = False) -> tuple["daft.DataFrame", dict[str, str]]:
    """Stream one file: its dataframe, and under which of its names there each of our columns is.

    `flat` gives lists of hashtags as text. Copies go to `scratch`, which must live as long as the dataframe.
    """
    path = containers.plain(part, scratch)
    with _named_after(part, path):
        if part.kind == "json":
            opened, names = _json(part, path, wanted, scratch)
        else:
            in_file = _columns_in(part, path, wanted.header)
            known = [*in_file, *part.partition]
            files.require(path, known, wanted.required, dialect.sniff(path)[0] if part.kind == "text" else "")
            names = {ours: theirs for ours, theirs in wanted.columns.items() if theirs in known}
            here = {ours: theirs for ours, theirs in names.items() if theirs in in_file}
            opened, renamed = (
                _text(path, here, wanted) if part.kind == "text" else _typed(part, path, here, scratch, flat)
            )
            names |= renamed
    # What the names of the folders say are columns of text.
    daft = engine.daft()
    for ours, theirs in wanted.columns.items():
        if theirs in part.partition and theirs not in opened.column_names:
            value = part.partition[theirs]
            written = daft.lit(None if value is None else value.encode()).cast(daft.DataType.binary())
            opened = opened.with_column(theirs, written)
            names[ours] = theirs
    return opened, names


def lists_tags(part: Part, theirs: str) -> bool | None:
    """Whether hashtags are a list in this file; None where it has none."""
    if part.kind in ("text", "json"):
        return False
    if part.kind == "arrow" or part.packed:
        return True
    schema = _schema(part, part.path)
    if theirs not in schema.names:
        return None
    return not types.is_text(types.unwrapped(schema.field(theirs).type))


def _json(part: Part, path: Path, wanted: Wanted, scratch: Path) -> tuple["daft.DataFrame", dict[str, str]]:
    out = _fresh(scratch, part)
    names = jsonlines.copied(path, wanted.columns, part.path, out)
    filled = [wanted.columns[ours] for ours in names]
    asked = [theirs for theirs in wanted.columns.values() if theirs in wanted.required]
    if missing := [theirs for theirs in asked if theirs not in (*filled, *part.partition)]:
        known = [*jsonlines.keys(path), *part.partition]
        files.require(part.path, known, missing, advice=jsonlines.inside(path))
        raise UserError(f"{part.path} has nothing in {missing[0]!r}, which every row needs.")
    return engine.daft().read_parquet(files.literal(out)), names


def _text(path: Path, names: dict[str, str], wanted: Wanted) -> tuple["daft.DataFrame", dict[str, str]]:
    """Delimited text; hashtags that are a sequence of words stand there a second time, with bars."""
    delimiter, quote = dialect.sniff(path)
    quote = quote if wanted.quoted else None
    header = wanted.header or files.header(path, delimiter, quote)
    kinds = {} if wanted.header else dialect.typed(header)
    theirs = list(dict.fromkeys(names.values()))
    opened = files.csv(
        path, theirs, delimiter=delimiter, quote=quote, names=list(kinds) or header, headless=bool(wanted.header)
    )
    tags = names.get("hashtags", "")
    if not kinds.get(tags, "").endswith("_seq"):
        return opened, {}
    return opened.with_column(f"{tags}|", dialect.barred(opened, tags)), {"hashtags": f"{tags}|"}


def _typed(
    part: Part, path: Path, names: dict[str, str], scratch: Path, flat: bool
) -> tuple["daft.DataFrame", dict[str, str]]:
    """Parquet as it is, where Daft reads all of it; else, and of Arrow, a copy of the columns that are named."""
    schema = _schema(part, path)
    plain = all(types.is_plain(schema.field(each).type, types.role_of(ours)) for ours, each in names.items())
    if part.kind == "parquet" and plain and not flat and all(types.is_readable(field.type) for field in schema):
        return files.parquet(path, list(dict.fromkeys(names.values()))), {}
    out = _fresh(scratch, part)
    try:
        renamed = types.copied(
            lambda columns: _batches(part, path, columns), schema, names, part.path, out, flat=flat
        )
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise UserError(
            f"{part.path} could not be read to its end: {files.first_line(error)}; write its columns as text, "
            "numbers and timestamps."
        ) from error
    return engine.daft().read_parquet(files.literal(out)), renamed


def _batches(part: Part, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if part.kind == "parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(types.BATCH_ROWS, columns=list(columns))
    else:
        with _arrow(path) as (_, batches):
            yield from (batch.select(list(columns)) for batch in batches)


def _schema(part: Part, path: Path) -> pa.Schema:
    if part.kind == "parquet":
        return files.parquet_schema(path)
    try:
        with _arrow(path) as (schema, _):
            return schema
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not an Arrow file, or was cut short ({files.first_line(error)}).") from error


@contextmanager
def _arrow(path: Path) -> Generator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema and the batches of an Arrow file or stream."""
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            file = ipc.open_file(source)
            yield file.schema, (file.get_batch(n) for n in range(file.num_record_batches))
        else:
            stream = ipc.open_stream(source)
            yield stream.schema, iter(stream)


def _fresh(scratch: Path, part: Part) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch / f"{len(list(scratch.iterdir()))}-{part.path.name}.parquet"


@contextmanager
def _named_after(part: Part, copy: Path) -> Generator[None]:
    """A fault of a copy is told of the file that it was made of."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(copy), str(part.path))) from error
