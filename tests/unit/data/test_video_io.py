import time
from pathlib import Path

import numpy as np
import pytest

from videorl.data.video_io import encode_mp4, read_video, write_mp4
from videorl.errors import VideoError
from videorl.types import Video


def ball(height: int = 32, width: int = 32, frames: int = 9, shift: int = 0) -> Video:
    """A bright disc on grey that moves two pixels a frame."""
    y, x = np.mgrid[:height, :width]
    clip = [((x - 8 - shift - 2 * f) ** 2 + (y - 16) ** 2 < 36) * 200 + 20 for f in range(frames)]
    return Video(np.repeat(np.stack(clip)[..., None], 3, axis=3).astype(np.uint8), 8.0)


def test_round_trip_keeps_shape_rate_and_pixels(tmp_path: Path) -> None:
    video = ball()
    write_mp4(tmp_path / "ball.mp4", video)
    back = read_video(tmp_path / "ball.mp4")
    assert back.frames.shape == (9, 32, 32, 3)
    assert back.frames.dtype == np.uint8
    assert back.fps == 8.0
    assert np.abs(back.frames.astype(int) - video.frames).mean() < 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["ball.mp4"]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_flat_colours_come_back(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write_mp4(tmp_path / "flat.mp4", Video(np.full((3, 32, 32, 3), colour, np.uint8), 8.0))
    back = read_video(tmp_path / "flat.mp4")
    assert np.abs(back.frames.astype(int) - np.array(colour)).max() <= 4


def test_odd_sides_are_padded_to_even_by_repetition(tmp_path: Path) -> None:
    video = ball(31, 33)
    write_mp4(tmp_path / "odd.mp4", video)
    back = read_video(tmp_path / "odd.mp4").frames.astype(int)
    assert back.shape == (9, 32, 34, 3)
    assert np.abs(back[:, :31, :33] - video.frames).mean() < 2.0


def test_equal_videos_give_equal_bytes_whatever_was_encoded_between() -> None:
    rng = np.random.default_rng(0)
    encoded = set()
    for frames in range(1, 30):
        noise = rng.integers(0, 256, (frames % 9 + 1, 16 * (frames % 4 + 1), 32, 3), dtype=np.uint8)
        encode_mp4(Video(noise, 8.0))
        encoded.add(encode_mp4(ball()))
    assert len(encoded) == 1
    assert encode_mp4(ball(shift=1)) not in encoded


def test_a_small_clip_encodes_in_milliseconds() -> None:
    video, seconds = ball(), []
    for _ in range(20):
        started = time.perf_counter()
        encode_mp4(video)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.030


@pytest.mark.parametrize("kept", [0, 300, -200])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(encode_mp4(ball())[:kept])
    with pytest.raises(VideoError, match=r"cut\.mp4.*damaged or truncated"):
        read_video(path)


def test_damaged_pixels_are_an_error_not_a_grey_video(tmp_path: Path) -> None:
    encoded = bytearray(encode_mp4(ball(64, 64)))
    start = encoded.index(b"mdat") + 720
    encoded[start : start + 300] = bytes(300)
    (tmp_path / "bad.mp4").write_bytes(encoded)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        read_video(tmp_path / "bad.mp4")


def test_a_file_that_is_no_video_or_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    with pytest.raises(VideoError, match=r"text\.mp4"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        read_video(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("frames", "fps", "reason"),
    [
        (np.zeros((0, 32, 32, 3), np.uint8), 8.0, r"\(0, 32, 32, 3\)"),
        (np.zeros((9, 32, 32), np.uint8), 8.0, r"\(9, 32, 32\)"),
        (np.zeros((9, 32, 32, 3), np.float32), 8.0, "float32"),
        (np.zeros((9, 32, 32, 3), np.uint8), 0.0, "fps"),
    ],
)
def test_what_is_not_a_video_cannot_be_encoded(frames: np.ndarray, fps: float, reason: str) -> None:
    with pytest.raises(VideoError, match=reason):
        encode_mp4(Video(frames, fps))
