"""13-bundle: all that answers a request, in arrays that are mapped into memory, and nothing else.

Items stand in the tree's order, so that a cluster is one slice of every array. This module reads and writes; what
to answer is decided in `recommend`.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from byway.base import config
from byway.items.ease import SparseMatrix
from byway.planner.planner import Planner, PlannerWeights
from byway.planner.search import leaf_means
from byway.transitions.triples import Triples, look_up

ARRAYS = (
    "vectors", "policy_rows", "starts", "traffic", "quality", "created", "table", "popularity", "id_hashes",
    "id_positions",
)  # fmt: skip
STRINGS = ("ids", "titles", "thumbnails")
HOUR = 3_600_000_000
"""Microseconds."""
_TOGETHER = 64
"""Histories that the item policy reads at once: with 256 the attention leaves the cache."""
CONTEXTS = ("context_clusters", "context_via", "context_items")
"""Arrays that are there where items were looked at (paper 2)."""
TRIPLES = ("triple_keys", "triple_clusters")
"""Arrays that are there where three interests are planned from."""
MODEL = ("model", "triple_model")
"""Arrays that are there where the planner reads the language model's own rankings; the second beside TRIPLES."""
MEANS = ("leaf_mean", "leaf_variance")
"""What the items of each leaf are like (`LeafMeans`), where there are so many that leaves are searched first."""
PLANNER = ("leaf", "content", "unit", "leaves_to", "leaves_weight")
"""Arrays that are there where the planner is; with `items_to` and `items_weight` where it has EASE over items."""


@dataclass(frozen=True, slots=True)
class Strings:
    """Many strings in one buffer: entry i is `data[offsets[i]:offsets[i + 1]]` in UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return str(self.data[self.offsets.item(i) : self.offsets.item(i + 1)].data, "utf-8")

    @classmethod
    def of(cls, texts: list[str]) -> "Strings":
        """Pack `texts`."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


class Level(msgspec.Struct, frozen=True):
    """One level of the tree, for the pages: cluster c holds positions starts[c] to starts[c + 1]."""

    names: list[str]
    starts: list[int]


class Smoke(msgspec.Struct, frozen=True):
    """A request and the answer that this bundle gave when it was built."""

    history: list[str]
    seed: int
    strategy: str
    cluster: str | None
    items: list[str]


@dataclass(frozen=True, slots=True)
class Eligible:
    """What may be shown at all at some time."""

    mask: NDArray[np.bool_] | None
    """[n] by position; None where everything may."""
    counts: NDArray[np.int64]
    """[M] how many items a cluster has."""


class Manifest(msgspec.Struct, frozen=True):
    """What the arrays do not say."""

    level: int
    names: list[str]
    """Descriptions of the clusters."""
    history: int
    """Items that the item policy reads."""
    clock: bool
    """Whether the log had a clock, so that days mean something."""
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, opened. `position` is a place in the tree's order, `cluster` one of M at the planning level."""

    manifest: Manifest
    settings: config.Bundle
    ids: Strings
    titles: Strings
    thumbnails: Strings
    """Addresses or paths of pictures; empty where there is none."""
    vectors: NDArray[np.float32]
    """[n, d] item vectors by position."""
    policy_rows: NDArray[np.int32]
    """[n] row of the catalog that the item policy reads for a position: its own, and for an item that came after
    the policy was trained (`byway refresh`) that of the most similar one it knows."""
    starts: NDArray[np.int64]
    """[M + 1] cluster c holds positions starts[c] to starts[c + 1]."""
    traffic: NDArray[np.float32]
    """[n] events an item, by position."""
    quality: NDArray[np.float32]
    """[n] mean satisfaction, drawn towards that of all events as by ten events of that satisfaction."""
    created: NDArray[np.int64]
    """[n] microseconds since 1970; the largest int64 where it is not known, so that such an item is never old."""
    table: NDArray[np.int32]
    """[M, M, n] next novel clusters of each ordered pair, best first; -1 where none is left."""
    popularity: NDArray[np.int32]
    """[M] clusters by how often people turned to them, most often first."""
    id_hashes: NDArray[np.uint64]
    id_positions: NDArray[np.int32]
    session: onnxruntime.InferenceSession
    any_length: bool = False
    """Whether the item policy reads histories of any length, and not of `manifest.history` alone."""
    any_batch: bool = False
    """Whether it reads any number of histories at once, and not one alone."""
    context_clusters: NDArray[np.int32] | None = None
    """[N, n] serendipitous clusters of each covered item, best first; -1 where none is left."""
    context_via: NDArray[np.int32] | None = None
    """[n] row of `context_clusters` that answers for a position, or -1."""
    context_items: NDArray[np.int32] | None = None
    """[N] position of each covered item."""
    triples: Triples | None = None
    """Rankings of the triples that people have, where three interests are planned from."""
    model: NDArray[np.int32] | None = None
    """[M, M, m] the language model's own rankings, where the planner listens to them."""
    model_triples: Triples | None = None
    planner: Planner | None = None
    """Scores all items for a person, by position; None in a bundle that answers by pairs alone."""
    corpus: NDArray[np.bool_] | None = None
    """[n] what may be shown at all, where an experiment deals the items too (`arms`); None where everything may."""
    eligible_at: dict[int, Eligible] = field(default_factory=dict, compare=False, repr=False)
    """What may be shown, by hour; only the latest is kept."""
    bounds: list[int] = field(default_factory=list, compare=False, repr=False)
    """`starts` as a list: searching it takes a tenth of the time for a single position."""

    @property
    def interests(self) -> int:
        """K: how many of somebody's interests are drawn and looked up together (`transitions.history`)."""
        return 2 if self.triples is None else 3

    def position(self, item: str) -> int | None:
        """Position of the item with this id, or None where the catalog does not know it."""
        return self.positions([item])[0]

    def positions(self, items: Sequence[str]) -> list[int | None]:
        """Position of each of some items, or None where the catalog does not know it."""
        if not items:
            return []
        # As uint64: beside plain ints numpy would compare in float64, which is inexact and copies the array.
        wanted = np.array([hash_of(item) for item in items], dtype=np.uint64)
        first = np.searchsorted(self.id_hashes, wanted)
        return [self._of_hash(*asked) for asked in zip(items, wanted, first.tolist(), strict=True)]

    def _of_hash(self, item: str, wanted: np.uint64, i: int) -> int | None:
        while i < len(self.id_hashes) and self.id_hashes[i] == wanted:
            position = int(self.id_positions[i])
            if self.ids[position] == item:
                return position
            i += 1
        return None

    def cluster(self, position: int) -> int:
        """The cluster in which a position lies."""
        if not self.bounds:
            self.bounds.extend(self.starts.tolist())
        return bisect_right(self.bounds, position) - 1

    def span(self, cluster: int) -> tuple[int, int]:
        """The position of a cluster's first item, and that after its last one."""
        return int(self.starts[cluster]), int(self.starts[cluster + 1])

    def clusters(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cluster of each of many positions."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def ranking(self, context_NK: NDArray[np.integer]) -> NDArray[np.int32]:
        """[N, n] the next novel clusters after pairs or triples of interests, best first; -1 where none is left."""
        return look_up(self.table, self.triples, context_NK)

    def model_ranking(self, context_NK: NDArray[np.integer]) -> NDArray[np.int32]:
        """[N, m] the same by the language model alone. Only where the planner listens to it."""
        assert self.model is not None
        return look_up(self.model, self.model_triples, context_NK)

    def eligible(self, now: int | None) -> Eligible:
        """Items that are good and new enough (`bundle.min_quality`, `bundle.max_age_days`), to the hour."""
        settings = self.settings
        aged = settings.max_age_days > 0 and now is not None
        hour = now // HOUR if aged and now is not None else -1
        found = self.eligible_at.get(hour)
        if found is None:
            found = Eligible(None, np.diff(self.starts))
            if aged or settings.min_quality > 0 or self.corpus is not None:
                mask = self.quality >= np.float32(settings.min_quality)
                if aged:
                    mask &= self.created >= hour * HOUR - settings.max_age_days * 24 * HOUR
                if self.corpus is not None:
                    mask &= self.corpus
                inside = np.concatenate([[0], np.cumsum(mask)])
                found = Eligible(mask, np.diff(inside[self.starts]))
            self.eligible_at.clear()
            self.eligible_at[hour] = found
        return found

    def encode(self, positions: list[int]) -> NDArray[np.float32]:
        """The item policy's vector [d] for a history of positions, the most recent last.

        A file whose length is free reads as many items as there are; for one of a fixed length they are padded.
        """
        return self._policy([positions[-self.manifest.history :]])[0]

    def encode_many(self, histories: Sequence[list[int]]) -> NDArray[np.float32]:
        """[N, d] what `encode` makes of each of N histories, up to the rounding of float32: none was seen with the
        transformer that Byway exports, on AVX-512.

        Those of one length are read together, so that none is padded for another's sake: with batches of 64 a
        history of 50 items takes 0.33 ms where one at a time takes 0.78, and one of five 0.02 for 0.14.
        """
        recent = [positions[-self.manifest.history :] for positions in histories]
        together = _TOGETHER if self.any_batch else 1
        found = np.empty((len(recent), self.vectors.shape[1]), dtype=np.float32)
        length = [max(len(each), 1) if self.any_length else self.manifest.history for each in recent]
        order = np.argsort(length, kind="stable").tolist()
        for _, same in groupby(order, key=length.__getitem__):
            left = list(same)
            for some in (left[start : start + together] for start in range(0, len(left), together)):
                found[some] = self._policy([recent[i] for i in some])
        return found

    def _policy(self, recent: list[list[int]]) -> NDArray[np.float32]:
        """The item policy's vectors for histories of one length, or, where the file has a fixed one, of any."""
        length = max(len(recent[0]), 1) if self.any_length else self.manifest.history
        history = np.zeros((len(recent), length), dtype=np.int64)
        for row, each in zip(history, recent, strict=True):
            if each:
                row[-len(each) :] = self.policy_rows[each] + 1
        (vectors,) = self.session.run(["vector"], {"history": history})
        return np.asarray(vectors, dtype=np.float32)


def load(path: Path) -> Bundle:
    """Open a bundle; arrays are mapped, not read."""
    manifest = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
    fields: dict[str, Any] = {
        name: Strings(*(_mapped(path / f"{name}{end}.npy") for end in ("", "_offsets"))) for name in STRINGS
    }
    fields |= {name: _mapped(path / f"{name}.npy") for name in ARRAYS} | _there(path, CONTEXTS)
    triples, model = list(_there(path, TRIPLES).values()), list(_there(path, MODEL).values())
    session = open_policy(path / "policy.onnx")
    many, length = (not isinstance(n, int) for n in session.get_inputs()[0].shape)
    return Bundle(
        manifest=manifest,
        settings=msgspec.convert(manifest.settings, config.Bundle),
        **fields,
        triples=Triples(*triples) if len(triples) == len(TRIPLES) else None,
        model=model[0] if model else None,
        model_triples=Triples(triples[0], model[1]) if len(model) == len(MODEL) else None,
        planner=_planner(path, fields),
        session=session,
        any_length=length,
        any_batch=many,
    )


def _planner(path: Path, fields: dict[str, Any]) -> Planner | None:
    """The planner over the bundle's positions."""
    if not (path / "planner.json").exists():
        return None
    items = list(_there(path, ("items_to", "items_weight")).values())
    leaf, content, unit, *leaves = (_mapped(path / f"{name}.npy") for name in PLANNER)
    starts, n = fields["starts"], len(fields["policy_rows"])
    planner = Planner(
        fitted=msgspec.json.decode((path / "planner.json").read_bytes(), type=PlannerWeights),
        unit=unit,
        items=SparseMatrix(*items) if items else None,
        leaf=leaf,
        leaves=SparseMatrix(*leaves),
        cluster=np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))[:n],
        vectors=fields["vectors"],
        content=content,
        popularity=np.log1p(fields["traffic"]),
        quality=fields["quality"],
    )
    kept = list(_there(path, MEANS).values())
    if len(kept) == len(MEANS):
        planner.cached_means.append(leaf_means(planner, *kept))
    return planner


def load_levels(path: Path) -> list[Level]:
    """The levels of the tree, broadest first."""
    return msgspec.json.decode((path / "levels.json").read_bytes(), type=list[Level])


def load_smoke(path: Path) -> list[Smoke]:
    """The requests that the bundle carries, with their answers."""
    return msgspec.json.decode((path / "smoke.json").read_bytes(), type=list[Smoke])


def _there(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of some arrays that the bundle has."""
    return {name: _mapped(file) for name in names if (file := path / f"{name}.npy").exists()}


def _mapped(path: Path) -> NDArray[Any]:
    """An array mapped into memory; an empty one cannot be mapped, so it is read.

    As a plain array over the map: slicing numpy's own class for it takes 5 microseconds more, 200 times a request.
    """
    return np.asarray(np.load(path, mmap_mode="r")) if path.stat().st_size > 128 else np.load(path)


def open_policy(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def hash_of(item: str) -> int:
    """64-bit hash of an item's id; of anything that a command line or a request can bring."""
    data = item.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
