"""Videos as Qwen2-VL sees them: frames sampled, resized and cut into patches, in torch alone.

The result equals that of VideoAlign's `vision_process.py` with the image processor of transformers
4.45 (github.com/KwaiVGI/VideoAlign, commit 219ab9db), without torchvision or qwen_vl_utils.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from videorl.errors import VideoError
from videorl.rewards.clip_normal import MEAN, STD, normalised
from videorl.rewards.videos import OpenVideo

PATCH_PX = 14
MERGE = 2
"""Patches per side of a square that becomes one token."""
TUBELET = 2
"""Frames per patch."""
SIDE_MULTIPLE_PX = PATCH_PX * MERGE
MIN_PIXELS = 128 * SIDE_MULTIPLE_PX**2
"""Pixels per frame to which smaller frames are enlarged, in every published model."""
MIN_FRAMES, MAX_FRAMES = 4, 768
MAX_ASPECT = 200
_FRAMES_AT_ONCE = 16
"""Frames in memory at their full size; a long video is only kept resized."""


@dataclass(frozen=True, slots=True)
class Patches:
    """A video as the vision tower takes it."""

    pixels: Tensor
    """float32 [T * GH * GW, 3 * 2 * 14 * 14], the patches of each 2×2 block side by side."""
    grid_thw: tuple[int, int, int]
    """T pairs of frames, GH rows and GW columns of patches."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the language model sees."""
        t, rows, columns = self.grid_thw
        return t * rows * columns // MERGE**2


def sample_indices(num_frames: int, video_fps: float, sampled_fps: float) -> list[int]:
    """Return the indices of the frames to look at: an even number of them, evenly spread.

    They are about `sampled_fps` per second, at least 4 and at most 768 where there are enough, and
    include the first and the last frame. Ties are rounded to even, as in the authors' code.
    """
    most = min(MAX_FRAMES, num_frames) // TUBELET * TUBELET
    wanted = min(max(num_frames / video_fps * sampled_fps, MIN_FRAMES), most)
    count = min(round(wanted / TUBELET) * TUBELET, num_frames)
    return torch.linspace(0, num_frames - 1, count).round().long().tolist()


def resized_hw(
    height: int, width: int, max_pixels: int, min_pixels: int = MIN_PIXELS
) -> tuple[int, int]:
    """Return the size in pixels to resize to: multiples of 28, of nearly the same shape.

    Raises:
        VideoError: One side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoError(f"frames of {width}×{height} pixels: one side is over {MAX_ASPECT} times")
    unit = SIDE_MULTIPLE_PX
    new_height = max(unit, round(height / unit) * unit)
    new_width = max(unit, round(width / unit) * unit)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return (
            math.floor(height / shrink / unit) * unit,
            math.floor(width / shrink / unit) * unit,
        )
    if new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
    return new_height, new_width


def read_patches(
    video: OpenVideo, sampled_fps: float, max_pixels: int, min_pixels: int = MIN_PIXELS
) -> Patches:
    """Decode the sampled frames of a video and cut them into patches.

    Raises:
        VideoError: The video is damaged, or its frames have an extreme shape.
    """
    indices = sample_indices(video.num_frames, video.fps, sampled_fps)
    resized: list[Tensor] = []
    for first in range(0, len(indices), _FRAMES_AT_ONCE):
        frames_FHW3 = video.read(indices[first : first + _FRAMES_AT_ONCE])
        _, height, width, _ = frames_FHW3.shape
        try:
            size = resized_hw(height, width, max_pixels, min_pixels)
        except VideoError as error:
            raise VideoError(f"{video.name}: {error}") from error
        resized.append(resize(frames_FHW3, *size))
    return cut(torch.cat(resized))


def resize(frames_FHW3: npt.NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Resize with an antialiased bicubic filter and round to uint8 [F, 3, H, W]."""
    # Frame by frame: a float copy of the whole video would be four times its size. Contiguous
    # planes are resized twice as fast, with the same result.
    planes = torch.from_numpy(frames_FHW3).permute(0, 3, 1, 2).split(1)
    return torch.cat(
        [
            F.interpolate(
                frame_13HW.contiguous().float(),
                (height, width),
                mode="bicubic",
                align_corners=False,
                antialias=True,
            )
            .clamp_(0, 255)
            .round_()
            .to(torch.uint8)
            for frame_13HW in planes
        ]
    )


def read_pixels(
    frames_F3HW: Tensor,
    video_fps: float,
    sampled_fps: float,
    max_pixels: int,
    min_pixels: int = MIN_PIXELS,
) -> Patches:
    """Do the same as `read_patches` for pixels in [0, 1], differentiably and without rounding.

    Raises:
        VideoError: The frames have an extreme shape.
    """
    indices = sample_indices(len(frames_F3HW), video_fps, sampled_fps)
    size = resized_hw(frames_F3HW.shape[2], frames_F3HW.shape[3], max_pixels, min_pixels)
    resized = F.interpolate(
        frames_F3HW[indices].float(), size, mode="bicubic", align_corners=False, antialias=True
    )
    return cut_normal(normalised(resized.clamp(0, 1)))


def cut(frames_F3HW: Tensor) -> Patches:
    """Normalise frames [F, 3, H, W] (uint8, sides multiples of 28) and cut them into patches."""
    count, _, height, width = frames_F3HW.shape
    # There are only 256 levels per channel: a table is faster than arithmetic.
    planes = [
        levels.index_select(0, frames_F3HW[:, channel].int().flatten())
        for channel, levels in enumerate(_normal_levels())
    ]
    return cut_normal(torch.stack([plane.view(count, height, width) for plane in planes], dim=1))


def cut_normal(frames_F3HW: Tensor) -> Patches:
    """Cut normalised frames [F, 3, H, W] into patches; an odd last frame is repeated."""
    if len(frames_F3HW) % TUBELET:
        frames_F3HW = torch.cat([frames_F3HW, frames_F3HW[-1:]])
    count, _, height, width = frames_F3HW.shape
    grid_thw = (count // TUBELET, height // PATCH_PX, width // PATCH_PX)
    t, rows, columns = grid_thw
    blocks = frames_F3HW.reshape(
        t, TUBELET, 3, rows // MERGE, MERGE, PATCH_PX, columns // MERGE, MERGE, PATCH_PX
    )
    patches = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * rows * columns, -1)
    return Patches(patches, grid_thw)


def _normal_levels() -> Tensor:
    """Return the normalised values of the 256 levels of each channel, [3, 256]."""
    # The authors' code scales in float64 and normalises in float32.
    levels = (torch.arange(256, dtype=torch.float64) * (1 / 255)).float()
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (levels - mean[:, None]) / std[:, None]
