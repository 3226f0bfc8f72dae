"""01-media: what there is to see and hear of each item, as vectors, within bounds of time and memory a file.

Owns the artifact: which items have a video or a thumbnail that could be opened, what was seen in them, and the
files that were refused, each with its reason. Opening is `decoding`, seeing `pictures`, hearing `sound`. It does
not know events or clusters. Rows go through the dataframe engine, so that a cluster can share the work; what a
former run has seen of the same bytes is taken over.
"""

import io
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from byway.base import config, engine, known_models
from byway.base.artifact import Outcome, Record, Work, hash_file, hash_json, read_record, write_atomic
from byway.base.progress import bar
from byway.data import sound
from byway.data.catalog import Catalog
from byway.data.decoding import MAX_MEGABYTES, Decoded, Decoder

SHARD = 256
"""Items between two checkpoints: what is decoded ahead of the encoder stays under 350 MB, with eight frames."""
PATCHES = 2
"""A picture is kept as this many times this many vectors: where something is, at a quarter of the picture."""
OUTSIDE = "outside://"
"""A name that leads out of the input's folder: rows come from strangers, and such a file is not opened. A link in
that folder is its owner's word, and is followed."""


@dataclass(frozen=True, slots=True)
class Media:
    """What was seen and heard. Row r is item `item[r]` of the catalog."""

    item: NDArray[np.int32]
    """[m] ascending: items of which at least one file could be opened."""
    pictures: NDArray[np.float16]
    """[m, frames + 1, P * P, width]: the frames in time, the thumbnail last; zero where there is none."""
    there: NDArray[np.bool_]
    """[m, frames + 1] which pictures there are."""
    sounds: NDArray[np.float32]
    """[m, sound.FEATURES]; NaN where there is nothing to hear."""
    digest: list[str]
    """[m] hash of the item's files."""
    path: Path
    """The artifact, whose `files.parquet` says where the files are, as the catalog does."""
    captions: tuple[str, ...] = ()
    """[m] what a model says is seen; empty where none was asked."""
    folder: Path = Path()
    """That of the input, where relative names start. It is no part of the artifact, which can be moved."""

    @property
    def frames(self) -> int:
        """Frames a video."""
        return self.pictures.shape[1] - 1

    def row(self, items: int) -> NDArray[np.int32]:
        """[items] row of each item of the catalog, or -1."""
        rows = np.full(items, -1, np.int32)
        rows[self.item] = np.arange(len(self.item), dtype=np.int32)
        return rows

    def files(self) -> dict[int, tuple[str, str]]:
        """Video and thumbnail of each item as paths; empty where there is none or it was refused."""
        table = pq.read_table(self.path / "files.parquet")
        rows = zip(*(table[name].to_pylist() for name in ("item", "media", "thumbnail")), strict=True)
        return {item: _in(self.folder, (media, thumbnail)) for item, media, thumbnail in rows}


def variety(seen: Media, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """[m] of rows of `seen`, how much there is to see: the variance of the pictures' features over all places of
    all frames that there are, mean over features. 0 for row -1, which was not seen."""
    found = np.zeros(len(rows))
    for at, row in enumerate(rows.tolist()):
        if row >= 0 and seen.there[row].any():
            features = np.asarray(seen.pictures[row][seen.there[row]], np.float32)
            found[at] = features.reshape(-1, features.shape[-1]).var(axis=0).mean()
    return found


def noise(seen: Media, rng: np.random.Generator) -> Media:
    """The same items with noise for pictures, of each feature's own mean and deviation: a control."""
    pictures = np.asarray(seen.pictures, np.float32)
    own = pictures[seen.there]
    shown = rng.normal(own.mean((0, 1)), own.std((0, 1)), pictures.shape).astype(np.float16)
    return replace(seen, pictures=shown)


def load(path: Path) -> Media:
    """Read 01-media, its arrays memory-mapped."""
    table = pq.read_table(path / "files.parquet")
    arrays = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("pictures", "there", "sounds"))
    captions = tuple(table["caption"].to_pylist()) if "caption" in table.column_names else ()
    return Media(
        table["item"].to_numpy(), *arrays, digest=table["digest"].to_pylist(), path=path, captions=captions
    )


def named(catalog: Catalog) -> dict[int, tuple[str, str]]:
    """Video and thumbnail of every item that names one, as the catalog has them."""
    names = (catalog.items[name].to_pylist() for name in ("media", "thumbnail"))
    pairs = enumerate(zip(*names, strict=True))
    return {item: (media or "", thumbnail or "") for item, (media, thumbnail) in pairs if media or thumbnail}


def sources(catalog: Catalog, folder: Path) -> dict[int, tuple[str, str]]:
    """The same as paths; addresses stay what they are, and `OUTSIDE` is a name that leads out of the folder."""
    return {item: _in(folder, pair) for item, pair in named(catalog).items()}


def _in(folder: Path, pair: tuple[str, str]) -> tuple[str, str]:
    media, thumbnail = (name if not name or "://" in name else _inside(folder, name) for name in pair)
    return media, thumbnail


def _inside(folder: Path, name: str) -> str:
    # By its letters and not by its links: `a/..` is the folder, wherever a link `a` leads.
    within = os.path.normpath(os.path.relpath(name, folder) if os.path.isabs(name) else name)
    return OUTSIDE if within.split(os.sep)[0] == os.pardir else str(folder / within)


def _size(path: str) -> int:
    """Bytes of a file; 0 where there is none, or where that is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # too long, or with a zero in it
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def state(catalog: Catalog, folder: Path) -> str:
    """Identity of all media files by size and time of change, without reading them."""
    marks: list[tuple[str, int, int]] = []
    for pair in named(catalog).values():
        for name, path in zip(pair, _in(folder, pair), strict=True):
            if path and "://" not in path and (size := _size(path)):
                marks.append((name, size, os.stat(path).st_mtime_ns))
    return hash_json(marks)


def build(
    work: Work,
    settings: config.Media,
    catalog: Catalog,
    folder: Path,
    caption: Callable[[Image.Image], str] | None = None,
) -> Outcome:
    """Look at every item's files; write what was seen, and `quarantine.parquet` with what was refused.

    Where there is a `caption`, it is asked what is seen in each item's picture, its thumbnail or else a frame.
    """
    started = time.perf_counter()
    found = sources(catalog, folder)
    items = sorted(found)
    digests = {item: _digest(found[item]) for item in items}
    before = _before(work.out, settings)
    known = {} if before is None else dict(zip(before.digest, range(len(before.digest)), strict=True))
    new = [item for item in items if digests[item] not in known]
    shards = [new[i : i + SHARD] for i in range(0, len(new), SHARD)]
    rows: dict[int, dict[str, Any]] = {}
    with bar("look at media", len(new)) as advance:
        for number, shard in enumerate(shards):
            path = work.scratch / f"seen-{number:06d}.parquet"
            if not path.exists():
                buffer = io.BytesIO()
                pq.write_table(_look(shard, found, settings), buffer)
                write_atomic(path, buffer.getvalue())
            rows |= {row["item"]: row for row in pq.read_table(path).to_pylist()}
            advance(len(shard))
    outcome = _write(work.out, settings, named(catalog), digests, rows, before, known=known)
    looked = time.perf_counter()
    outcome.timings["look"] = looked - started
    if caption is not None:
        _caption(work, settings, found, caption)
        outcome.timings["caption"] = time.perf_counter() - looked
    return outcome


def _caption(
    work: Work, settings: config.Media, found: dict[int, tuple[str, str]], caption: Callable[[Image.Image], str]
) -> None:
    """Add what is said of each item to `files.parquet`. Captions are slow: each is kept as soon as it is there."""
    path, table = work.scratch / "captions.json", pq.read_table(work.out / "files.parquet")
    former = _former(work.out, settings, ("captioner", "captioner_url"))
    known = dict(zip(former[1].digest, former[1].captions, strict=False)) if former else {}
    known |= json.loads(path.read_text("utf-8")) if path.exists() else {}
    rows = table.select(["item", "digest", "media", "thumbnail"]).to_pylist()
    left = list({row["digest"]: row for row in rows if row["digest"] not in known}.values())
    with bar("captions", len(left)) as advance, Decoder() as decoder:
        for row in left:
            media, thumbnail = found[row["item"]]
            decoded = decoder.decode(thumbnail, 0) if row["thumbnail"] else decoder.decode(media, 1)
            known[row["digest"]] = "" if decoded.reason else caption(Image.fromarray(decoded.frames()[0]))
            write_atomic(path, json.dumps(known).encode())
            advance(1)
    said = pa.array([known[row["digest"]] for row in rows], pa.string())
    pq.write_table(table.append_column("caption", said), work.out / "files.parquet")


def _former(out: Path, settings: config.Media, names: Sequence[str]) -> tuple[Record, Media] | None:
    """The artifact that this one replaces, where it was made with the same settings of these `names`."""
    path = out.with_name(out.name.removesuffix(".part"))
    record = read_record(path) if path != out else None
    if record is None or any(record.settings.get(name) != getattr(settings, name) for name in names):
        return None
    return record, load(path)


def _digest(pair: tuple[str, str]) -> str:
    """Hash of the bytes of an item's files; a file that is no file, or empty, or too large, by its name."""
    parts: list[str] = []
    for name in pair:
        parts.append(name)
        if "://" not in name and 0 < _size(name) <= MAX_MEGABYTES << 20:
            with suppress(OSError):  # what cannot be read is refused by the decoder
                parts[-1] = hash_file(Path(name))
    return hash_json(parts)


def _before(out: Path, settings: config.Media) -> Media | None:
    """What the artifact that this one replaces has seen, where it looked in the same way."""
    former = _former(out, settings, ("model", "frames"))
    if former is None:
        return None
    record, seen = former
    same = record.settings.get("patches", PATCHES) == PATCHES
    same &= record.inputs.get("model") == known_models.identity(settings.model)
    return seen if same else None


def _look(shard: list[int], found: dict[int, tuple[str, str]], settings: config.Media) -> pa.Table:
    """What is seen of some items, one row each, by way of the dataframe engine."""
    daft = engine.daft()
    kinds = daft.DataType
    fields = {name: kinds.string() for name in ("media_reason", "thumbnail_reason")}
    fields |= {name: kinds.binary() for name in ("pictures", "there", "sound")}

    @daft.func.batch(return_dtype=kinds.struct(fields))
    def seen(media: Any, thumbnail: Any) -> list[dict[str, Any]]:
        pairs = list(zip(media.to_pylist(), thumbnail.to_pylist(), strict=True))
        # In a thread that ends, and its helpers with it. The engine's threads live on: theirs would outnumber the
        # cores, OpenMP would then sleep at every barrier, and fine-tuning later take twice as long.
        with ThreadPoolExecutor(1) as own:
            return own.submit(look, pairs, settings).result()

    pairs = [found[item] for item in shard]
    columns = {"item": shard, "media": [p[0] for p in pairs], "thumbnail": [p[1] for p in pairs]}
    frame = daft.from_pydict(columns)
    if daft.get_or_infer_runner_type() == "ray":  # there are machines to share the rows among
        frame = frame.into_partitions(8)
    table = frame.select("item", seen(daft.col("media"), daft.col("thumbnail")).alias("seen")).to_arrow()
    flat = table["seen"].combine_chunks().flatten()
    order = np.argsort(table["item"].to_numpy(), kind="stable")
    return pa.table([table["item"], *flat], names=["item", *fields]).take(order)


def look(pairs: list[tuple[str, str]], settings: config.Media) -> list[dict[str, Any]]:
    """See the files of some items: reasons, and as bytes `pictures` (float16), `there`, `sound` (float32).
    Files are decoded ahead while the pictures before them are encoded."""
    from byway.data import pictures  # torch takes seconds to import

    encode = pictures.encoder(settings.model, PATCHES)
    answers: list[dict[str, Any]] = []
    with Decoder() as decoder, ThreadPoolExecutor(1) as ahead:
        for answer, shown in ahead.map(lambda pair: _decode(decoder, pair, settings.frames), pairs):
            answers.append({**answer, "pictures": encode(np.concatenate(shown)).tobytes() if shown else b""})
    return answers


def _decode(decoder: Decoder, pair: tuple[str, str], frames: int) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """Reasons, `there` and `sound` of one item's files, and the pictures that they show."""
    answer: dict[str, Any] = {"media_reason": "", "thumbnail_reason": "", "sound": b""}
    shown: list[NDArray[np.uint8]] = []
    there = np.zeros(frames + 1, np.bool_)
    places = {"media": slice(0, frames), "thumbnail": slice(frames, None)}
    for (kind, place), name in zip(places.items(), pair, strict=True):
        if not name:
            continue
        wanted = frames if kind == "media" else 0
        decoded = Decoded("outside") if name == OUTSIDE else decoder.decode(name, wanted)
        answer[f"{kind}_reason"] = decoded.reason
        if decoded.reason:
            continue
        shown.append(decoded.frames())
        there[place] = True
        heard = sound.features(decoded.samples())
        if heard is not None:
            answer["sound"] = heard.tobytes()
    answer["there"] = there.tobytes()
    return answer, shown


def _write(
    out: Path,
    settings: config.Media,
    found: dict[int, tuple[str, str]],
    digests: dict[int, str],
    rows: dict[int, dict[str, Any]],
    before: Media | None,
    *,
    known: dict[str, int],
) -> Outcome:
    """Lay out what was seen, now and before, in the order of the catalog."""
    good = [item for item in sorted(found) if item not in rows or any(rows[item]["there"])]
    fields, size = PATCHES**2, settings.frames + 1
    width = next((len(r["pictures"]) // (2 * sum(r["there"]) * fields) for r in rows.values() if r["pictures"]), 0)
    # A run that could open nothing has seen pictures of no width.
    width = width or (before.pictures.shape[-1] if before is not None else 0)
    shape = (len(good), size, fields, width)
    seen = np.lib.format.open_memmap(out / "pictures.npy", "w+", np.float16, shape)
    there = np.zeros((len(good), size), np.bool_)
    sounds = np.full((len(good), sound.FEATURES), np.nan, np.float32)
    former = [] if before is None else pq.read_table(before.path / "files.parquet").to_pylist()
    refused = {item: (row["media_reason"], row["thumbnail_reason"]) for item, row in rows.items()}
    for r, item in enumerate(good):
        if before is not None and item not in rows:
            old = known[digests[item]]
            seen[r], there[r], sounds[r] = before.pictures[old], before.there[old], before.sounds[old]
            refused[item] = (former[old]["media_reason"], former[old]["thumbnail_reason"])
        else:
            row = rows[item]
            there[r] = np.frombuffer(row["there"], np.bool_)
            seen[r, there[r]] = np.frombuffer(row["pictures"], np.float16).reshape(-1, fields, width)
            if row["sound"]:
                sounds[r] = np.frombuffer(row["sound"], np.float32)
    seen.flush()
    np.save(out / "there.npy", there)
    np.save(out / "sounds.npy", sounds)
    files = {"item": pa.array(good, pa.int32()), "digest": [digests[item] for item in good]}
    for kind, name in enumerate(("media", "thumbnail")):
        files[name] = ["" if refused[item][kind] else found[item][kind] for item in good]
        files[f"{name}_reason"] = [refused[item][kind] for item in good]
    pq.write_table(pa.table(files), out / "files.parquet")
    reasons = [
        {"item": item, "kind": name, "file": file, "reason": reason}
        for item in sorted(refused)
        for name, file, reason in zip(("media", "thumbnail"), found[item], refused[item], strict=True)
        if reason
    ]
    pq.write_table(pa.Table.from_pylist(reasons, _REFUSED), out / "quarantine.parquet")
    counted = Counter(row["reason"] for row in reasons)
    metrics = {
        "media.items": len(good),
        "media.videos": int(there[:, 0].sum()),
        "media.thumbnails": int(there[:, -1].sum()),
        "media.sounds": int((~np.isnan(sounds[:, 0])).sum()),
        "media.quarantined": dict(sorted(counted.items())),
        "media.taken_over": sum(item not in rows for item in good),
    }
    return Outcome(counts={"items": len(good), "refused": len(reasons)}, metrics=metrics)


_REFUSED = pa.schema([("item", pa.int32()), ("kind", pa.string()), ("file", pa.string()), ("reason", pa.string())])


def picked(seen: Media, kind: str, frames: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Which pictures of each row stand for it: [m, k] places along axis 1, and whether they are there.

    `frames` takes so many of the stored frames, evenly; `thumbnail` the thumbnail. Where an item has not got the
    one kind, the other stands in, as often as is needed.
    """
    stored = seen.frames
    if frames > stored:
        raise ValueError(f"{frames} frames are wanted and {stored} are stored")
    even = np.array([int((i + 0.5) * stored / frames) for i in range(frames)])
    places = even if kind == "frames" else np.array([stored])
    other = np.full(len(places), stored) if kind == "frames" else even[len(even) // 2 :][:1]
    has = np.asarray(seen.there[:, places].all(axis=1))
    picks = np.where(has[:, None], places, other)
    return picks, np.take_along_axis(np.asarray(seen.there), picks, axis=1)


def vectors(seen: Media) -> NDArray[np.float32]:
    """[m, width] one vector an item: the mean over its pictures and their fields."""
    out = np.zeros((len(seen.item), seen.pictures.shape[-1]), np.float32)
    for r in range(len(out)):
        out[r] = seen.pictures[r][np.asarray(seen.there[r])].astype(np.float32).mean(axis=(0, 1))
    return out
