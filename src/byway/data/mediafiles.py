"""The video and the thumbnail that an item names: where they lie, and whether they have changed.

A name that leads out of the folder of the input is not followed. It opens no file but to hash its bytes.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from byway.base.artifact import hash_file, hash_json
from byway.data.catalog import Catalog
from byway.data.decoding import MAX_MEGABYTES

OUTSIDE = "outside://"
"""A name that leads out of the input's folder: rows come from strangers, and such a file is not opened. A link in
that folder is its owner's word, and is followed."""


def named(catalog: Catalog) -> dict[int, tuple[str, str]]:
    """Video and thumbnail of every item that names one, as the catalog has them."""
    names = (catalog.items[name].to_pylist() for name in ("media", "thumbnail"))
    pairs = enumerate(zip(*names, strict=True))
    return {item: (media or "", thumbnail or "") for item, (media, thumbnail) in pairs if media or thumbnail}


def paths(catalog: Catalog, folder: Path) -> dict[int, tuple[str, str]]:
    """The same as paths; addresses stay what they are, and `OUTSIDE` is a name that leads out of the folder."""
    return {item: resolved(folder, pair) for item, pair in named(catalog).items()}


def resolved(folder: Path, pair: tuple[str, str]) -> tuple[str, str]:
    """The paths of two names, as `paths`."""
    media, thumbnail = (name if not name or "://" in name else _inside(folder, name) for name in pair)
    return media, thumbnail


def _inside(folder: Path, name: str) -> str:
    # By its letters and not by its links: `a/..` is the folder, wherever a link `a` leads.
    within = os.path.normpath(os.path.relpath(name, folder) if os.path.isabs(name) else name)
    return OUTSIDE if within.split(os.sep)[0] == os.pardir else str(folder / within)


def _size(path: str) -> int:
    """Bytes of a file; 0 where there is none, or where that is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # too long, or with a zero in it
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def state(catalog: Catalog, folder: Path) -> str:
    """Identity of all media files by size and time of change, without reading them."""
    marks: list[tuple[str, int, int]] = []
    for pair in named(catalog).values():
        for name, path in zip(pair, resolved(folder, pair), strict=True):
            if path and "://" not in path and (size := _size(path)):
                marks.append((name, size, os.stat(path).st_mtime_ns))
    return hash_json(marks)


def digest(pair: tuple[str, str]) -> str:
    """Hash of the bytes of an item's files, `pair`; a file that is no file, or empty, or too large, by its name."""
    parts: list[str] = []
    for name in pair:
        parts.append(name)
        if "://" not in name and 0 < _size(name) <= MAX_MEGABYTES << 20:
            with suppress(OSError):  # what cannot be read is refused by the decoder
                parts[-1] = hash_file(Path(name))
    return hash_json(parts)
