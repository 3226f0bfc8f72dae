"""01-media: what is seen and heard of each item, and the right row for the right item."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.data import clips

from byway.base import artifact, config, known_models
from byway.base.artifact import Record
from byway.data import media, mediafiles, pictures, sound
from byway.data.catalog import SCHEMA, Catalog

SETTINGS = config.Media(frames=2)


def catalog(files: list[tuple[str | None, str | None]]) -> Catalog:
    columns: dict[str, Any] = {name: [None] * len(files) for name in SCHEMA.names}
    columns |= {"item": [f"v{i}" for i in range(len(files))], "title": ["x"] * len(files)}
    columns |= {"hashtags": [[]] * len(files), "media": [m for m, _ in files], "thumbnail": [t for _, t in files]}
    return Catalog(pa.table(columns, schema=SCHEMA))


def build(path: Path, items: Catalog, folder: Path) -> Record:
    inputs = {"files": mediafiles.state(items, folder), "model": known_models.identity(SETTINGS.model)}
    settings = {name: getattr(SETTINGS, name) for name in ("model", "frames")}
    with artifact.part(path, "media", settings, inputs) as work:
        outcome = media.build(work, SETTINGS, items, folder)
    return artifact.commit(path, "media", settings, inputs, outcome)


def reference(of: dict[str, NDArray[np.float32]], x: Any) -> Any:
    """EfficientNet-Lite0's last map by torch, layer for layer as its authors print them, nothing folded."""
    import torch
    from torch.nn import functional as F

    tensors = {name: torch.from_numpy(value) for name, value in of.items()}

    def layer(x: Any, conv: str, norm: str, stride: int = 1, alone: bool = False) -> Any:
        kernel = tensors[f"{conv}.weight"]
        pads: list[int] = []
        for n in (x.shape[-1], x.shape[-2]):
            short = max((-(-n // stride) - 1) * stride + kernel.shape[-1] - n, 0)
            pads += [short // 2, short - short // 2]
        y = F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=len(kernel) if alone else 1)
        rest = (tensors[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, *rest, eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    strides = [s if i == 0 else 1 for n, _, s, _, _ in pictures.PLAN for i in range(n)]
    for number, stride in enumerate(strides):
        block, y = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in tensors:
            y = F.relu6(layer(y, f"{block}_expand_conv", f"{block}_bn0"))
        y = F.relu6(layer(y, f"{block}_depthwise_conv", f"{block}_bn1", stride, alone=True))
        y = layer(y, f"{block}_project_conv", f"{block}_bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    return F.relu6(layer(x, "_conv_head", "_bn1"))


def test_the_network_knows_a_palace_and_a_daisy() -> None:
    """The graph's map, averaged, through the checkpoint's last layer: the right of ImageNet's classes."""
    sklearn = pytest.importorskip("sklearn.datasets")
    head = pictures.weights()
    encode = pictures.encoder(pictures.SHIPPED, 1)
    for name, wanted in (("china.jpg", 698), ("flower.jpg", 985)):
        image = Image.fromarray(sklearn.load_sample_image(name))
        side = min(image.size)
        left, above = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, above, left + side, above + side)).resize((224, 224), Image.Resampling.BICUBIC)
        seen = encode(np.asarray(square)[None])[0, 0].astype(np.float32)
        assert int((head["_fc.weight"] @ seen + head["_fc.bias"]).argmax()) == wanted


def test_the_graph_sees_what_the_network_sees() -> None:
    import torch

    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    with torch.inference_mode():
        x = (torch.from_numpy(image).permute(0, 3, 1, 2).float() - 127) / 128
        wanted = reference(pictures.weights(), x)
        fields = torch.nn.functional.adaptive_avg_pool2d(wanted, 2).flatten(2).transpose(1, 2).numpy()
    assert fields.max() > 1
    seen = pictures.encoder(pictures.SHIPPED, 2)(image)
    assert seen.shape == (3, 4, pictures.WIDTH)
    assert seen.dtype == np.float16
    np.testing.assert_allclose(seen.astype(np.float32), fields, atol=2e-3, rtol=2e-3)


def test_each_item_gets_its_own_pictures_and_damage_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    clips.video(folder / "a.mp4", hertz=440)
    (folder / "a.jpg").write_bytes(clips.picture("JPEG"))
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:500])
    files = [(None, None), ("a.mp4", None), ("broken.mp4", "a.jpg"), (None, "x://host/b.jpg"), ("a.mp4", "a.jpg")]
    record = build(tmp_path / "01-media", catalog(files), folder)
    seen = media.load(tmp_path / "01-media")
    assert seen.item.tolist() == [1, 2, 4]
    assert seen.there.tolist() == [[True, True, False], [False, False, True], [True, True, True]]
    assert seen.row(5).tolist() == [-1, 0, 1, -1, 2]
    # The same picture in another batch is summed in another order: at most the last digit of float16 moves.
    np.testing.assert_array_max_ulp(np.asarray(seen.pictures[0, :2]), np.asarray(seen.pictures[2, :2]), 1)
    np.testing.assert_array_max_ulp(np.asarray(seen.pictures[1, 2]), np.asarray(seen.pictures[2, 2]), 1)
    assert not np.array_equal(seen.pictures[2, 0], seen.pictures[2, 2])
    assert not seen.pictures[1, :2].any()
    assert (~np.isnan(seen.sounds[:, 0])).tolist() == [True, False, True]
    assert seen.sounds.shape[1] == sound.FEATURES
    refused = pq.read_table(tmp_path / "01-media" / "quarantine.parquet").to_pylist()
    assert [(row["item"], row["kind"]) for row in refused] == [(2, "media"), (3, "thumbnail")]
    assert refused[1]["reason"] == "address"
    assert record.counts == {"items": 3, "refused": 2}
    # The same input elsewhere makes the same artifact, and its files are found there.
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert build(tmp_path / "02" / "01-media", catalog(files), elsewhere).digest == record.digest
    assert replace(seen, folder=elsewhere).files()[1] == (str(elsewhere / "a.mp4"), "")
    # The same bytes under another name are not looked at again.
    again = build(tmp_path / "01-media", catalog([files[1], ("a.mp4", "a.jpg")]), folder)
    assert again.metrics["media.taken_over"] == 2
    moved = media.load(tmp_path / "01-media")
    np.testing.assert_array_equal(moved.there, [[True, True, False], [True, True, True]])


def test_what_stands_for_an_item_is_what_was_asked_for_else_what_there_is() -> None:
    there = np.array([[True] * 8 + [True], [True] * 8 + [False], [False] * 8 + [True]])
    shape = (3, 9, 1, 4)
    seen = media.Media(
        np.arange(3, dtype=np.int32), np.zeros(shape, np.float16), there, np.zeros((3, 1)), [], Path()
    )
    for n, expected in ((1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7]), (8, list(range(8)))):
        picks, has = media.picked(seen, "frames", n)
        assert picks[0].tolist() == picks[1].tolist() == expected
        assert (picks[2] == 8).all()
        assert has.all()
    picks, has = media.picked(seen, "thumbnail", 4)
    assert picks[[0, 2]].tolist() == [[8], [8]]
    assert picks[1, 0] < 8
    assert has.all()


def test_where_every_file_is_refused_nothing_was_seen_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"")
    record = build(tmp_path / "01-media", catalog([("a.mp4", None), (None, "b.jpg")]), tmp_path / "in")
    assert record.counts == {"items": 0, "refused": 2}
    assert record.metrics["media.quarantined"] == {"empty": 1, "missing": 1}
    seen = media.load(tmp_path / "01-media")
    assert len(seen.item) == 0
    assert media.vectors(seen).shape[0] == 0


def test_what_was_refused_in_one_run_can_be_there_in_the_next(tmp_path: Path) -> None:
    """A run that saw nothing says nothing of how wide what is seen will be."""
    folder = tmp_path / "in"
    folder.mkdir()
    items = catalog([(None, "a.jpg"), (None, "b.jpg")])
    assert build(tmp_path / "01-media", items, folder).counts == {"items": 0, "refused": 2}
    Image.new("RGB", (64, 64), "red").save(folder / "a.jpg")
    assert build(tmp_path / "01-media", items, folder).counts == {"items": 1, "refused": 1}
    assert media.load(tmp_path / "01-media").item.tolist() == [0]


def test_a_name_that_leads_nowhere_or_out_of_the_folder_costs_only_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "secret.jpg", folder / "a.jpg", folder / "sub" / "b.jpg"):
        Image.new("RGB", (64, 64), "red").save(place)
    (folder / "memory.jpg").symlink_to("/proc/self/mem")
    (folder / "sub" / "linked").symlink_to(tmp_path)
    names = {
        "a.jpg": "",
        str(folder / "sub" / "b.jpg"): "",
        "sub/../a.jpg": "",
        "a" * 300 + ".jpg": "missing",
        "a\0b.jpg": "missing",
        "sub": "not a file",
        "memory.jpg": "empty",
        "/proc/self/mem": "outside",
        "/dev/zero": "outside",
        "../secret.jpg": "outside",
        "sub/../../secret.jpg": "outside",
        str(tmp_path / "secret.jpg"): "outside",
        f"{folder}-2/secret.jpg": "outside",
        "..": "outside",
        # By its letters it is in the folder, and there it is looked for: not where the link's own parent is.
        "sub/linked/../b.jpg": "",
        "http://host/a.jpg": "address",
    }
    record = build(tmp_path / "01-media", catalog([(None, name) for name in names]), folder)
    refused = pq.read_table(tmp_path / "01-media" / "quarantine.parquet").to_pylist()
    found = dict.fromkeys(names, "") | {row["file"]: row["reason"] for row in refused}
    assert found == names
    assert record.counts == {"items": 4, "refused": len(names) - 4}
