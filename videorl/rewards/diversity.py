"""How different the videos of one prompt are: a policy that always makes the same has collapsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    frames = video.frames.astype(np.float64) / 255.0
    for axis in (1, 2):
        cells = np.array_split(np.arange(frames.shape[axis]), min(GRID, frames.shape[axis]))
        frames = np.stack([frames.take(cell, axis).mean(axis) for cell in cells], axis)
    return frames.ravel()


def mean_distances(points_ND: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean root mean square difference of each point to the others, [N >= 2]."""
    squares = np.square(points_ND[:, None] - points_ND[None]).mean(axis=2)
    return np.sqrt(squares).sum(axis=1) / (len(points_ND) - 1)
