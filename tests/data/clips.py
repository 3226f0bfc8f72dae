"""Small media files made on the spot, and twenty ways to damage them."""

import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def ramp(n: int = 16, size: tuple[int, int] = (96, 64)) -> NDArray[np.uint8]:
    """[n, height, width, 3] frames whose red grows from 0 to 240; the left half is blue, the right one is not."""
    frames = np.zeros((n, size[1], size[0], 3), np.uint8)
    frames[..., 0] = (np.arange(n) * 240 // max(1, n - 1))[:, None, None]
    frames[:, :, : size[0] // 2, 2] = 200
    return frames


def video(
    path: Path,
    codec: str = "libx264",
    frames: NDArray[np.uint8] | None = None,
    fps: int = 4,
    times: list[int] | None = None,
    hertz: float | None = None,
    seconds: float = 4.0,
) -> Path:
    """A video; `times` in frame units make its rate vary; `hertz` adds a tone."""
    frames = ramp() if frames is None else frames
    with av.open(str(path), "w") as box:
        stream: Any = box.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1", "g": "8"}
        audio: Any = box.add_stream("aac", rate=48_000, layout="mono") if hertz else None
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if times is None else times[i]
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
        if audio is not None:
            wave = 0.3 * np.sin(2 * np.pi * float(hertz or 0) * np.arange(int(48_000 * seconds)) / 48_000)
            for start in range(0, len(wave), 1024):
                part = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1024].astype(np.float32), format="fltp", layout="mono"
                )
                part.sample_rate, part.pts = 48_000, start
                box.mux(audio.encode(part))
            box.mux(audio.encode(None))
    return path


def turned(path: Path) -> None:
    """Say in an mp4's header that its pictures are shown turned by 90 degrees, as telephones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def picture(kind: str, size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


Damage = Callable[[Path, int], None]
"""Makes a damaged file at a path, the i-th of its kind."""


def damages(folder: Path) -> Iterator[tuple[str, Damage, set[str]]]:
    """Name, maker and the reasons that may be given, of twenty kinds of damage."""
    mp4 = video(folder / "good.mp4", hertz=440).read_bytes()
    webm = video(folder / "good.webm", "libvpx").read_bytes()
    jpeg, png, webp = (picture(kind) for kind in ("JPEG", "PNG", "WEBP"))
    noise = np.random.default_rng(1)

    def cut(data: bytes, share: float) -> Damage:
        return lambda path, i: path.write_bytes(data[: int(len(data) * (share + 0.04 * i))]) and None

    def write(make: Callable[[int], bytes]) -> Damage:
        return lambda path, i: path.write_bytes(make(i)) and None

    def holed(data: bytes, start: int) -> Callable[[int], bytes]:
        def make(i: int) -> bytes:
            broken = bytearray(data)
            broken[start:] = noise.integers(0, 255, len(broken) - start).astype(np.uint8).tobytes()
            return bytes(broken)

        return make

    def long(i: int) -> bytes:
        # Every length in the header, and that of each picture, is said to be years.
        broken = bytearray(mp4)
        for box, at in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24), (b"elst", 12), (b"stts", 16)):
            place = -1
            while (place := broken.find(box, place + 1)) >= 0:
                broken[place + at : place + at + 4] = struct.pack(">I", 0x7FFFFFF0 + i)
        return bytes(broken)

    def wide(i: int) -> bytes:
        # The header of a PNG says 60,000 x 60,000 pixels; its checksum is right.
        import zlib

        head = b"IHDR" + struct.pack(">IIBBBBB", 60_000 + i, 60_000, 8, 2, 0, 0, 0)
        return png[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + png[33:]

    def pipe(path: Path, i: int) -> None:
        os.mkfifo(path)

    def endless(path: Path, i: int) -> None:
        path.symlink_to("/dev/zero")

    def loop(path: Path, i: int) -> None:
        path.symlink_to(path.name)

    def sparse(path: Path, i: int) -> None:
        with path.open("wb") as file:
            file.write(mp4)
            file.truncate(3 << 30)

    def playlist(i: int) -> bytes:
        return b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n" * (i + 1)

    damaged = {"damaged", "truncated", "nothing to see"}
    unknown = {"unknown format", "damaged"}
    yield "empty.mp4", write(lambda i: b""), {"empty"}
    yield "missing.mp4", lambda path, i: None, {"missing"}
    yield "folder.mp4", lambda path, i: path.mkdir(), {"not a file"}
    yield "pipe.mp4", pipe, {"not a file"}
    yield "endless.mp4", endless, {"not a file"}
    yield "loop.mp4", loop, {"missing"}
    yield "sparse.mp4", sparse, {"too large"}
    yield "cut-header.mp4", cut(mp4, 0.01), damaged | unknown
    yield "cut-middle.mp4", cut(mp4, 0.4), damaged | unknown
    yield "cut.webm", cut(webm, 0.3), damaged | unknown
    yield "holed.mp4", write(holed(mp4, len(mp4) // 8)), damaged | unknown
    yield "holed.webm", write(holed(webm, len(webm) // 8)), damaged | unknown
    yield "noise.mp4", write(lambda i: noise.integers(0, 255, 5000 + i).astype(np.uint8).tobytes()), unknown
    yield "text.mp4", write(lambda i: b"<html>404 not found</html>" * (i + 1)), unknown
    yield "playlist.mp4", write(playlist), unknown
    yield "hours.mp4", write(long), {"too long", "damaged", "truncated"}
    yield "cut.jpg", cut(jpeg, 0.3), {"truncated", "damaged"}
    yield "cut.png", cut(png, 0.3), {"truncated", "damaged"}
    yield "cut.webp", cut(webp, 0.3), {"truncated", "damaged"}
    yield "wide.png", write(wide), {"too many pixels"}
