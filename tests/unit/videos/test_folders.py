"""Folders of pictures are videos if their rate is known; what is wrong with them is named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video_files import make_video, moving_pattern
from videorl.data.clips import find_clips
from videorl.data.video_io import read_video
from videorl.errors import VideoError
from videorl.rewards.videos import open_video

FRAMES = moving_pattern(12)


def save_pictures(folder: Path, names: str = "{}.png", rate: str | None = "24\n") -> Path:
    folder.mkdir(parents=True)
    for place, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / names.format(place))
    if rate is not None:
        (folder / "fps.txt").write_text(rate)
    return folder


@pytest.mark.parametrize("names", ["{}.png", "frame_{:05d}.PNG", "take2-{}.bmp"])
def test_pictures_are_frames_in_the_order_of_their_numbers(names: str, tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "clip", names)
    video = open_video(folder)
    assert (video.name, video.num_frames, video.fps) == (str(folder), 12, 24)
    np.testing.assert_allclose(video.timestamps(), np.arange(12) / 24, atol=1e-6)
    np.testing.assert_array_equal(video.read([10, 2, 2]), FRAMES[[10, 2, 2]])
    np.testing.assert_array_equal(read_video(folder).frames, FRAMES)


@pytest.mark.parametrize(
    ("rate", "fps"), [("23.976", 23.976), ("30000/1001", 30000 / 1001), ("\ufeff8", 8)]
)
def test_rates_as_people_write_them(rate: str, fps: float, tmp_path: Path) -> None:
    assert open_video(save_pictures(tmp_path / "clip", rate=rate)).fps == fps


@pytest.mark.parametrize("rate", ["", "fast", "0", "-3", "1/0", "inf", "nan", "24 25"])
def test_a_rate_that_is_none_is_named(rate: str, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"fps\.txt: expected frames per second"):
        open_video(save_pictures(tmp_path / "clip", rate=rate))


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"a: is a folder of 12 pictures without a rate; write"):
        open_video(save_pictures(tmp_path / "a", rate=None))
    gap = save_pictures(tmp_path / "b")
    (gap / "5.png").unlink()
    with pytest.raises(VideoError, match=r"b: .*not numbered evenly: after 4\.png .* 2 further"):
        open_video(gap)
    damaged = save_pictures(tmp_path / "c")
    content = (damaged / "5.png").read_bytes()
    (damaged / "5.png").write_bytes(content[: len(content) // 2])
    assert len(open_video(damaged).read([4, 6])) == 2
    with pytest.raises(VideoError, match=r"5\.png: cannot be decoded"):
        read_video(damaged)
    mixed = save_pictures(tmp_path / "d")
    Image.fromarray(FRAMES[5][:40]).save(mixed / "5.png")
    with pytest.raises(VideoError, match=r"d: frame 5 has 64×40 pixels, others have 64×48"):
        read_video(mixed)
    deep = save_pictures(tmp_path / "e")
    Image.fromarray(FRAMES[5][..., 0].astype(np.uint16) * 256).save(deep / "5.png")
    with pytest.raises(VideoError, match=r"5\.png: has more than 8 bits per channel"):
        read_video(deep)


def test_every_second_frame_and_other_modes_are_fine(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "clip")
    for place in range(1, 12, 2):
        (folder / f"{place}.png").unlink()
    Image.fromarray(FRAMES[0]).convert("L").save(folder / "0.png")
    Image.fromarray(FRAMES[2]).convert("RGBA").save(folder / "2.png")
    frames = read_video(folder).frames
    assert frames.shape == (6, 48, 64, 3)
    np.testing.assert_array_equal(frames[1:], FRAMES[2::2])


def test_folders_and_misnamed_files_are_found_with_their_prompts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_pictures(tmp_path / "in/take.2")
    (tmp_path / "in/take.2.txt").write_text("a ball")
    save_pictures(tmp_path / "without rate", rate=None)
    make_video(tmp_path / "clip.mp4").rename(tmp_path / "clip.data")
    (tmp_path / "clip.txt").write_text("a cube")
    make_video(tmp_path / "loop.gif", codec="gif", pixels="rgb8")
    with caplog.at_level(logging.WARNING):
        found = find_clips(tmp_path)
    assert found.keys == (("clip.data", "a cube"), ("in/take.2", "a ball"), ("loop.gif", ""))
    assert "1 folders hold pictures" in caplog.text
    assert "without rate" in caplog.text
    assert find_clips(tmp_path / "in/take.2").keys == (("take.2", "a ball"),)
    contents = [clip.content for clip in found.read(found.keys)]
    assert [open_video(str(content)).num_frames for content in contents] == [24, 12, 24]
