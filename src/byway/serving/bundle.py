"""13-bundle: all that answers a request, in arrays that are mapped into memory, and nothing else.

Items stand in the tree's order, so that a cluster is one slice of every array. This module reads and writes; what
to answer is decided in `recommend`.
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from byway import config
from byway.artifact import Outcome, Work
from byway.errors import UserError

if TYPE_CHECKING:
    from byway.data.catalog import Catalog
    from byway.data.events import Events
    from byway.interests.describe import Descriptions
    from byway.interests.tree import Tree
    from byway.language.curate import Transitions
    from byway.language.plan import Table
    from byway.policy.sequence import ItemPolicy
    from byway.video.plan import ContextTable

ARRAYS = ("vectors", "rows", "starts", "traffic", "table", "popularity", "id_hashes", "id_positions")
CONTEXTS = ("context_clusters", "context_via", "context_items")
"""Arrays that are there where items were looked at (paper 2)."""


@dataclass(frozen=True, slots=True)
class Strings:
    """Many strings in one buffer: entry i is `data[offsets[i]:offsets[i + 1]]` in UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes().decode()

    @classmethod
    def of(cls, texts: list[str]) -> "Strings":
        """Pack `texts`."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


class Manifest(msgspec.Struct, frozen=True):
    """What the arrays do not say."""

    level: int
    names: list[str]
    """Descriptions of the clusters."""
    history: int
    """Items that the item policy reads."""
    clock: bool
    """Whether the log had a clock, so that days mean something."""
    knobs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, opened. `position` is a place in the tree's order, `cluster` one of M at the planning level."""

    manifest: Manifest
    knobs: config.Bundle
    ids: Strings
    titles: Strings
    vectors: NDArray[np.float32]
    """[n, d] item vectors by position."""
    rows: NDArray[np.int32]
    """[n] row of the catalog, which is what the item policy reads, by position."""
    starts: NDArray[np.int64]
    """[M + 1] cluster c holds positions starts[c] to starts[c + 1]."""
    traffic: NDArray[np.float32]
    """[n] events an item, by position."""
    table: NDArray[np.int32]
    """[M, M, n] next novel clusters of each ordered pair, best first; -1 where none is left."""
    popularity: NDArray[np.int32]
    """[M] clusters by how often people turned to them, most often first."""
    id_hashes: NDArray[np.uint64]
    id_positions: NDArray[np.int32]
    session: onnxruntime.InferenceSession
    context_clusters: NDArray[np.int32] | None = None
    """[N, n] serendipitous clusters of each covered item, best first; -1 where none is left."""
    context_via: NDArray[np.int32] | None = None
    """[n] row of `context_clusters` that answers for a position, or -1."""
    context_items: NDArray[np.int32] | None = None
    """[N] position of each covered item."""

    def position(self, item: str) -> int | None:
        """Position of the item with this id, or None where the catalog does not know it."""
        # As uint64: beside a plain int numpy would compare in float64, which is inexact and copies the array.
        wanted = np.uint64(_hash(item))
        i = int(np.searchsorted(self.id_hashes, wanted))
        while i < len(self.id_hashes) and self.id_hashes[i] == wanted:
            position = int(self.id_positions[i])
            if self.ids[position] == item:
                return position
            i += 1
        return None

    def cluster(self, position: int) -> int:
        """The cluster in which a position lies."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1

    def encode(self, positions: list[int]) -> NDArray[np.float32]:
        """The item policy's vector [d] for a history of positions, the most recent last."""
        history = np.zeros((1, self.manifest.history), dtype=np.int64)
        recent = positions[-self.manifest.history :]
        if recent:
            history[0, -len(recent) :] = self.rows[recent] + 1
        (vectors,) = self.session.run(["vector"], {"history": history})
        return np.asarray(vectors, dtype=np.float32)[0]


def build(
    work: Work,
    knobs: config.Bundle,
    catalog: "Catalog",
    events: "Events",
    tree: "Tree",
    descriptions: "Descriptions",
    transitions: "Transitions",
    table: "Table",
    item_policy: "ItemPolicy",
    contexts: "ContextTable | None" = None,
) -> Outcome:
    """Lay out everything in the tree's order."""
    if knobs.interests not in (1, 2):
        raise UserError("The table answers pairs: set bundle.interests to 1 or 2.")
    level = transitions.level
    order = tree.order
    ids, titles = catalog.ids(), catalog.titles()
    for name, texts in (("ids", ids), ("titles", titles)):
        packed = Strings.of([texts[i] for i in order])
        np.save(work.out / f"{name}.npy", packed.data)
        np.save(work.out / f"{name}_offsets.npy", packed.offsets)
    hashes = np.array([_hash(ids[i]) for i in order], dtype=np.uint64)
    by_hash = np.argsort(hashes, kind="stable")
    traffic = np.bincount(events.item, minlength=len(catalog)).astype(np.float32)
    arrays = {
        "vectors": item_policy.items[order],
        "rows": order.astype(np.int32),
        "starts": tree.starts[level - 1],
        "traffic": traffic[order],
        "table": np.asarray(table.clusters),
        "popularity": np.argsort(-transitions.popularity(), kind="stable").astype(np.int32),
        "id_hashes": hashes[by_hash],
        "id_positions": by_hash.astype(np.int32),
    }
    # Both tables speak of one set of clusters: a context table of another level cannot be served beside this one.
    if contexts is not None and contexts.level != level:
        raise UserError(
            f"pairs.level is {contexts.level} and transitions.level {level}: a bundle serves one level."
        )
    if contexts is not None:
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        arrays |= {
            "context_clusters": np.asarray(contexts.clusters),
            "context_via": np.asarray(contexts.via)[order],
            "context_items": place[contexts.item],
        }
    for name in arrays:
        np.save(work.out / f"{name}.npy", np.ascontiguousarray(arrays[name]))
    shutil.copyfile(item_policy.model, work.out / "policy.onnx")
    length = _session(item_policy.model).get_inputs()[0].shape[1]
    history = length if isinstance(length, int) else knobs.history
    manifest = Manifest(level, descriptions.names[level - 1], history, events.clock, asdict(knobs))
    (work.out / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return Outcome(counts={"items": len(catalog), "clusters": tree.size(level)})


def load(path: Path) -> Bundle:
    """Open a bundle; arrays are mapped, not read."""
    manifest = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
    strings = {
        name: Strings(*(np.load(path / f"{name}{end}.npy", mmap_mode="r") for end in ("", "_offsets")))
        for name in ("ids", "titles")
    }
    return Bundle(
        manifest=manifest,
        knobs=msgspec.convert(manifest.knobs, config.Bundle),
        **strings,
        **{name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS},
        session=_session(path / "policy.onnx"),
        **{n: np.load(file, mmap_mode="r") for n in CONTEXTS if (file := path / f"{n}.npy").exists()},
    )


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _hash(item: str) -> int:
    """64-bit hash of an item's id; of anything that a command line or a request can bring."""
    data = item.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
