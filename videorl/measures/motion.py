"""How far things move from frame to frame, by dense optical flow; needs no weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError, VideoError

_SMALLEST_PX = 16
"""OpenCV's search needs sides of at least a patch and a half or so."""


def motion_magnitude(parts: Iterator[npt.NDArray[np.uint8]]) -> float:
    """Return the mean length of the optical flow between consecutive frames, in pixels per frame.

    Dense inverse search (Kroeger et al., arXiv 1603.03590) as OpenCV has it, preset medium, on
    grey frames. Longer clips and higher rates move less per frame: compare clips of one shape.

    Args:
        parts: The frames, RGB uint8 [F, H, W, 3], in order and in parts of any F > 0.

    Raises:
        VideoError: There are fewer than two frames, or they are smaller than 16 pixels.
        ConfigError: OpenCV is not installed.
    """
    check_opencv()
    import cv2

    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: npt.NDArray[np.uint8] | None = None
    lengths: list[float] = []
    for part_FHW3 in parts:
        for frame_HW3 in part_FHW3:
            if min(frame_HW3.shape[:2]) < _SMALLEST_PX:
                raise VideoError(f"optical flow needs sides of {_SMALLEST_PX} pixels or more")
            grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(frame_HW3), cv2.COLOR_RGB2GRAY))
            if before is not None:
                found_HW2: Any = flow.calc(before, grey, None)
                lengths.append(float(np.linalg.norm(found_HW2, axis=-1).mean(dtype=np.float64)))
            before = grey.astype(np.uint8)
    if not lengths:
        raise VideoError("motion magnitude needs two frames or more")
    return float(np.mean(lengths))


def check_opencv() -> None:
    """See that OpenCV is there.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("cv2") is None:
        raise ConfigError(
            "motion magnitude needs OpenCV, which is not installed: pip install 'videorl[measure]'"
        )
