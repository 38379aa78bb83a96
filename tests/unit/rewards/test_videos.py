"""What counts as a video: files and frames that cannot be scored are refused with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reward_cases import FIXTURES
from videorl.errors import PromptError, VideoError
from videorl.rewards.videos import check_prompts, open_video, open_videos
from videorl.types import Video

CLIP = FIXTURES / "video_reward/vr_pub_1.mp4"
GREY_LEVELS = np.arange(3 * 4 * 6 * 3, dtype=np.uint8).reshape(3, 4, 6, 3)


def test_frames_are_decoded_on_demand_from_files_and_from_memory() -> None:
    file = open_video(CLIP)
    assert (file.name, file.num_frames, file.fps) == (str(CLIP), 24, 8.0)
    assert file.read([5, 0, 5]).shape == (3, 64, 96, 3)
    assert (file.read([5])[0] == file.read([0, 5])[1]).all()
    memory = open_video(Video(GREY_LEVELS, 8))
    assert (memory.read([2, 0]) == GREY_LEVELS[[2, 0]]).all()


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.9, 0.999])
def test_truncated_files_are_refused_by_name(tmp_path: Path, kept: float) -> None:
    content = CLIP.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(VideoError, match=r"cut\.mp4.*damaged or truncated"):
        open_video(cut)


def test_files_damaged_in_the_middle_are_refused_where_it_shows(tmp_path: Path) -> None:
    content = bytearray(CLIP.read_bytes())
    content[6000:12000] = np.random.default_rng(0).bytes(6000)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        open_video(tmp_path / "bad.mp4").read(range(24))


def test_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match=f"{tmp_path}: is a folder without pictures"):
        open_video(tmp_path)


@pytest.mark.parametrize(
    ("frames", "fps", "reason"),
    [
        (np.zeros((3, 8, 8), np.uint8), 8, "grayscale"),
        (np.zeros((3, 8, 8, 1), np.uint8), 8, "grayscale"),
        (np.zeros((3, 8, 8, 4), np.uint8), 8, "RGBA"),
        (np.zeros((3, 8, 8, 3), np.float32), 8, "float32"),
        ([[1, 2], [3, 4]], 8, "list"),
        (np.zeros((0, 8, 8, 3), np.uint8), 8, r"holds 0 frame"),
        (np.zeros((1, 8, 8, 3), np.uint8), 8, r"holds 1 frame"),
        (np.zeros((3, 8, 8, 3), np.uint8), 0, "fps > 0, got 0"),
        (np.zeros((3, 8, 8, 3), np.uint8), -1, "fps > 0, got -1"),
        (np.zeros((3, 8, 8, 3), np.uint8), float("nan"), "got nan"),
        (np.zeros((3, 8, 8, 3), np.uint8), float("inf"), "got inf"),
        (np.zeros((3, 8, 8, 3), np.uint8), None, "fps as a number, got None"),
        (np.array(7, np.uint8), 8, r"\[F, H, W, 3\], got \[\]"),
        (np.zeros((3, 1, 1, 3), np.uint8), 8, "1×1 pixels"),
        (np.zeros((3, 0, 8, 3), np.uint8), 8, "8×0 pixels"),
    ],
)
def test_frames_that_no_model_can_score_are_refused(
    frames: np.ndarray, fps: Any, reason: str
) -> None:
    good = Video(GREY_LEVELS, 8)
    with pytest.raises(VideoError, match=f"video 1 of 2.*{reason}"):
        open_videos([good, Video(frames, fps)], ["a", "b"])[1].read([0])


def test_other_things_are_not_videos() -> None:
    with pytest.raises(VideoError, match="expected a path or a Video, got ndarray"):
        open_video(GREY_LEVELS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(VideoError, match="got 1 videos for 2 prompts"):
        open_videos([CLIP], ["a", "b"])


def test_prompts_may_not_be_empty_or_hold_reserved_tokens() -> None:
    check_prompts(["a cat", "<im age>"], ["<s>"])
    with pytest.raises(PromptError, match="prompt 1 of 2 is empty"):
        check_prompts(["a cat", " \n"], [])
    for token in ("<s>", "<image>", "<|VQ_reward|>"):
        with pytest.raises(PromptError, match="prompt 0 of 1 contains " + re.escape(repr(token))):
            check_prompts([f"a {token} of a cat"], ["<s>"])
    with pytest.raises(PromptError, match="prompt 0 of 1 is a NoneType, expected text"):
        check_prompts([None], [])  # pyright: ignore[reportArgumentType]
