"""Captions: by a server that really looks at the picture it is sent, and what becomes of them."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from byway.base import artifact, config
from byway.base.artifact import Record
from byway.base.errors import UserError
from byway.data import media
from byway.data.catalog import SCHEMA, Catalog
from byway.interests import embed
from byway.multimodal import caption, contexts, prompts
from tests.multimodal import planted

COLOURS = {"a red field": (200, 20, 20), "a blue field": (20, 20, 200)}


def looking(picture: Image.Image) -> str:
    """What a picture shows: the colour that is nearest to its mean."""
    mean = np.asarray(picture.convert("RGB"), np.float32).mean((0, 1))
    return min(COLOURS, key=lambda name: float(((mean - COLOURS[name]) ** 2).sum()))


@contextmanager
def serving(say: Callable[[Image.Image], str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat server on loopback that looks at the picture in each request."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            address = body["messages"][0]["content"][1]["image_url"]["url"]
            picture = Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))
            answer = json.dumps({"choices": [{"message": {"content": say(picture)}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def world(folder: Path, n: int = 6) -> Catalog:
    """Items that share one title; every second picture is blue. The last item has no picture."""
    colours = list(COLOURS.values())
    for i in range(n - 1):
        Image.new("RGB", (700 + i, 300), colours[i % 2]).save(folder / f"{i}.png")
    columns: dict[str, Any] = {name: [None] * n for name in SCHEMA.names}
    columns |= {"item": [f"v{i}" for i in range(n)], "title": ["wait for it"] * n, "hashtags": [[]] * n}
    columns["thumbnail"] = [f"{i}.png" for i in range(n - 1)] + [None]
    return Catalog(pa.table(columns, schema=SCHEMA))


def build(path: Path, settings: config.Media, items: Catalog, folder: Path) -> Record:
    own = {name: getattr(settings, name) for name in ("model", "frames", "captioner", "captioner_url")}
    with artifact.part(path, "media", own, {}) as work, caption.opened(settings) as said:
        outcome = media.build(work, settings, items, folder, said)
    return artifact.commit(path, "media", own, {}, outcome)


def test_what_a_server_says_becomes_view_prompt_and_thought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = world(tmp_path)
    with serving(looking) as (url, asked):
        settings = config.Media(frames=1, captioner="eye", captioner_url=url)
        build(tmp_path / "01-media", settings, items, tmp_path)
        assert len(asked) == 5
        assert {body["model"] for body in asked} == {"eye"}
        seen = media.load(tmp_path / "01-media")
        assert seen.captions == ("a red field", "a blue field") * 2 + ("a red field",)
        # The same model is not asked again about the same files.
        build(tmp_path / "01-media", settings, items, tmp_path)
        assert len(asked) == 5
        assert media.load(tmp_path / "01-media").captions == seen.captions
        build(tmp_path / "01-media", replace(settings, captioner="other"), items, tmp_path)
        assert len(asked) == 10
    said = embed.captioned(seen, config.Embeddings(model="minilm", dim=8), tmp_path)
    assert said[0] @ said[2] > said[0] @ said[1] + 0.1
    words = np.ones((6, 8), np.float32) / np.sqrt(8).astype(np.float32)
    alike = {}
    for weight in (0.0, 1.0):
        monkeypatch.setattr(embed, "CAPTIONS", weight)
        own = config.Embeddings(dim=8, pictures=0, sound=0)
        joined, _, _ = embed.join(words, seen, own, said)
        alike[weight] = joined[0] @ joined[1], joined[0] @ joined[2]
    assert alike[0.0] == pytest.approx((1, 1), abs=1e-5)
    assert alike[1.0][0] + 0.1 < alike[1.0][1] == pytest.approx(1, abs=1e-4)
    shown = replace(planted.seen(tmp_path), captions=("a red field",) * planted.ITEMS)
    known = contexts.contexts(
        config.MultimodalModel(),
        planted.pairs(),
        catalog=planted.catalog(),
        tree=planted.tree(),
        descriptions=planted.descriptions(),
        seen=shown,
    ).item(3)
    assert "Shown: a red field\n" in prompts.before("text", known)
    assert prompts.thought(known).startswith(" a red field\nAbout: food; ramen, broth")


def test_a_caption_is_one_line_and_none_is_a_sentence(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2000, 100))
    with serving(lambda _: "one\ntwo") as (url, asked):
        with caption.opened(config.Media(captioner="eye", captioner_url=url)) as say:
            assert say(picture) == "one two"
        address = asked[0]["messages"][0]["content"][1]["image_url"]["url"]
        assert Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2]))).width == caption.LONGEST
    with (
        serving(lambda _: " ") as (url, _),
        caption.opened(config.Media(captioner="mute", captioner_url=url)) as say,
        pytest.raises(UserError, match="'mute' says nothing of a picture"),
    ):
        say(picture)


def test_captions_that_were_said_are_kept_when_the_server_goes(tmp_path: Path) -> None:
    items, left = world(tmp_path), [3]

    def tires(picture: Image.Image) -> str:
        left[0] -= 1
        return looking(picture) if left[0] >= 0 else ""

    with serving(tires) as (url, asked):
        settings = config.Media(frames=1, captioner="eye", captioner_url=url)
        with pytest.raises(UserError, match="says nothing"):
            build(tmp_path / "01-media", settings, items, tmp_path)
        left[0] = 99
        build(tmp_path / "01-media", settings, items, tmp_path)
        assert len(asked) == 6  # three, the one that failed, the two that were left
