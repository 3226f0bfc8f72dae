"""Files as they come: the right frames, the right way up; what is damaged is refused, with its reason."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data import clips

from byway.data import decoding, sound
from byway.data.decoding import Decoder, Refused, decode


def reds(frames: np.ndarray) -> list[int]:
    """Red in the middle of each frame."""
    return frames[:, 112, 150, 0].astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")]
)
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_frames_stand_at_equal_steps_in_the_middle_of_their_share(
    tmp_path: Path, name: str, codec: str, n: int
) -> None:
    path = clips.video(tmp_path / name, codec)
    decoded = decode(path, n)
    expected = [240 * int(16 * (i + 0.5) / n) // 15 for i in range(n)]
    assert decoded.seconds == pytest.approx(4, abs=0.1)
    assert reds(decoded.frames()) == pytest.approx(expected, abs=14)


def test_with_a_rate_that_varies_a_frame_is_the_one_on_the_screen(tmp_path: Path) -> None:
    # Frames at 0, 1, 2 and 12 quarters of a second: most of the time the third is on the screen.
    path = clips.video(tmp_path / "a.mkv", frames=clips.ramp(4), times=[0, 1, 2, 12])
    assert reds(decode(path, 4).frames()) == pytest.approx([80, 160, 160, 160], abs=14)


def test_what_a_telephone_turned_stands_upright(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "a.mp4")
    before = decode(path, 1).frames()[0].astype(int)
    assert before[112, 30, 2] > 150 > before[112, 190, 2]
    clips.turned(path)
    after = decode(path, 1).frames()[0].astype(int)
    # Turned clockwise, what was left is above.
    assert after[30, 112, 2] > 150 > after[190, 112, 2]


def test_a_photograph_is_turned_as_its_camera_says_and_transparency_is_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 80), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    turned = decode(tmp_path / "a.jpg", 0).frames()[0].astype(int)
    assert turned[112, 30, 0] > 200
    assert turned[112, 190, 2] > 200
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "b.png")
    assert decode(tmp_path / "b.png", 0).frames().min() == 255


def test_a_tone_is_heard_in_its_band_and_silence_is_nothing(tmp_path: Path) -> None:
    peaks: list[int] = []
    for hertz in (300.0, 3000.0):
        decoded = decode(clips.video(tmp_path / f"{hertz}.mp4", hertz=hertz), 1)
        assert len(decoded.samples()) == pytest.approx(4 * decoding.RATE, rel=0.05)
        heard = sound.features(decoded.samples())
        assert heard is not None
        assert heard.shape == (sound.FEATURES,)
        peaks.append(int(heard[: sound.BANDS].argmax()))
    # 40 bands from 20 to 8,000 Hz on the mel scale (2595 log10(1 + f / 700)).
    mel = [2595 * np.log10(1 + f / 700) for f in (20, 300, 3000, 8000)]
    expected = [(mel[i] - mel[0]) / (mel[3] - mel[0]) * 41 - 1 for i in (1, 2)]
    assert peaks == pytest.approx(expected, abs=1.2)
    assert sound.features(np.zeros(decoding.RATE, np.float32)) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hundred_damaged_files_are_each_refused_and_the_good_ones_are_not(tmp_path: Path) -> None:
    kinds = list(clips.damages(tmp_path))
    assert len({name for name, _, _ in kinds}) == 20
    (tmp_path / "good.jpg").write_bytes(clips.picture("JPEG"))
    with Decoder() as decoder:
        for name, make, reasons in kinds:
            for i in range(5):
                path = tmp_path / f"{i}-{name}"
                make(path, i)
                answer = decoder.decode(path, 4)
                assert answer.reason in reasons, (name, i, answer.reason)
                assert not answer.pictures
        for name in ("good.mp4", "good.webm", "good.jpg"):
            answer = decoder.decode(tmp_path / name, 4)
            assert answer.reason == ""
            assert answer.frames().shape == (4, decoding.SIDE, decoding.SIDE, 3)


def test_a_file_that_kills_or_stops_the_decoder_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.video(tmp_path / "a.mp4")
    with Decoder() as decoder:
        assert decoder.decode(path, 1).reason == ""
        assert decoder.process is not None
        os.kill(decoder.process.pid, signal.SIGKILL)
        assert decoder.decode(path, 1).reason == "crashed the decoder"
        assert decoder.decode(path, 1).reason == ""
        monkeypatch.setattr(decoding, "SECONDS_A_FILE", 0.2)
        os.kill(decoder.process.pid, signal.SIGSTOP)
        assert decoder.decode(path, 1).reason == "took too long"
        monkeypatch.undo()
        assert decoder.decode(path, 1).reason == ""


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "PNG")
    (tmp_path / "large.png").write_bytes(file.getvalue())
    monkeypatch.setattr(decoding, "MEGABYTES_A_FILE", 100)
    with Decoder() as decoder:
        assert decoder.decode(tmp_path / "large.png", 0).reason == "too much memory"
    assert decode(tmp_path / "large.png", 0).reason == ""


def test_addresses_are_not_fetched() -> None:
    with pytest.raises(Refused, match="address"):
        decode("x://host/a.mp4", 1)
