"""Containers made, cut and mutated at random: what is read is what PyAV shows, or refused by name.

However it is asked for, and without a hang. The short profile takes seconds; longer, with other
examples each time: `HYPOTHESIS_PROFILE=long pytest tests/fuzz/test_containers.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.video_files import cut_copy, decoded, make_video
from videorl.errors import VideoError
from videorl.rewards.videos import open_video

SEEDS: dict[str, dict] = {
    "h264.mp4": {"options": {"x264-params": "keyint=6:scenecut=0"}},
    "h264.mkv": {"options": {"x264-params": "keyint=6:scenecut=0"}},
    "h264.ts": {"options": {"bf": "0"}},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "pictures.gif": {"codec": "gif", "pixels": "rgb8", "rate": 25},
}
LONGEST_S = 20

in_any_case = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@cache
def seed(name: str) -> bytes:
    """Return a small good file; `cut` of one has an edit list."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name.removeprefix("cut "))
        make_video(path, 14, **SEEDS[path.name])
        if path.name != name:
            path = cut_copy(path, Path(folder, name), 0.3)
        return path.read_bytes()


def check(path: Path, asked: list[int]) -> bool:
    """Compare the frames of a file with PyAV's; return whether it was read."""
    started = time.monotonic()
    try:
        video = open_video(path)
        frames = video.read(range(video.num_frames))
    except VideoError as error:
        assert str(path) in str(error)
        return False
    finally:
        assert time.monotonic() - started < LONGEST_S
    np.testing.assert_array_equal(frames, decoded(path), f"of {path}")
    times_s = video.timestamps()
    assert times_s[0] == 0
    assert np.diff(times_s).min() > 0
    assert 0 < video.fps < np.inf
    asked = [index % len(frames) for index in asked]
    for reader in (video, open_video(path)):
        np.testing.assert_array_equal(reader.read(asked), frames[asked])
    np.testing.assert_array_equal(open_video(path).read(asked[:1]), frames[asked[:1]])
    return True


@dataclass(frozen=True)
class Change:
    """Something that happens to a file; places are shares of its length."""

    kind: str
    place: float
    length: float
    number: int
    content: bytes

    def apply(self, data: bytearray) -> None:
        start = round(self.place**3 * len(data))  # most near the beginning, where headers are
        part = bytes(data[start : start + round(self.length**3 * len(data))])
        if self.kind == "overwrite":
            data[start : start + len(self.content)] = self.content
        elif self.kind in ("big", "little"):
            data[start : start + 4] = self.number.to_bytes(4, self.kind)
        elif self.kind == "repeat":
            data[start:start] = part
        elif self.kind == "end":
            del data[max(start, 1) :]
        else:
            del data[start : start + len(part)]
            if self.kind == "move":
                data[len(data) // 2 : len(data) // 2] = part


changes = st.builds(
    Change,
    kind=st.sampled_from(["overwrite", "big", "little", "repeat", "end", "delete", "move"]),
    place=st.floats(0, 1),
    length=st.floats(0, 1),
    number=st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 9999),
    content=st.binary(max_size=16),
)


@in_any_case
@given(
    st.sampled_from([*SEEDS, "cut h264.mp4"]),
    st.lists(changes, min_size=1, max_size=4),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
)
def test_mutated_files(name: str, changes: list[Change], asked: list[int]) -> None:
    data = bytearray(seed(name))
    for change in changes:
        change.apply(data)
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        check(path, asked)


@in_any_case
@given(
    st.sampled_from(["mp4", "mov", "mkv", "ts", "avi"]),
    st.integers(1, 20),
    st.sampled_from(["0", "1", "3"]),
    st.integers(1, 12),
    st.booleans(),
    st.lists(st.integers(1, 9), min_size=30, max_size=30) | st.just([1] * 30),
    st.floats(0, 1),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
)
def test_made_and_cut_files(  # noqa: PLR0913, each is a property of the file
    kind: str,
    count: int,
    b_frames: str,
    keyint: int,
    is_open: bool,
    steps: list[int],
    start_s: float,
    asked: list[int],
) -> None:
    ticks = [1000 * tick for tick in np.cumsum(steps).tolist()] if kind != "avi" else []
    params = f"keyint={keyint}:open-gop={int(is_open)}:scenecut=0:preset=ultrafast"
    options = {"bf": b_frames} | ({} if kind == "avi" else {"x264-params": params})
    codec = "mpeg4" if kind == "avi" else "libx264"
    with TemporaryDirectory() as folder:
        whole = Path(folder, f"whole.{kind}")
        count += 6 * (kind == "ts")  # FFmpeg itself wants some bytes to know the kind
        make_video(whole, count, codec=codec, options=options, ticks=ticks[:count])
        # A single frame is no video for a reward model.
        assert check(whole, asked) == (count > 1)
        try:
            cut = cut_copy(whole, Path(folder, "cut.mp4"), start_s)
        except av.FFmpegError:
            return  # nothing to cut
        check(cut, asked)
