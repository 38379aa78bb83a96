"""Metrics that no reward uses: if they break while the reward rises, the reward was hacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError, VideoError
from videorl.settings.plugins import find
from videorl.types import Video

Array: TypeAlias = npt.NDArray[np.float64]

UNSEEN_METRICS = (
    "dynamic_degree",
    "colour_entropy",
    "edge_density",
    "sharpness",
    "dark_pixel_share",
)

EDGE_LEVEL = 0.1
"""Luminance step between neighbouring pixels, in [0, 1], that counts as an edge."""
DARK_LEVEL = 0.1
"""Luminance in [0, 1] below which a pixel counts as dark."""
COLOUR_LEVELS = 4
"""Levels per channel of the colour histogram (64 bins)."""

_LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601 weights of red, green and blue."""


def unseen_metrics(video: Video) -> dict[str, float]:
    """Measure a video of any size; every value is finite.

    Returns:
        `dynamic_degree`: share of the light that moves within half a clip, in [0, 1].
        `colour_entropy`: entropy in bits of the colour histogram, in [0, 6].
        `edge_density`: share of neighbouring pixel pairs that form an edge, in [0, 1].
        `sharpness`: variance of the Laplacian of the luminance, in units of luminance² (>= 0).
        `dark_pixel_share`: share of the pixels that are dark, in [0, 1].

    Raises:
        VideoError: the frames are not a non-empty [F, H, W, 3].
    """
    shape = video.frames.shape
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise VideoError(f"expected frames [F, H, W, 3], got {shape}")
    luma_FHW = luma(video.frames)
    return {
        "dynamic_degree": dynamic_degree(luma_FHW),
        "colour_entropy": colour_entropy(video.frames),
        "edge_density": edge_density(luma_FHW),
        "sharpness": sharpness(luma_FHW),
        "dark_pixel_share": float((luma_FHW < DARK_LEVEL).mean()),
    }


def luma(frames_FHW3: npt.NDArray[np.uint8]) -> Array:
    """Return the luminance [F, H, W] of frames, in [0, 1]."""
    return frames_FHW3.astype(np.float64) @ _LUMA / 255.0


def dynamic_degree(luma_FHW: Array) -> float:
    """Total-variation distance between the distributions of light in frames half a clip apart.

    Each frame is first scaled to the same total light, so that flicker does not count as motion.
    Between frames half a clip apart, trembling around the path hardly counts either. 0 for a
    single frame, or where nothing moves.
    """
    lag = (len(luma_FHW) - 1) // 2
    if lag == 0:
        return 0.0
    light_F = luma_FHW.sum(axis=(1, 2), keepdims=True)
    share_FHW = luma_FHW / np.maximum(light_F, 1e-9)
    moved = np.abs(share_FHW[lag:] - share_FHW[:-lag]).sum(axis=(1, 2)) / 2.0
    return float(moved.mean())


def colour_entropy(frames_FHW3: npt.NDArray[np.uint8]) -> float:
    """Entropy in bits of the joint RGB histogram over the whole clip; 0 for a single colour."""
    levels = frames_FHW3.astype(np.int64) * COLOUR_LEVELS // 256
    bins = (levels[..., 0] * COLOUR_LEVELS + levels[..., 1]) * COLOUR_LEVELS + levels[..., 2]
    share = np.bincount(bins.ravel(), minlength=COLOUR_LEVELS**3) / bins.size
    share = share[share > 0]
    return float(max(0.0, -(share * np.log2(share)).sum()))


def edge_density(luma_FHW: Array) -> float:
    """Share of horizontally or vertically neighbouring pixels whose luminance differs clearly."""
    across = np.abs(np.diff(luma_FHW, axis=2)) > EDGE_LEVEL
    down = np.abs(np.diff(luma_FHW, axis=1)) > EDGE_LEVEL
    pairs = across.size + down.size
    return float((across.sum() + down.sum()) / pairs) if pairs else 0.0


def sharpness(luma_FHW: Array) -> float:
    """Variance of the 4-neighbour Laplacian; 0 for frames under 3 pixels wide or high."""
    if min(luma_FHW.shape[1:]) < 3:
        return 0.0
    inner = luma_FHW[:, 1:-1, 1:-1]
    around = (
        luma_FHW[:, :-2, 1:-1]
        + luma_FHW[:, 2:, 1:-1]
        + luma_FHW[:, 1:-1, :-2]
        + luma_FHW[:, 1:-1, 2:]
    )
    return float((around - 4.0 * inner).var())


@dataclass(frozen=True, slots=True)
class UnseenMetrics:
    """`unseen_metrics` and functions of the user's own; can be pickled."""

    own: tuple[str, ...] = ()
    """`module:function`s of a `Video` that return name -> finite number."""

    def __call__(self, video: Video) -> dict[str, float]:
        """Measure a video.

        Raises:
            VideoError: As `unseen_metrics`.
            ConfigError: A function of the user's own failed, or returned something else.
        """
        measured = unseen_metrics(video)
        for name in self.own:
            try:
                found = find(name, {}, "metrics.unseen")(video)
            except ConfigError:
                raise
            except Exception as error:  # whatever the user's function raises ends the run
                raise ConfigError(
                    f"metrics.unseen={name} failed on a video of shape {video.frames.shape} "
                    f"({type(error).__name__}: {error})"
                ) from error
            own = _checked(name, found)
            if taken := sorted(measured.keys() & own.keys()):
                raise ConfigError(
                    f"metrics.unseen={name} returned {', '.join(taken)}, which another metric has "
                    "already measured; give yours another name"
                )
            measured |= own
        return measured


def _checked(name: str, found: object) -> dict[str, float]:
    is_right = isinstance(found, Mapping) and all(
        isinstance(value, int | float) and np.isfinite(value) for value in found.values()
    )
    if not is_right:
        raise ConfigError(
            f"metrics.unseen={name} must return a mapping of names to finite numbers, got {found!r}"
        )
    assert isinstance(found, Mapping)
    return {str(key): float(value) for key, value in found.items()}
