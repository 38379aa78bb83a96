"""VBench's temporal flickering (arXiv 2311.17982, section 3.1), which needs no model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from videorl.errors import VideoError


def temporal_flickering(parts: Iterator[npt.NDArray[np.uint8]]) -> float:
    """Return (255 − mean absolute difference of consecutive frames) / 255, in [0, 1].

    As `temporal_flickering.py` of vbench 0.1.5 computes it for one video: absolute differences of
    bytes, averaged over pixels and channels, then over the pairs of consecutive frames. VBench
    looks at videos of still scenes only, which are to be chosen by the prompts; nothing is chosen
    here. A still picture scores 1.

    Args:
        parts: The frames, RGB uint8 [F, H, W, 3], in order and in parts of any F > 0.

    Raises:
        VideoError: There are fewer than two frames.
    """
    before: npt.NDArray[np.uint8] | None = None
    differences: list[float] = []
    for part_FHW3 in parts:
        for frame_HW3 in part_FHW3:
            if before is not None:
                difference = np.abs(frame_HW3.astype(np.int16) - before)
                differences.append(float(difference.mean(dtype=np.float64)))
            before = frame_HW3
    if not differences:
        raise VideoError("temporal flickering needs two frames or more")
    return (255.0 - float(np.mean(differences))) / 255.0
