"""No file holds up a worker or fills its memory, and every refusal names it."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.video_files import make_video
from videorl.data.video_io import read_video
from videorl.errors import ConfigError, VideoError
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.rewards.scoring import score_each
from videorl.rewards.videos import open_video
from videorl.types import Score
from videorl.videos import deadline
from videorl.videos.containers import OpenContainer
from videorl.videos.deadline import Deadline
from videorl.videos.files import VideoFile
from videorl.videos.limits import VideoLimits, limits_of_environment

PROMPT = "a large red circle moving left"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4")


def test_work_that_never_ends_is_left_behind(clip: Path) -> None:
    limit = Deadline(clip, 0.2)
    started = time.monotonic()
    with pytest.raises(VideoError, match=r"clip\.mp4: given up after 0\.2 s"):
        limit.call(lambda: time.sleep(60))
    assert time.monotonic() - started < 30
    with pytest.raises(VideoError, match="given up after"):
        limit.call(lambda: 1)


def test_the_time_of_all_reads_counts_but_not_the_time_between(clip: Path) -> None:
    limit = Deadline(clip, 1.5)
    assert limit.call(lambda: time.sleep(0.1) or 7) == 7
    time.sleep(1.6)
    assert limit.call(lambda: 8) == 8
    with pytest.raises(VideoError, match="given up"):
        limit.call(lambda: time.sleep(1.45) or limit.check())


def test_errors_of_the_work_are_passed_on(clip: Path) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        Deadline(clip, 5).call(fail)


def slow_packets(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every packet of a file called `slow…` take a while."""
    packets = OpenContainer.packets

    def slow(self: OpenContainer):
        for packet in packets(self):
            if Path(self.name).name.startswith("slow"):
                time.sleep(seconds)
                self.deadline.check()
            yield packet

    monkeypatch.setattr(OpenContainer, "packets", slow)


def test_a_slow_file_costs_the_others_of_its_batch_nothing(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = make_video(tmp_path / "slow.mp4")
    slow_packets(monkeypatch, 2.0)
    monkeypatch.setenv("VIDEORL_VIDEO_DEADLINE_S", "10")
    model, batch = MovingShapesReward(), [clip, slow, clip, clip]
    model.score([clip], [PROMPT])
    started = time.monotonic()
    results = score_each(model, batch, [PROMPT] * len(batch))
    # Halves of the batch are tried again, but the file is not waited for again.
    assert time.monotonic() - started < 20
    assert [isinstance(result, Score) for result in results] == [True, False, True, True]
    assert "slow.mp4: given up after 10 s" in str(results[1])
    assert "VIDEORL_VIDEO_DEADLINE_S" in str(results[1])


def test_a_file_that_changed_or_has_more_time_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = make_video(tmp_path / "slow.mp4")
    with monkeypatch.context() as patched:
        slow_packets(patched, 0.1)
        with pytest.raises(VideoError, match="given up"):
            VideoFile(slow, VideoLimits(deadline_s=1.5))
    with pytest.raises(VideoError, match="given up"):
        VideoFile(slow, VideoLimits(deadline_s=1.5))
    assert VideoFile(slow, VideoLimits(deadline_s=30)).timeline.num_frames == 24
    os.utime(slow, ns=(0, 0))
    assert VideoFile(slow, VideoLimits(deadline_s=1.5)).timeline.num_frames == 24


def test_a_stuck_decoder_ends_with_the_name_of_its_file(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get_batch` of decord did this: nothing but another process could end it."""
    video = VideoFile(clip, VideoLimits(deadline_s=1.5))
    monkeypatch.setattr(video._gatherer, "_picture", lambda index: time.sleep(60))
    monkeypatch.setattr(deadline, "_GRACE_S", 0.1)
    with pytest.raises(VideoError, match=r"clip\.mp4: given up after 1\.5 s"):
        video.read([0])


def test_only_wanted_frames_are_kept(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long.mp4", 1500, options={"preset": "ultrafast"})
    wanted = [3, 700, 1499, 700]
    tracemalloc.start()
    video = open_video(path)
    frames = video.read(wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6, "all frames are 13.8 MB"
    np.testing.assert_array_equal(frames, video.read(range(1500))[wanted])


def test_long_and_large_videos_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "long.mp4", 60)
    with monkeypatch.context() as patched:
        patched.setenv("VIDEORL_VIDEO_MAX_FRAMES", "59")
        with pytest.raises(VideoError, match=r"long\.mp4: shows more than 59 frames.*MAX_FRAMES"):
            open_video(path)
    with monkeypatch.context() as patched:
        patched.setenv("VIDEORL_VIDEO_MAX_MIB", "0.5")
        assert open_video(path).read([0, 30]).shape[0] == 2
        with pytest.raises(VideoError, match=r"long\.mp4: 60 frames of 64×48 pixels are 1 MiB"):
            read_video(path)
    apart = make_video(tmp_path / "apart.mp4", 2, ticks=[0, 40_000 * 24_000])
    with pytest.raises(VideoError, match=r"apart\.mp4: lasts 40000 s, at most 36000 s"):
        open_video(apart)


def test_moving_shapes_measures_no_more_than_its_memory_holds(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MovingShapesReward().score([clip] * 3, [PROMPT] * 3)
    monkeypatch.setattr("videorl.rewards.moving_shapes.MAX_PIXELS", 24 * 48 * 64)
    one_by_one = MovingShapesReward().score([clip] * 3, [PROMPT] * 3)
    for split, together in zip(one_by_one, whole, strict=True):
        assert split.dimensions == pytest.approx(together.dimensions, abs=1e-6)
    monkeypatch.setattr("videorl.rewards.moving_shapes.MAX_PIXELS", 24 * 48 * 64 - 1)
    with pytest.raises(VideoError, match=r"clip\.mp4: 24 frames of 64×48 pixels are too many"):
        MovingShapesReward().score([clip], [PROMPT])


@pytest.mark.parametrize("text", ["0", "-1", "nan", "much"])
def test_a_limit_that_is_no_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEORL_VIDEO_MAX_MIB", text)
    with pytest.raises(ConfigError, match=f"VIDEORL_VIDEO_MAX_MIB must be a number .*{text}"):
        limits_of_environment()
    monkeypatch.setenv("VIDEORL_VIDEO_MAX_MIB", " ")
    assert limits_of_environment() == VideoLimits()
