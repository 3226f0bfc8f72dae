"""01-media: what there is to see and hear of each item, as vectors, within bounds of time and memory a file.

Owns the artifact: which items have a video or a thumbnail that could be opened, what was seen in them, and the
files that were refused, each with its reason. Opening is `decoding`, seeing `pictures`, hearing `sound`. It does
not know events or clusters. Rows go through the dataframe engine, so that a cluster can share the work; what a
former run has seen of the same bytes is taken over.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from byway.base import config, engine, known_models
from byway.base.artifact import Outcome, Record, Work, read_record, write_atomic
from byway.base.progress import bar
from byway.data import mediafiles, sound
from byway.data.catalog import Catalog
from byway.data.decoding import Decoded, Decoder

SHARD = 256
"""Items between two checkpoints: what is decoded ahead of the encoder stays under 350 MB, with eight frames."""
PATCHES = 2
"""A picture is kept as this many times this many vectors: where something is, at a quarter of the picture."""


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
        return {item: mediafiles.resolved(self.folder, (media, thumbnail)) for item, media, thumbnail in rows}


def variety(seen: Media, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """[m] of rows of `seen`, how much there is to see: the variance of the pictures' features over all places of
    all frames that there are, mean over features. 0 for row -1, which was not seen."""
    spread = np.zeros(len(rows))
    for at, row in enumerate(rows.tolist()):
        if row >= 0 and seen.there[row].any():
            features = np.asarray(seen.pictures[row][seen.there[row]], np.float32)
            spread[at] = features.reshape(-1, features.shape[-1]).var(axis=0).mean()
    return spread


def noise(seen: Media, rng: np.random.Generator) -> Media:
    """The same items with noise for pictures, of each feature's own mean and deviation: a control."""
    pictures = np.asarray(seen.pictures, np.float32)
    known = pictures[seen.there]
    shown = rng.normal(known.mean((0, 1)), known.std((0, 1)), pictures.shape).astype(np.float16)
    return replace(seen, pictures=shown)


def load(path: Path) -> Media:
    """Read 01-media, its arrays memory-mapped."""
    table = pq.read_table(path / "files.parquet")
    arrays = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("pictures", "there", "sounds"))
    captions = tuple(table["caption"].to_pylist()) if "caption" in table.column_names else ()
    return Media(
        table["item"].to_numpy(), *arrays, digest=table["digest"].to_pylist(), path=path, captions=captions
    )


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
    paths = mediafiles.paths(catalog, folder)
    items = sorted(paths)
    digests = {item: mediafiles.digest(paths[item]) for item in items}
    before = _before(work.out, settings)
    known = {} if before is None else {digest: row for row, digest in enumerate(before.digest)}
    taken_over = {item: known[digests[item]] for item in items if digests[item] in known}
    new = [item for item in items if item not in taken_over]
    shards = [new[i : i + SHARD] for i in range(0, len(new), SHARD)]
    rows: dict[int, dict[str, Any]] = {}
    with bar("look at media", len(new)) as advance:
        for number, shard in enumerate(shards):
            file = work.scratch / f"seen-{number:06d}.parquet"
            if not file.exists():
                buffer = io.BytesIO()
                pq.write_table(_look(shard, paths, settings), buffer)
                write_atomic(file, buffer.getvalue())
            rows |= {row["item"]: row for row in pq.read_table(file).to_pylist()}
            advance(len(shard))
    outcome = _write(work.out, settings, mediafiles.named(catalog), digests, rows, before, taken_over=taken_over)
    looked = time.perf_counter()
    outcome.timings["look"] = looked - started
    if caption is not None:
        _caption(work, settings, paths, caption)
        outcome.timings["caption"] = time.perf_counter() - looked
    return outcome


def _caption(
    work: Work, settings: config.Media, paths: dict[int, tuple[str, str]], caption: Callable[[Image.Image], str]
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
            media, thumbnail = paths[row["item"]]
            decoded = decoder.decode(thumbnail, 0) if row["thumbnail"] else decoder.decode(media, 1)
            known[row["digest"]] = "" if decoded.reason else caption(Image.fromarray(decoded.frames()[0]))
            write_atomic(path, json.dumps(known).encode())
            advance(1)
    captions = pa.array([known[row["digest"]] for row in rows], pa.string())
    pq.write_table(table.append_column("caption", captions), work.out / "files.parquet")


def _former(out: Path, settings: config.Media, names: Sequence[str]) -> tuple[Record, Media] | None:
    """The artifact that this one replaces, where it was made with the same settings of these `names`."""
    path = out.with_name(out.name.removesuffix(".part"))
    record = read_record(path) if path != out else None
    if record is None or any(record.settings.get(name) != getattr(settings, name) for name in names):
        return None
    return record, load(path)


def _before(out: Path, settings: config.Media) -> Media | None:
    """What the artifact that this one replaces has seen, where it looked in the same way."""
    former = _former(out, settings, ("model", "frames"))
    if former is None:
        return None
    record, seen = former
    same = record.settings.get("patches", PATCHES) == PATCHES
    same &= record.inputs.get("model") == known_models.identity(settings.model)
    return seen if same else None


def _look(shard: list[int], paths: dict[int, tuple[str, str]], settings: config.Media) -> pa.Table:
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
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(look, pairs, settings).result()

    pairs = [paths[item] for item in shard]
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
        decoded = Decoded("outside") if name == mediafiles.OUTSIDE else decoder.decode(name, wanted)
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
    names: dict[int, tuple[str, str]],
    digests: dict[int, str],
    rows: dict[int, dict[str, Any]],
    before: Media | None,
    *,
    taken_over: dict[int, int],
) -> Outcome:
    """Lay out what was seen, now (`rows`) and before, in the order of the catalog.

    `names` are the files of each item as the catalog has them, `taken_over` items by their row in `before`.
    """
    good = [item for item in sorted(names) if item in taken_over or any(rows[item]["there"])]
    there, sounds = _write_arrays(out, settings, good, rows, before, taken_over)
    refused = {item: (row["media_reason"], row["thumbnail_reason"]) for item, row in rows.items()}
    if before is not None:
        former = pq.read_table(before.path / "files.parquet").to_pylist()
        for item, row in taken_over.items():
            refused[item] = (former[row]["media_reason"], former[row]["thumbnail_reason"])
    files = {"item": pa.array(good, pa.int32()), "digest": [digests[item] for item in good]}
    for kind, name in enumerate(("media", "thumbnail")):
        files[name] = ["" if refused[item][kind] else names[item][kind] for item in good]
        files[f"{name}_reason"] = [refused[item][kind] for item in good]
    pq.write_table(pa.table(files), out / "files.parquet")
    reasons = [
        {"item": item, "kind": kind, "file": file, "reason": reason}
        for item in sorted(refused)
        for kind, file, reason in zip(("media", "thumbnail"), names[item], refused[item], strict=True)
        if reason
    ]
    pq.write_table(pa.Table.from_pylist(reasons, _REFUSED), out / "quarantine.parquet")
    metrics = {
        "media.items": len(good),
        "media.videos": int(there[:, 0].sum()),
        "media.thumbnails": int(there[:, -1].sum()),
        "media.sounds": int((~np.isnan(sounds[:, 0])).sum()),
        "media.quarantined": dict(sorted(Counter(row["reason"] for row in reasons).items())),
        "media.taken_over": len(taken_over),
    }
    return Outcome(counts={"items": len(good), "refused": len(reasons)}, metrics=metrics)


def _write_arrays(
    out: Path,
    settings: config.Media,
    good: list[int],
    rows: dict[int, dict[str, Any]],
    before: Media | None,
    taken_over: dict[int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Write `pictures.npy`, `there.npy` and `sounds.npy` of the `good` items; the last two, as `Media` has them."""
    size = settings.frames + 1
    of_a_picture = (len(row["pictures"]) // sum(row["there"]) for row in rows.values() if row["pictures"])
    # In float16. A run that could open nothing has seen pictures of no width.
    width = next(of_a_picture, 0) // (2 * PATCHES**2) or (before.pictures.shape[-1] if before is not None else 0)
    shape = (len(good), size, PATCHES**2, width)
    pictures = np.lib.format.open_memmap(out / "pictures.npy", "w+", np.float16, shape)
    there = np.zeros((len(good), size), np.bool_)
    sounds = np.full((len(good), sound.FEATURES), np.nan, np.float32)
    for r, item in enumerate(good):
        if before is not None and (old := taken_over.get(item)) is not None:
            pictures[r], there[r], sounds[r] = before.pictures[old], before.there[old], before.sounds[old]
            continue
        row = rows[item]
        there[r] = np.frombuffer(row["there"], np.bool_)
        pictures[r, there[r]] = np.frombuffer(row["pictures"], np.float16).reshape(-1, PATCHES**2, width)
        if row["sound"]:
            sounds[r] = np.frombuffer(row["sound"], np.float32)
    pictures.flush()
    np.save(out / "there.npy", there)
    np.save(out / "sounds.npy", sounds)
    return there, sounds


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
