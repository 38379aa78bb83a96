"""Clips cut to a common shape, and means over prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from videorl.errors import ConfigError
from videorl.measures.shapes import Shape, View, check_equal, smallest
from videorl.videos.timeline import Timeline


class Numbered:
    """Frames of one colour each, which is the number of the frame."""

    def __init__(self, count: int, fps: float, height: int, width: int) -> None:
        self.timeline = Timeline(np.arange(count) / fps, fps)
        self._size = (height, width, 3)

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        return np.stack([np.full(self._size, index, np.uint8) for index in indices])


def test_the_smallest_of_all() -> None:
    shapes = [Shape(48, 24.0, 480, 832), Shape(30, 8.0, 512, 512), Shape(61, 30.0, 480, 720)]
    # 2, 3.75 and 2.03 s: two seconds at 8 per second.
    assert smallest(shapes) == Shape(16, 8.0, 480, 512)


def test_a_view_takes_frames_by_time() -> None:
    view = View(Numbered(48, 24.0, 6, 10), Shape(16, 8.0, 4, 4))
    parts = list(view.parts())
    frames = np.concatenate(parts)
    assert frames.shape == (16, 4, 4, 3)
    assert frames[:, 0, 0, 0].tolist() == list(range(0, 48, 3))
    assert view.first(3, 2)[:, 0, 0, 0].tolist() == [0, 6, 12]
    plain = View(Numbered(40, 24.0, 6, 10))
    assert [len(part) for part in plain.parts()] == [16, 16, 8]


def test_a_view_keeps_the_middle() -> None:
    pixels = np.zeros((1, 4, 12, 3), np.uint8)
    pixels[:, :, 4:8] = 200

    class Striped(Numbered):
        def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
            return pixels

    found = View(Striped(1, 8.0, 4, 12), Shape(1, 8.0, 4, 4)).first(1)
    assert (found == 200).all()


def test_rates_that_are_nearly_equal_are_equal() -> None:
    check_equal({"a": Shape(16, 24.0, 4, 4), "b": Shape(16, 24000 / 1001, 4, 4)})
    with pytest.raises(ConfigError, match="b has 16 frames of 4×4 at 25 fps"):
        check_equal({"a": Shape(16, 24.0, 4, 4), "b": Shape(16, 25.0, 4, 4)})
