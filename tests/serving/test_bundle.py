"""The bundle holds what it was laid out from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import config
from byway.multimodal.plan import ContextTable
from byway.serving import bundle, pack
from byway.serving.bundle import Bundle, Strings
from tests.serving.planted import LENGTH, NAMES, SIZES, STARTS, M, N, Planted

HARD_IDS = [
    "🎬👨‍👩‍👧‍👦",
    "🎬",
    "مرحبا بالعالم",
    "\u202eright-to-left\u202c",
    "a,b",
    "a",
    "b",
    ",",
    " spaced ",
    "spaced",
    "é",
    "e\u0301",
    "\ufeffbom",
    "bom",
    "0",
    "00",
    "x" * 256,
    "quote\"'",
    "null",
    "-1",
    "../..",
    "#tag",
    "A",
    "ß",
    "ss",
    "\U0010ffff",
]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def opened(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return planted.build(tmp_path_factory.mktemp("bundle"))


def test_everything_stands_in_the_order_of_the_tree(planted: Planted, opened: Bundle) -> None:
    assert [opened.ids[p] for p in range(N)] == planted.ids
    assert [opened.titles[p] for p in range(N)] == [f"Title of {i}" for i in planted.ids]
    np.testing.assert_array_equal(opened.policy_rows, planted.order)
    np.testing.assert_array_equal(opened.vectors, planted.vectors[planted.order])
    np.testing.assert_array_equal(opened.starts, STARTS)
    np.testing.assert_array_equal(opened.traffic, planted.traffic)
    np.testing.assert_array_equal(opened.table, planted.rankings())
    assert opened.popularity.tolist() == [3, 5, 1, 6, 2, 4, 0]
    assert opened.manifest.names == NAMES
    assert (opened.manifest.level, opened.manifest.history, opened.manifest.clock) == (2, LENGTH, True)
    assert opened.settings == config.Bundle(mode="pair")


def test_arrays_are_mapped_not_read(opened: Bundle) -> None:
    arrays = [getattr(opened, name) for name in bundle.ARRAYS] + [opened.ids.data, opened.titles.data]
    assert all(isinstance(a.base, np.memmap) and not a.flags.writeable for a in arrays)


def test_every_item_is_found_by_its_id(planted: Planted, opened: Bundle) -> None:
    assert [opened.position(i) for i in planted.ids] == list(range(N))


@settings(deadline=None)
@given(st.text(max_size=6))
def test_other_ids_are_not_found(opened: Bundle, item: str) -> None:
    assert opened.position(item) is None


def test_ids_of_any_script(tmp_path: Path) -> None:
    assert len(HARD_IDS) == len(set(HARD_IDS)) == N
    opened = Planted(ids=HARD_IDS).build(tmp_path)
    assert [opened.position(item) for item in HARD_IDS] == list(range(N))
    assert [opened.ids[p] for p in range(N)] == HARD_IDS
    assert opened.position("") is None
    assert opened.position("b ") is None


def test_bytes_that_are_no_text_are_an_unknown_id(opened: Bundle) -> None:
    """What a shell passes on as an argument where it is not UTF-8."""
    assert opened.position(b"\xff-1".decode("utf-8", "surrogateescape")) is None


@pytest.mark.parametrize(
    "hashed",
    [
        lambda item: 7,
        lambda item: 2**64 - 1,
        lambda item: len(item) % 2,
        # Neighbours that a float64 cannot tell apart.
        lambda item: 2**60 + sum(item.encode()) % 64,
        lambda item: 2**63 + sum(item.encode()) % 64,
    ],
    ids=["constant", "largest", "two", "near", "near and large"],
)
def test_hashes_that_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: object) -> None:
    monkeypatch.setattr(bundle, "hash_of", hashed)
    monkeypatch.setattr(pack, "hash_of", hashed)
    planted = Planted()
    opened = planted.build(tmp_path)
    assert [opened.position(item) for item in planted.ids] == list(range(N))
    assert opened.position("c9-9") is None
    assert opened.position("") is None


def test_a_look_up_does_not_copy_the_index(opened: Bundle) -> None:
    """Among a million ids: 3 microseconds where it compares in uint64, 30,000 where in float64."""
    hashes = np.sort(np.random.default_rng(0).integers(0, 2**64, 1 << 20, dtype=np.uint64))
    many = Bundle(**{name: getattr(opened, name) for name in Bundle.__slots__} | {"id_hashes": hashes})
    import tracemalloc

    tracemalloc.start()
    try:
        for i in range(20):
            assert many.position(str(i)) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_cluster_of_a_position(opened: Bundle) -> None:
    assert [opened.cluster(p) for p in range(N)] == np.repeat(np.arange(M), SIZES).tolist()


@pytest.mark.parametrize("length", [LENGTH, "length"])
@pytest.mark.parametrize("count", [0, 1, 3, LENGTH, LENGTH + 5])
def test_a_history_is_encoded_right_aligned_and_cut(
    tmp_path: Path, count: int, length: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted model takes a mean: over the padding too where its length is fixed."""
    monkeypatch.setattr(pack, "_trained_on", lambda _: LENGTH)
    planted = Planted(length=length)
    opened = planted.build(tmp_path)
    assert opened.manifest.history == LENGTH
    history = [(7 * i) % N for i in range(count)]
    read = planted.vectors[planted.order[history[-LENGTH:]]] if history else np.zeros((1, 5), np.float32)
    over = LENGTH if length == LENGTH else len(read)
    np.testing.assert_allclose(opened.encode(history), read.sum(0) / over, rtol=1e-5, atol=1e-6)
    assert opened.encode(history).dtype == np.float32


def test_a_file_that_fixes_the_length_is_believed(tmp_path: Path) -> None:
    opened = Planted(length=3).build(tmp_path)
    assert opened.manifest.history == 3
    assert opened.encode([0, 1, 2, 3, 4]).shape == (5,)


def test_a_context_table_of_another_level_is_left_out(tmp_path: Path) -> None:
    """Its clusters are others: what it calls 1 is not what the table of pairs calls 1."""
    item, clusters = np.array([3], np.int32), np.array([[1, 2]], np.int32)
    via = np.full(N, -1, np.int32)
    via[3] = 0
    for level, there in ((2, True), (3, False)):
        contexts = ContextTable(item, clusters, clusters.astype(np.float32), via, level)
        opened = Planted(contexts=contexts).build(tmp_path / str(level))
        assert (opened.context_via is not None) == there


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Planted().build(tmp_path / name)
    files = [{p.name: p.read_bytes() for p in (tmp_path / name / "out").iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert set(files[0]) == {
        "manifest.json",
        "levels.json",
        "smoke.json",
        "policy.onnx",
        "planner.json",
        *(f"{name}.npy" for name in (*bundle.ARRAYS, *bundle.PLANNER, "items_to", "items_weight")),
        *(f"{name}{end}.npy" for name in bundle.STRINGS for end in ("", "_offsets")),
    }


@settings(deadline=None)
@given(st.lists(st.text()))
def test_strings_are_unpacked_as_they_were_packed(texts: list[str]) -> None:
    packed = Strings.of(texts)
    assert len(packed) == len(texts)
    assert [packed[i] for i in range(len(packed))] == texts


HEAVY = {"torch", "transformers", "daft", "ray", "pandas", "pyarrow", "sklearn", "scipy"}


def test_what_serves_is_light() -> None:
    code = "import sys, byway.serving.recommend, byway.serving.bundle; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "onnxruntime" in loaded
    assert loaded & HEAVY == set()
