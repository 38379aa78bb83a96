"""How different the videos of one prompt are: a policy that always makes the same has collapsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from videorl.types import Video

DIVERSITY = "diversity"
GRID = 8
"""Pixels a side that a frame is averaged down to: composition and colour, not texture."""


def measured(
    unseen: Callable[[Video], Mapping[str, float]], videos: Sequence[Video]
) -> list[Mapping[str, float]]:
    """Return what no reward sees of each video of one prompt, its `diversity` too.

    That is its mean distance to the others; there is none where there are no others of its size.
    """
    rows: list[Mapping[str, float]] = [unseen(video) for video in videos]
    if len(videos) < 2 or len({video.frames.shape for video in videos}) > 1:
        return rows
    distances = mean_distances(np.stack([coarse(video) for video in videos]))
    return [{**row, DIVERSITY: float(far)} for row, far in zip(rows, distances, strict=True)]


def coarse(video: Video) -> npt.NDArray[np.float64]:
    """Return the mean colours in [0, 1] of `GRID` × `GRID` cells of each frame, flat."""
    cells = video.frames
    for axis in (1, 2):
        size = cells.shape[axis]
        parts = np.array_split(np.arange(size), min(GRID, size))
        # Cell by cell, and averaged straight from the bytes: a clip in float64 is eight times as
        # large.
        found = [_part(cells, part, axis).mean(axis, dtype=np.float64) for part in parts]
        cells = np.stack(found, axis)
    return (cells / 255.0).ravel()


def _part(frames: npt.NDArray[Any], indices: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Return the neighbouring rows or columns of frames, without a copy."""
    chosen = slice(int(indices[0]), int(indices[-1]) + 1)
    return frames[:, chosen] if axis == 1 else frames[:, :, chosen]


def mean_distances(points_ND: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean root mean square difference of each point to the others, [N >= 2]."""
    squares = np.square(points_ND[:, None] - points_ND[None]).mean(axis=2)
    return np.sqrt(squares).sum(axis=1) / (len(points_ND) - 1)
