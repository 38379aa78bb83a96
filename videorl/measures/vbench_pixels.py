"""What VBench's networks read of a frame, as its torchvision transforms make it of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dino_pixels(frames_FHW3: Pixels, side_px: int) -> Tensor:
    """Return pixels [F, 3, h, w] with a short side of `side_px`: bilinear, not antialiased."""
    return _normalised(_resized(frames_FHW3, side_px, "bilinear"), *_IMAGENET)


def clip_pixels(frames_FHW3: Pixels, side_px: int) -> Tensor:
    """Return pixels [F, 3, side, side]: bicubic, not antialiased, the middle square."""
    resized_F3HW = _resized(frames_FHW3, side_px, "bicubic")
    # torchvision's CenterCrop: half of the margin, ties to even.
    top, left = (round((size - side_px) / 2.0) for size in resized_F3HW.shape[2:])
    cut = resized_F3HW[:, :, top : top + side_px, left : left + side_px]
    return _normalised(cut, *_CLIP)


def _resized(frames_FHW3: Pixels, side_px: int, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """Return [F, 3, h, w] in bytes, as floats that are neither rounded nor clamped.

    `vbench.utils.load_video` makes floats of the bytes before they are resized, so that torchvision
    does not round, nor clamp what bicubic interpolation overshoots.
    """
    import torch
    from torch.nn.functional import interpolate

    frames = torch.from_numpy(np.ascontiguousarray(frames_FHW3)).permute(0, 3, 1, 2).float()
    height, width = frames.shape[2:]
    short, long = min(height, width), max(height, width)
    other = int(side_px * long / short)
    size = (side_px, other) if height <= width else (other, side_px)
    if size == (height, width):
        return frames
    return interpolate(frames, size, mode=mode, align_corners=False, antialias=False)


def _normalised(
    frames_F3HW: Tensor,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
) -> Tensor:
    import torch

    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, deviation))
    return (frames_F3HW / 255.0 - shift) / scale
