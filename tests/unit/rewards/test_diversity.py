"""How different the videos of one prompt are, against distances worked out by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from videorl.rewards.diversity import DIVERSITY, coarse, mean_distances, measured
from videorl.types import Video


def grey(level: int, frames: int = 3, size: int = 16) -> Video:
    return Video(np.full((frames, size, size, 3), level, np.uint8), 8.0)


def test_distances_are_root_mean_squares() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    far = 12.5**0.5  # (9 + 16) / 2
    assert mean_distances(points) == pytest.approx([far / 2, far, far / 2])


def test_each_video_has_its_mean_distance_to_the_others() -> None:
    rows = measured(lambda video: {"n": 1.0}, [grey(0), grey(255), grey(0)])
    assert [row[DIVERSITY] for row in rows] == pytest.approx([0.5, 1.0, 0.5])
    assert all(row["n"] == 1.0 for row in rows)


def test_alone_or_of_other_sizes_there_is_none() -> None:
    assert measured(lambda video: {}, [grey(0)]) == [{}]
    assert measured(lambda video: {}, [grey(0), grey(0, frames=4)]) == [{}, {}]
    assert measured(lambda video: {}, []) == []


def test_frames_are_averaged_down() -> None:
    video = grey(0, size=20)
    video.frames[:, :, 10:] = 255
    cells = coarse(video).reshape(3, 8, 8, 3)
    # 20 pixels are cells of 3, 3, 3, 3, 2, 2, 2, 2: the first 9 are black, then one of three.
    assert cells[0, 0, :, 0] == pytest.approx([0, 0, 0, 2 / 3, 1, 1, 1, 1])
    assert len(coarse(grey(0, size=4))) == 3 * 4 * 4 * 3


def test_it_takes_a_fraction_of_the_memory_of_a_clip() -> None:
    """Every scored video is measured, also real ones of 100 MB: eight times that is too much."""
    video = Video(np.zeros((8, 512, 512, 3), np.uint8), 8.0)
    tracemalloc.start()
    coarse(video)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < video.frames.nbytes
