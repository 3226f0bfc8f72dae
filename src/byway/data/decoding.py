"""One media file to frames, pictures and sound, or to the reason why not.

Files come from strangers, so they are opened in a process of their own: it has a limit of memory, is ended when a
file takes too long, and is started anew when a file brings it down. `Decoder` is the near side, `serve` the far
one. This module knows no items.

A file is refused, for the first of these reasons: `address` (not a local path), `missing`, `not a file` (a folder,
device or pipe), `empty`, `too large`, `unknown format`, `damaged`, `truncated`, `too many pixels`, `too long`,
`nothing to see` (no picture in it), `cannot be read`, `too much memory`, `took too long`, `crashed the decoder`.
Whoever asks adds `outside`, for a name that leads out of the folder of the input (`mediafiles`).
"""

import os
import resource
import struct
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
from av import error as failure
from av import logging as messages
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE = 224
"""Pixels a side of every picture that is kept: the whole picture, brought to a square."""
RATE = 16_000
"""Samples of sound a second, one channel."""
PICTURES = ("JPEG", "PNG", "WEBP")
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,wav,mp3,flac,aac"
"""Formats that stand for themselves: none of them may name other files, as playlists do."""
SOUND_SECONDS = 30.0
"""Seconds of sound that are heard from a file's start."""
MAX_MEGABYTES = 2048
"""A larger file is refused: four hours, the longest that is read, of a megabit a second."""
SECONDS_A_FILE = 30.0
"""A file that takes longer to decode is refused, and its decoder ended: frames are sought, so that a film takes no
longer than a clip."""
MAX_SECONDS = 14_400.0
"""A longer video is refused."""
MAX_MEGAPIXELS = 64
"""A picture or frame with more is refused."""
MEGABYTES_A_FILE = 1024
"""A file whose decoding needs more memory is refused."""
MOST_FRAMES = 2_000
"""Frames decoded for one sampled frame at the most: keyframes stand closer."""
MOST_PACKETS = 2_000_000
"""Packets read to find the end of a stream that does not say how long it is."""


class Refused(Exception):
    """The reason why a file is not taken."""


class Request(msgspec.Struct, frozen=True):
    """What is wanted of a file."""

    path: str
    frames: int
    """Frames wanted of a video; 0 for a picture."""


class Decoded(msgspec.Struct, frozen=True):
    """What a file holds."""

    reason: str = ""
    """Why it was refused; empty where it was not."""
    pictures: bytes = b""
    """[frames, SIDE, SIDE, 3] in RGB."""
    sound: bytes = b""
    """float32 samples at RATE; empty where there is none, or none that can be heard."""
    seconds: float = 0.0

    def frames(self) -> NDArray[np.uint8]:
        """[frames, SIDE, SIDE, 3]."""
        return np.frombuffer(self.pictures, np.uint8).reshape(-1, SIDE, SIDE, 3)

    def samples(self) -> NDArray[np.float32]:
        """[samples] of sound."""
        return np.frombuffer(self.sound, np.float32)


def decode(name: str | Path, frames: int) -> Decoded:
    """Open one file here and now: `frames` frames and the sound of a video, or one picture where 0 are wanted.

    A picture in a video's place stands for all of its frames. Raises Refused.
    """
    if "://" in str(name):
        raise Refused("address")
    path = Path(name)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise Refused("missing") from error
    if not path.is_file():
        raise Refused("not a file")
    if not size:
        raise Refused("empty")
    if size > MAX_MEGABYTES << 20:
        raise Refused("too large")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise Refused("cannot be read") from error
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        picture = _picture(path)
        return Decoded(pictures=np.repeat(picture[None], max(1, frames), axis=0).tobytes())
    if not frames:
        raise Refused("unknown format")
    return _video(path, frames)


def _picture(path: Path) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3]: upright, transparent parts white."""
    Image.MAX_IMAGE_PIXELS = None  # the bound below is ours, and is checked before anything is unpacked
    try:
        with Image.open(path, formats=PICTURES) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
                raise Refused("too many pixels")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
                upright = Image.alpha_composite(white, upright)
            return np.asarray(upright.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
    except UnidentifiedImageError as error:
        raise Refused("unknown format") from error
    except MemoryError as error:
        raise Refused("too much memory") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise Refused("truncated" if "truncated" in str(error) else "damaged") from error


def _opened(path: Path) -> Any:
    return av.open(str(path), options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS})


def _video(path: Path, n: int) -> Decoded:
    try:
        with _opened(path) as box:
            stream = next((s for s in box.streams.video if s.disposition != Disposition.attached_pic), None)
            if stream is None:
                raise Refused("nothing to see")
            if stream.width * stream.height > MAX_MEGAPIXELS * 1_000_000:
                raise Refused("too many pixels")
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            start, seconds = _span(box, stream)
            if seconds > MAX_SECONDS:
                raise Refused("too long")
            targets = [start + seconds * (i + 0.5) / n for i in range(n)]
            frames = np.stack([_square(frame) for frame in _sampled(box, stream, targets)])
    except MemoryError as error:  # also the library's
        raise Refused("too much memory") from error
    except failure.EOFError as error:
        raise Refused("truncated") from error
    except failure.ArgumentError as error:
        # The answer of the format whitelist where a playlist would have named other files.
        raise Refused("unknown format") from error
    except failure.FFmpegError as error:
        raise Refused("damaged") from error
    return Decoded(pictures=frames.tobytes(), sound=_sound(path).tobytes(), seconds=seconds)


def _span(box: Any, stream: Any) -> tuple[float, float]:
    """Time of the first frame and length in seconds; where the file does not say, its packets are counted."""
    start = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
    for length, base in ((stream.duration, stream.time_base), (box.duration, Fraction(1, 1_000_000))):
        if length is not None and length > 0:
            return start, float(length * base)
    end, seen = start, 0
    for packet in box.demux(stream):
        seen += 1
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if end - start > MAX_SECONDS or seen > MOST_PACKETS:
            raise Refused("too long")
    box.seek(0)
    if end <= start and not seen:
        raise Refused("nothing to see")
    return start, end - start


def _sampled(box: Any, stream: Any, targets: list[float]) -> list[Any]:
    """The frame that is on the screen at each of the times.

    Every time is sought by itself, so that a film costs no more than a clip, and damage is found where it is looked
    at. What ends before a time, though its last frame should not, is truncated.
    """
    frames: list[Any] = []
    for target in targets:
        if frames and target > 0:
            box.seek(max(0, int(target / stream.time_base)), stream=stream, backward=True)
        shown, end, count = None, 0.0, 0
        for frame in box.decode(stream):
            count += 1
            if frame.is_corrupt:
                raise Refused("damaged")
            if frame.time is None:
                shown = frame
                continue
            if frame.time > target and shown is not None:
                end = frame.time
                break
            shown = frame
            end = frame.time + float((frame.duration or 0) * (frame.time_base or 0))
            if count > MOST_FRAMES:
                raise Refused("took too long")
        if shown is None:
            raise Refused("nothing to see" if not frames else "truncated")
        rate = float(stream.average_rate or 0)
        if shown.time is not None and end + 1.5 / (rate or 25) < target:
            raise Refused("truncated")
        frames.append(shown)
    return frames


def _square(frame: Any) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3] upright; the library says by how much a phone was turned."""
    pixels = frame.reformat(width=SIDE, height=SIDE, format="rgb24").to_ndarray()
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def _sound(path: Path) -> NDArray[np.float32]:
    """[samples] of the first seconds, mono; none where there is no sound or it cannot be decoded."""
    parts: list[NDArray[np.float32]] = []
    wanted = int(SOUND_SECONDS * RATE)
    try:
        with _opened(path) as box:
            if not box.streams.audio:
                return np.zeros(0, np.float32)
            resampler = av.AudioResampler("flt", "mono", RATE)
            for frame in box.decode(box.streams.audio[0]):
                parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
                if sum(map(len, parts)) >= wanted:
                    break
    except failure.FFmpegError:
        return np.zeros(0, np.float32)
    whole = np.concatenate([np.zeros(0, np.float32), *parts])[:wanted].astype(np.float32)
    return np.nan_to_num(whole, nan=0.0, posinf=0.0, neginf=0.0)


class Decoder:
    """A process that opens files; as many in turn as it takes. Only bytes go to and fro, never objects."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, name: str | Path, frames: int) -> Decoded:
        """As the function of that name, with the reason in the answer instead of an exception."""
        try:
            if self.process is None:
                self._start()
            self._pipe.send_bytes(msgspec.msgpack.encode(Request(str(name), frames)))
            if self._pipe.poll(SECONDS_A_FILE):
                return msgspec.msgpack.decode(self._pipe.recv_bytes(), type=Decoded)
            reason = "took too long"
        except (EOFError, ConnectionError):
            reason = "crashed the decoder"
        self.close()
        return Decoded(reason)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._pipe.close()
            self.process = None

    def _start(self) -> None:
        self._pipe, far = Pipe()
        # One thread: more would only take from the others, and their stacks count as memory.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # What the decoders write about broken files goes nowhere: the reason is the report.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "byway.data.decoding", str(far.fileno()), str(MEGABYTES_A_FILE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[far.fileno()],
            env=environment,
        )
        far.close()
        # The clock of a file starts when the process is ready, not with its imports.
        if not self._pipe.poll(60):
            raise TimeoutError("the decoder did not start within a minute")
        self._pipe.recv_bytes()


def serve(pipe: Connection, megabytes: int) -> None:
    """Answer requests until the other side ends, within so much more memory than now."""
    messages.set_level(messages.PANIC)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = now + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send_bytes(b"ready")
    with suppress(EOFError):
        while True:
            request = msgspec.msgpack.decode(pipe.recv_bytes(), type=Request)
            try:
                answer = decode(request.path, request.frames)
            except Refused as refused:
                answer = Decoded(str(refused))
            pipe.send_bytes(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
