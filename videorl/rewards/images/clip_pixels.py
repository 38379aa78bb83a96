"""CLIP's preprocessing of pictures, which differs in details between the authors of rewards.

All of them resize the short side to that of the network (bicubic), cut out the middle square, and
normalise colours with OpenAI's constants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from videorl.rewards.clip_normal import normalised


def torchvision_crop(margin_px: int) -> int:
    """Return what torchvision's CenterCrop cuts off at the top or left: half, ties to even."""
    return round(margin_px / 2)


def transformers_crop(margin_px: int) -> int:
    """Return what transformers' CLIP processor cuts off at the top or left: half, rounded down."""
    return margin_px // 2


def pil_pixels(
    frames_FHW3: npt.NDArray[np.uint8],
    side_px: int,
    crop: Callable[[int], int] = torchvision_crop,
) -> Tensor:
    """Return pixels [F, 3, side, side], resized by PIL: antialiased and rounded to 8 bits."""
    height, width = _resized(frames_FHW3.shape[1], frames_FHW3.shape[2], side_px)
    top, left = crop(height - side_px), crop(width - side_px)
    box = (left, top, left + side_px, top + side_px)
    pictures = [
        np.asarray(
            Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC).crop(box)
        )
        for frame in frames_FHW3
    ]
    return normalised(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0)


def tensor_pixels(
    frames_FHW3: npt.NDArray[np.uint8], side_px: int, *, antialias: bool = True
) -> Tensor:
    """Return pixels [F, 3, side, side], resized as tensors, so neither rounded nor clamped.

    Args:
        frames_FHW3: RGB, 8 bits.
        side_px: Side of the square that is cut out.
        antialias: Whether to antialias when shrinking: torchvision's default for tensors since
            0.17.
    """
    # Frame by frame: a float copy of all would be four times their size. Contiguous planes are
    # resized twice as fast, with the same result.
    pictures = torch.from_numpy(frames_FHW3).permute(0, 3, 1, 2).split(1)
    return torch.cat(
        [
            float_pixels(picture_13HW.contiguous() / 255.0, side_px, antialias=antialias)
            for picture_13HW in pictures
        ]
    )


def float_pixels(
    frames_F3HW: Tensor,
    side_px: int,
    crop: Callable[[int], int] = torchvision_crop,
    *,
    antialias: bool = True,
    is_clamped: bool = False,
) -> Tensor:
    """Return pixels [F, 3, side, side], differentiably.

    Args:
        frames_F3HW: RGB in [0, 1].
        side_px: Side of the square that is cut out.
        crop: Returns how much of a margin is cut off at the top or left.
        antialias: Whether to antialias when shrinking, with the filter of PIL.
        is_clamped: Whether to clamp to [0, 1], as PIL does, where the filter overshoots.
    """
    size = _resized(frames_F3HW.shape[2], frames_F3HW.shape[3], side_px)
    pixels_F3HW = F.interpolate(
        frames_F3HW, size=size, mode="bicubic", align_corners=False, antialias=antialias
    )
    top, left = (crop(side - side_px) for side in size)
    square_F3SS = pixels_F3HW[:, :, top : top + side_px, left : left + side_px]
    return normalised(square_F3SS.clamp(0, 1) if is_clamped else square_F3SS)


def _resized(height: int, width: int, side_px: int) -> tuple[int, int]:
    if width <= height:
        return int(side_px * height / width), side_px
    return side_px, int(side_px * width / height)
