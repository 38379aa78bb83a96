"""Videos and prompts as every reward model accepts them, with their checks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from videorl.errors import PromptError, VideoError
from videorl.types import Video
from videorl.videos.opening import open_frames

VideoSource: TypeAlias = str | os.PathLike[str] | Video
"""A file or a folder of pictures, or decoded frames with their frame rate."""

MIN_FRAMES = 2
"""A single frame shows no motion; VideoReward's own code refuses it as well."""
MIN_SIDE_PX = 2
"""There is no picture in a single row or column of pixels."""
MAX_ASPECT = 200
"""Limit of `check_aspect`."""
PLACEHOLDERS = ("<image>", "<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
"""Tokens in the templates of any model: all models refuse them, so that they agree."""


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A checked video whose frames are decoded when they are read."""

    name: str
    """The path, or the position in the batch; used in errors."""
    num_frames: int
    fps: float
    """Average frames per second (> 0, finite)."""
    decode: Callable[[list[int]], npt.NDArray[np.uint8]]
    timestamps: Callable[[], npt.NDArray[np.float32]]
    """Returns the seconds [F] at which frames are shown, from 0; in a file they may be uneven."""

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based, repeats allowed) as RGB uint8 [F, H, W, 3].

        Raises:
            VideoError: The file is damaged there, the time is up, or the frames are a single pixel
                wide or high.
        """
        frames_FHW3 = self.decode([int(index) for index in indices])
        height, width = frames_FHW3.shape[1:3]
        if min(height, width) < MIN_SIDE_PX:
            raise VideoError(
                f"{self.name}: frames are {width}×{height} pixels, "
                f"at least {MIN_SIDE_PX}×{MIN_SIDE_PX} are needed"
            )
        return frames_FHW3


def open_videos(videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[OpenVideo]:
    """Open every video of a batch; there must be as many `prompts`.

    Raises:
        VideoError: The numbers differ, or a video cannot be scored (see `open_video`).
    """
    if len(videos) != len(prompts):
        raise VideoError(f"got {len(videos)} videos for {len(prompts)} prompts")
    return [
        open_video(video, f"video {index} of {len(videos)}") for index, video in enumerate(videos)
    ]


def open_video(video: VideoSource, name: str = "video") -> OpenVideo:
    """Check a video and make its frames readable; `name` names a video given in memory.

    What a file or a folder of pictures shows is decided by `videorl.videos`, for all models alike.

    Raises:
        VideoError: The file is missing, damaged or truncated, or costs more than
            `videorl.videos.limits` allow; the frames are not RGB uint8; there are fewer than two;
            or the frame rate is not a finite number above 0.
    """
    if isinstance(video, Video):
        opened = _in_memory(video, name)
    elif isinstance(video, str | os.PathLike):
        opened = _from_file(Path(video))
    else:
        raise VideoError(f"{name}: expected a path or a Video, got {type(video).__name__}")
    if not (math.isfinite(opened.fps) and opened.fps > 0):
        raise VideoError(f"{opened.name}: expected a finite fps > 0, got {opened.fps}")
    if opened.num_frames < MIN_FRAMES:
        raise VideoError(
            f"{opened.name}: holds {opened.num_frames} frame(s), at least {MIN_FRAMES} are needed"
        )
    return opened


def check_aspect(name: str, height: int, width: int) -> None:
    """Check that frames are not too long and narrow; `name` is that of the video.

    Models that resize frames by their short side would need memory without bound.

    Raises:
        VideoError: One side is more than `MAX_ASPECT` times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoError(
            f"{name}: frames are {width}×{height} pixels, one side may be at most {MAX_ASPECT} "
            "times the other"
        )


def check_prompts(prompts: Sequence[str], reserved: Sequence[str]) -> None:
    """Check that prompts are text without tokens that have a meaning in the model's template.

    Args:
        prompts: The texts of one batch.
        reserved: Tokens to refuse besides `PLACEHOLDERS`.

    Raises:
        PromptError: A prompt is not text, is blank, or contains a reserved token.
    """
    for index, prompt in enumerate(prompts):
        name = f"prompt {index} of {len(prompts)}"
        if not isinstance(prompt, str):
            raise PromptError(f"{name} is a {type(prompt).__name__}, expected text")
        if not prompt.strip():
            raise PromptError(f"{name} is empty")
        for token in (*PLACEHOLDERS, *reserved):
            if token in prompt:
                raise PromptError(
                    f"{name} contains {token!r}, which is reserved for the templates of reward "
                    f"models; remove it: {prompt[:80]!r}"
                )


def _in_memory(video: Video, name: str) -> OpenVideo:
    frames = video.frames
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = getattr(frames, "dtype", None) or type(frames).__name__
        raise VideoError(f"{name}: expected frames as a uint8 NumPy array, got {got}")
    if frames.ndim != 4 or frames.shape[3] != 3:
        is_grey = frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 1)
        is_rgba = frames.ndim == 4 and frames.shape[3] == 4
        kind = " (grayscale)" if is_grey else " (RGBA)" if is_rgba else ""
        raise VideoError(
            f"{name}: expected RGB frames [F, H, W, 3], got {list(frames.shape)}{kind}; "
            "convert them to RGB first"
        )
    if isinstance(video.fps, bool) or not isinstance(video.fps, int | float | np.number):
        raise VideoError(f"{name}: expected fps as a number, got {video.fps!r}")
    count, fps = len(frames), float(video.fps)

    def timestamps() -> npt.NDArray[np.float32]:
        return (np.arange(count) / fps).astype(np.float32)

    return OpenVideo(name, count, fps, lambda indices: frames[indices], timestamps)


def _from_file(path: Path) -> OpenVideo:
    frames = open_frames(path)
    timeline = frames.timeline
    return OpenVideo(
        str(path),
        timeline.num_frames,
        timeline.fps,
        frames.read,
        lambda: timeline.times_s.astype(np.float32),
    )
