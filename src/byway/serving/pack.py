"""Stage 13: laying out a bundle from the artifacts, with requests and their answers to try it by.

What is laid out is read by `bundle`, and what is answered decided in `recommend`."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Outcome, Work, read_record
from byway.planner.planner import item_stats
from byway.planner.search import EXACT, means_of
from byway.serving.bundle import (
    MEANS,
    MODEL,
    STRINGS,
    TRIPLES,
    Bundle,
    Level,
    Manifest,
    Smoke,
    Strings,
    hash_of,
    load,
    open_policy,
)
from byway.serving.person import Seen
from byway.serving.recommend import recommend

if TYPE_CHECKING:
    from byway.data.catalog import Catalog
    from byway.data.events import Events
    from byway.interests.describe import Descriptions
    from byway.interests.tree import Tree
    from byway.items.sequence import ItemPolicy
    from byway.multimodal.plan import ContextTable
    from byway.planner.fit import FittedPlanner
    from byway.transitions.curate import Transitions
    from byway.transitions.table import Table


SMOKE = 32
"""Requests with their answers that a bundle carries, so that whoever takes it up can try it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the log says of each of n items."""

    traffic: NDArray[np.float32]
    """[n] events."""
    quality: NDArray[np.float32]
    """[n] mean satisfaction, drawn towards that of all events as by ten events of that satisfaction."""
    known: NDArray[np.int32]
    """[n] the item that the policy reads for it."""
    clock: bool

    @classmethod
    def of(cls, events: "Events", n: int) -> "Counted":
        """Of a log on all of whose items the policy was trained."""
        traffic, quality = item_stats(events.item, events.satisfaction, n)
        return cls(traffic, quality, np.arange(n, dtype=np.int32), events.clock)


def build(
    work: Work,
    settings: config.Bundle,
    *,
    catalog: "Catalog",
    counted: Counted,
    tree: "Tree",
    descriptions: "Descriptions",
    transitions: "Transitions",
    table: "Table",
    item_policy: "ItemPolicy",
    planned: "FittedPlanner",
    contexts: "ContextTable | None",
) -> Outcome:
    """Lay out everything in the tree's order."""
    level = transitions.level
    order, known = tree.order, counted.known
    created = catalog.items["created_at"].fill_null(np.iinfo(np.int64).max).to_numpy()
    arrays = {
        "vectors": item_policy.items[order],
        "policy_rows": known[order],
        "starts": tree.starts[level - 1],
        "traffic": counted.traffic[order],
        "quality": counted.quality[order],
        "created": created.astype(np.int64)[order],
        "table": np.asarray(table.clusters),
        "popularity": np.argsort(-transitions.popularity(), kind="stable").astype(np.int32),
    }
    # Both tables speak of one set of clusters: a context table of another level is not served beside this one.
    if contexts is not None and contexts.level == level:
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        # An item that came since is answered as the one most like it, where that is of its own cluster.
        cluster_of = tree.assign(level)
        via = np.where(cluster_of[known] == cluster_of, contexts.via[known], -1)
        arrays |= {
            "context_clusters": np.asarray(contexts.clusters),
            "context_via": via[order],
            "context_items": place[contexts.item],
        }
    leaf = np.repeat(np.arange(len(tree.starts[-1]) - 1, dtype=np.int32), np.diff(tree.starts[-1]))
    spoken, content = known[order], np.asarray(planned.content)
    by_item = len(content) != planned.leaves.n or len(content) == len(order)
    arrays |= {"leaf": leaf, "content": content[spoken] if by_item else content, "unit": planned.unit[spoken]}
    for name, solved in (("leaves", planned.leaves), ("items", planned.items)):
        arrays |= {f"{name}_to": np.asarray(solved.to), f"{name}_weight": np.asarray(solved.weight)}
    (work.out / "planner.json").write_bytes(msgspec.json.encode(planned.fitted))
    if planned.fitted.weights.get("language_model"):
        arrays[MODEL[0]] = np.asarray(table.model)
        if table.model_triples is not None:
            arrays[MODEL[1]] = np.asarray(table.model_triples.clusters)
    if table.triples is not None:
        arrays |= dict(zip(TRIPLES, map(np.asarray, (table.triples.keys, table.triples.clusters)), strict=True))
    length = open_policy(item_policy.model).get_inputs()[0].shape[1]
    history = length if isinstance(length, int) else _trained_on(item_policy.model)
    manifest = Manifest(level, descriptions.names[level - 1], history, counted.clock, asdict(settings))
    levels = [Level(n, s.tolist()) for n, s in zip(descriptions.names, tree.starts, strict=True)]
    thumbnails = [text or "" for text in catalog.items["thumbnail"].to_pylist()]
    texts = {"ids": catalog.ids(), "titles": catalog.titles(), "thumbnails": thumbnails}
    by_position = {name: [some[i] for i in order] for name, some in texts.items()}
    write(work.out, by_position, arrays, manifest, levels, item_policy.model, rng=work.rng)
    return Outcome(counts={"items": len(catalog), "clusters": tree.size(level)})


def write(
    out: Path,
    texts: dict[str, list[str]],
    arrays: dict[str, NDArray[Any]],
    manifest: Manifest,
    levels: list[Level],
    model: Path,
    *,
    rng: np.random.Generator,
) -> None:
    """Write the files of a bundle. `texts` are those of STRINGS and `arrays` those of ARRAYS without the index of
    ids, which is made here; all by position."""
    for name in STRINGS:
        packed = Strings.of(texts[name])
        np.save(out / f"{name}.npy", packed.data)
        np.save(out / f"{name}_offsets.npy", packed.offsets)
    hashes = np.array([hash_of(item) for item in texts["ids"]], dtype=np.uint64)
    by_hash = np.argsort(hashes, kind="stable")
    index = {"id_hashes": hashes[by_hash], "id_positions": by_hash.astype(np.int32)}
    for name, array in (arrays | index).items():
        np.save(out / f"{name}.npy", np.ascontiguousarray(array))
    shutil.copyfile(model, out / "policy.onnx")
    _write(out / "manifest.json", manifest)
    _write(out / "levels.json", levels)
    planner = load(out).planner
    if planner is not None and len(planner.leaf) > EXACT:
        means = means_of(planner)
        for name, array in zip(MEANS, (means.mean, means.variance), strict=True):
            np.save(out / f"{name}.npy", array)
    _write(out / "smoke.json", _smoke(load(out), rng))


def _write(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value)))


def _trained_on(model: Path) -> int:
    """Items of a history on which the item policy was trained, by the record beside its file; 50 without one."""
    record = read_record(model.parent)
    return int(record.settings["history"]) if record and record.settings.get("history") else 50


def _smoke(bundle: Bundle, rng: np.random.Generator) -> list[Smoke]:
    """Some histories with no, one and more items, and what they are answered."""
    found: list[Smoke] = []
    for seed in range(SMOKE):
        history = [bundle.ids[int(p)] for p in rng.integers(len(bundle.ids), size=seed % 5)]
        answer = recommend(bundle, [Seen(item) for item in history], np.random.default_rng(seed))
        found.append(Smoke(history, seed, answer.strategy, answer.cluster, [shown.item for shown in answer.items]))
    return found
