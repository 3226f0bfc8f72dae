"""A bundle is tried before it is served: crafted files, models that never end, and people who are given nothing."""

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from byway.base import artifact, config
from byway.base.artifact import Outcome, Record
from byway.base.errors import UserError
from byway.multimodal.plan import ContextTable
from byway.serving import bundle, publish, shapes, stores, trial
from byway.serving.history import Event
from byway.serving.person import Seen
from tests.serving import house
from tests.serving.planted import N, Planted, planned_of

Craft = Callable[[Path], object]


def crafted(workspace: Path, craft: Craft, **settings: object) -> tuple[str, float]:
    """Why a bundle stays out whose files were made like this and recorded as if a run had made them; seconds."""
    records = house.build(workspace, **settings)
    path = workspace / "13-bundle"
    with artifact.part(path, "bundle", {}, {"transition_table": "t"}) as work:
        shutil.copytree(path, work.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifact.RECORD))
        craft(work.out)
    outcome = Outcome(timings={"seconds": 1.0})
    records["bundle"] = artifact.commit(path, "bundle", {}, {"transition_table": "t"}, outcome)
    return refused(workspace, records)


def refused(workspace: Path, records: dict[str, Record]) -> tuple[str, float]:
    began = time.monotonic()
    with pytest.raises(UserError, match="The bundle stays out: ") as error:
        publish.publish(workspace, workspace / "13-bundle", config.Serving(), records)
    assert publish.current(workspace) is None
    assert not [path for path in (workspace / "published").glob("*") if path.is_dir()]
    return str(error.value), time.monotonic() - began


def written(name: str, text: str) -> Craft:
    return lambda folder: (folder / name).write_text(text, "utf-8")


def endless(folder: Path) -> None:
    """A policy that loops for as long as a machine stands."""
    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("go", "went"), ("x", "y"))],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("went", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    often = helper.make_tensor("often", TensorProto.INT64, [], [2**62])
    always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
    start = helper.make_tensor("start", TensorProto.FLOAT, [1, house.DIM], [0.0] * house.DIM)
    nodes = [helper.make_node("Loop", ["often", "always", "start"], ["vector"], body=body)]
    saved(folder, nodes, [often, always, start])


def hungry(folder: Path) -> None:
    """A policy that fills 128 GB."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [2**35])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["much"], value=one),
        helper.make_node("ReduceSum", ["much"], ["vector"], keepdims=0),
    ]
    saved(folder, nodes, [size])


def saved(folder: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> None:
    history = helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "crafted", [history], [vector], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "policy.onnx").write_bytes(model.SerializeToString())


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Craft:
    return lambda folder: np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))


CRAFTED: dict[str, Craft] = {
    "levels.json has no planning level": written("levels.json", "[]"),
    "it cannot be opened \\(": written("levels.json", "<html>"),
    "level 1 of levels.json does not fill": written(
        "levels.json", '[{"names": ["a"], "starts": [0, 7]}, {"names": ["b"], "starts": [0, 240]}]'
    ),
    "is another than the manifest's": written(
        "levels.json", '[{"names": ["a"], "starts": [0, 240]}, {"names": ["b"], "starts": [0, 240]}]'
    ),
    "vectors is no array of its kind": array("vectors", lambda a: a.astype("S3")),
    "starts is no array of its kind": array("starts", lambda a: a.astype(np.float64)),
    "titles are no texts": array("titles_offsets", lambda a: a[::-1].copy()),
    "thumbnails are no texts": array("thumbnails", lambda _: np.array([255], np.uint8)),
    "traffic or quality is not finite": array("quality", lambda a: np.full_like(a, np.nan)),
    "does not find the items": array("id_positions", lambda a: np.roll(a, 1)),
    "the context table is not whole": lambda folder: np.save(folder / "context_via.npy", np.zeros(240, np.int32)),
    "it cannot be opened": written("smoke.json", '[{"history": [], "seed": "x"}]'),
    "trying it ends with an error \\(ValueError": written(
        "smoke.json", '[{"history": [], "seed": -1, "strategy": "", "cluster": null, "items": []}]'
    ),
    "policy.onnx cannot be run": hungry,
}


@pytest.mark.parametrize("said", CRAFTED)
def test_crafted_files_stay_out_with_a_sentence(tmp_path: Path, said: str) -> None:
    found, _ = crafted(tmp_path, CRAFTED[said])
    assert re.search(said, found)
    assert "\n" not in found
    assert "Traceback" not in found


def test_a_model_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 6.0)
    found, seconds = crafted(tmp_path, endless)
    assert "it cannot be tried within 6 seconds" in found
    assert seconds < 20


def test_files_that_are_no_files_are_not_opened(tmp_path: Path) -> None:
    records = house.build(tmp_path)
    folder = tmp_path / "13-bundle"
    os.mkfifo(folder / "vectors.fifo")
    (folder / "zero.npy").symlink_to("/dev/zero")
    found, _ = refused(tmp_path, records)
    assert "vectors.fifo is no plain file; zero.npy is no plain file" in found
    for name in ("vectors.fifo", "zero.npy"):
        (folder / name).unlink()
    # What is read where it is there, and was not made by the run.
    np.save(folder / "context_via.npy", np.zeros(240, np.int32))
    assert "context_via.npy is not in its record" in refused(tmp_path, records)[0]
    (folder / "context_via.npy").unlink()
    (folder / "vectors.npy").unlink()
    assert "vectors.npy is missing" in refused(tmp_path, records)[0]


def test_a_record_cannot_name_another_folder(tmp_path: Path) -> None:
    records = house.build(tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    path = tmp_path / "13-bundle" / artifact.RECORD
    record = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(record | {"digest": "../kept"}))
    assert "is none" in refused(tmp_path, records)[0]
    assert kept.is_dir()


def test_a_bundle_that_shows_nothing_stays_out(tmp_path: Path) -> None:
    records = house.build(tmp_path, min_quality=0.99)
    assert "no item may be shown (bundle.min_quality = 0.99" in refused(tmp_path, records)[0]


def test_real_people_must_be_given_items(tmp_path: Path) -> None:
    """What the bundle carries is answered; those who were here have met all of it."""
    house.build(tmp_path)
    folder = tmp_path / "13-bundle"
    every = [Seen(f"c{c}-{i}") for c in range(12) for i in range(house.EACH)]
    assert trial.faults(folder, [every]) == []
    assert trial.faults(folder, [every] * 9) == ["9 of 42 people are given no item"]


def test_the_sample_is_of_the_history_and_of_the_log(tmp_path: Path) -> None:
    house.build(tmp_path, users=70)
    of_log = trial.sample(tmp_path, config.Serving())
    assert len(of_log) == trial.PEOPLE
    assert all(seen.item.startswith("c") and seen.time for history in of_log for seen in history)

    async def write() -> None:
        store = stores.open("", tmp_path / "serving", 30)
        now = time.time_ns() // 1000
        await store.add([Event("e1", "ann", "c3-1", now, 0.7), Event("e2", "bob", "gone", now)])
        await store.close()

    asyncio.run(write())
    found = trial.sample(tmp_path, config.Serving())
    assert {(history[0].item, history[0].satisfaction) for history in found[:2]} == {("c3-1", 0.7), ("gone", 1.0)}
    assert found[2:] == of_log
    # No fault of the bundle's: then nobody of the history is asked.
    (tmp_path / "serving" / "events.db").write_bytes(os.urandom(5000))
    assert trial.sample(tmp_path, config.Serving()) == of_log
    assert trial.sample(tmp_path, config.Serving(history="redis://127.0.0.1:1/0")) == of_log


def planned(folder: Path) -> Path:
    """A bundle with all that there can be."""
    clusters = np.array([[1, 2], [3, -1]], np.int32)
    via = np.where(np.arange(N) % 3, -1, np.arange(N) % 2).astype(np.int32)
    contexts = ContextTable(np.array([3, 9], np.int32), clusters, clusters.astype(np.float32), via, 2)
    planted = Planted(planned=planned_of(), contexts=contexts, triples={(0, 1, 2): [3, 4]})
    planted.build(folder)
    return folder / "out"


PLANNER: dict[str, Craft] = {
    "leaves are not one an item": array("leaf", lambda a: a + 1),
    "in the items' order": array("leaf", lambda a: a[::-1].copy()),
    "EASE over leaves does not fit": array("leaves_to", lambda a: a[:, 1:].copy()),
    "EASE over items does not fit": array("items_to", lambda a: np.where(a == a.max(), 999, a)),
    "rows of EASE are not one": array("unit", lambda a: a + 1),
    "contents are not one": array("content", lambda a: a[:-1].copy()),
    "signals that there are not": written(
        "planner.json", '{"weights": {"charm": 1.0}, "neutral": 0.2, "scale": 1.0}'
    ),
    "language model's rankings do not fit": array("model", lambda a: a + 1),
    "a language model that is not there": lambda folder: [
        (folder / f"{name}.npy").unlink() for name in bundle.MODEL
    ],
    "the context table does not fit": array("context_items", lambda a: a + N),
}


@pytest.mark.parametrize("said", PLANNER)
def test_arrays_of_the_planner_must_fit(tmp_path: Path, said: str) -> None:
    folder = planned(tmp_path)
    assert shapes.faults(bundle.load(folder), bundle.load_levels(folder)) == []
    PLANNER[said](folder)
    (fault, *_) = shapes.faults(bundle.load(folder), bundle.load_levels(folder))
    assert said in fault
