"""Where items and events come from: a public data set, or your own tables with a column map.

Owns the [catalog] section's way to raw rows. `layouts` and `described` know the public data sets, `naming` which
column is which, `meaning` what a column means, `raw` what a source yields; cleaning is decided in `catalog` and
`events`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from byway.base import config, engine
from byway.base.errors import UserError
from byway.data import containers, described, jsonlines, meaning, naming, tables
from byway.data.casts import concat
from byway.data.containers import Part
from byway.data.layouts import LAYOUTS
from byway.data.naming import Kind
from byway.data.public import DESCRIBED
from byway.data.raw import Decisions, Raw

if TYPE_CHECKING:
    import daft


OWN = ("parquet", "csv", "json")
"""Sources that are tables of one's own."""
TABLES = {".csv", ".tsv", ".dat", ".data", ".item", ".parquet", ".json", ".jsonl"}
"""Endings of the files of a public data set that hold items and events."""


def read(settings: config.Catalog, workspace: Path, scratch: Path, propose: bool = False) -> Raw:
    """Open the source that the settings name; relative paths start at `workspace`.

    With `propose` a scale of satisfaction that is found is taken, else it must stand in the settings. Copies of
    files that are packed or not read as they are go to `scratch`, which must live as long as the rows. Raises
    UserError where a file of the layout is missing or is not what it says.
    """
    if not settings.items:
        raise UserError("[catalog] items is empty; name your file of items, or the folder of a public data set.")
    items = workspace / settings.items
    events = workspace / settings.events if settings.events else None
    if settings.source in OWN:
        if events is None:
            raise UserError("[catalog] events is empty; name your file of events.")
        # A column that the map does not name is read under our own name, where the file has it, else under a usual
        # one. Without `satisfaction` every event counts 1.
        item_rows, of_items = _items(settings, items, scratch, propose)
        event_rows, of_events = _open(settings, "events", events, scratch, propose)
        return Raw(item_rows, event_rows, items, events, (*of_items, *of_events))
    if not items.is_dir():
        raise UserError(f"{items} is not a folder; [catalog] items names the folder of {settings.source}.")
    if settings.source in DESCRIBED:
        return described.read(DESCRIBED[settings.source], items, events, scratch)
    return LAYOUTS[settings.source](items, events)


def files(settings: config.Catalog, workspace: Path) -> dict[str, Path]:
    """The files that `read` opens: those named, also by pattern, and all tables in a named folder.

    Their names start with the setting, since files of items and of events may share one.
    """
    opened: dict[str, Path] = {}
    for key, name in (("items", settings.items), ("events", settings.events)):
        path = workspace / name
        if not name:
            continue
        folder = path if path.is_dir() else path.parent
        for place in containers.matched(path):
            inside = sorted(_in_folder(place, settings.source)) if place.is_dir() else [place]
            opened |= {f"{key}/{file.relative_to(folder).as_posix()}": file for file in inside if file.is_file()}
    return opened


def _in_folder(folder: Path, source: str) -> list[Path]:
    """Each part of an own table, else what ends as the tables of public data sets do."""
    if source in OWN:
        return [file for file in folder.rglob("*") if containers.is_part(file, folder)]
    return [file for file in folder.rglob("*") if any(suffix in TABLES for suffix in file.suffixes[-2:])]


def new_rows(settings: config.Catalog, kind: Kind, path: Path, scratch: Path) -> Raw:
    """A table of your own beside a finished run, whatever that was read from; nothing else is opened.

    The one table stands in both places of what is returned. `scratch` as in `read`.
    """
    frame = (_items(settings, path, scratch) if kind == "items" else _open(settings, kind, path, scratch))[0]
    return Raw(frame, frame, path, path)


def _items(
    settings: config.Catalog, path: Path, scratch: Path, propose: bool = False
) -> tuple["daft.DataFrame", list[Decisions]]:
    frame, decisions = _open(settings, "items", path, scratch, propose)
    if not {"title", "hashtags", "description"} & set(frame.column_names):
        part = containers.parts(path, settings.source)[0]
        advice = jsonlines.inside(part.path) if part.kind == "json" else ""
        raise UserError(
            f"{path} has no column 'title' (nor hashtags or description); map one in item_columns{advice}."
        )
    return frame, decisions


def _open(
    settings: config.Catalog, kind: Kind, path: Path, scratch: Path, propose: bool = False
) -> tuple["daft.DataFrame", list[Decisions]]:
    """The rows of all files at `path` under our names, and what was decided about each.

    Each file is typed by itself: files may have other columns and other units of time, and be of another kind
    (the source where neither their content nor their ending says of which). What a file does not say is null, and
    its satisfaction 1; but an order of events is said by all or by none.
    """
    ours = naming.OURS[kind]
    setting, given = f"{kind[:-1]}_columns", settings.item_columns if kind == "items" else settings.event_columns
    mapped, header = (given, ()) if isinstance(given, dict) else ({}, tuple(given))
    required = ("user", "item") if kind == "events" else ("item",)
    for name in mapped:
        if name not in ours:
            raise UserError(f"[catalog] {setting} has no column {name!r}; it maps {', '.join(ours)}.")
        if name in required and not mapped[name]:
            raise UserError(f"[catalog] {setting} names no column for {name!r}, which every row needs; name yours.")
    parts = containers.parts(path, settings.source)
    maps = {part.path: naming.column_map(_names(part, header), kind, mapped) for part in parts}
    lists = [tables.lists_tags(part, maps[part.path].columns.get("hashtags", "hashtags")) for part in parts]
    flat = kind == "items" and True in lists and False in lists
    frames: dict[Path, daft.DataFrame] = {}
    decisions: list[Decisions] = []
    for part in parts:
        column_map = maps[part.path]
        columns = {name: mapped.get(name) or name for name in ours if mapped.get(name, name)} | column_map.columns
        needed = tuple(dict.fromkeys(columns[name] for name in ours if name in required or mapped.get(name)))
        if kind == "events" and not {"time", "order"} & set(column_map.columns):
            looked = naming.counting(column_map.unused)
            columns |= {f"{meaning.EXTRA}{number}": name for number, name in enumerate(looked)}
        wanted = tables.Wanted(columns, needed, header)
        frame, names = tables.frame(part, wanted, scratch, flat)
        frames[part.path], decided = meaning.typed(frame, names, column_map, part.path, settings, propose)
        decisions.append(decided)
    for name in ("time", "order"):
        lacks = [file for file, frame in frames.items() if name not in frame.column_names]
        if 0 < len(lacks) < len(frames):
            raise UserError(f"{lacks[0]} has no column {name!r}, which other files beside it have.")
    if any("satisfaction" in frame.column_names for frame in frames.values()):
        for file, frame in frames.items():
            if "satisfaction" not in frame.column_names:
                frames[file] = frame.with_column("satisfaction", engine.daft().lit(1.0))
    return concat(list(frames.values())), decisions


def _names(part: Part, header: tuple[str, ...]) -> list[str]:
    """The columns of a file; none of JSON without objects at its head, whose fault reading it says better."""
    try:
        return tables.names_of(part, header)
    except UserError:
        if part.kind == "json":
            return []
        raise
