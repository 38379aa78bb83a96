"""Length, size and rate of clips: equal in a comparison, or made so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError, VideoError
from videorl.videos.frames import Frames

_FRAMES_AT_ONCE = 16
"""Decoded frames that are in memory together."""
_SAME_RATE = 0.005
"""Rates whose ratio is nearer to 1 are equal: 23.976 and 24."""
_SHOWN = 3

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a clip shows."""

    num_frames: int
    fps: float
    height: int
    width: int

    def __str__(self) -> str:
        """Return it as people say it."""
        return f"{self.num_frames} frames of {self.width}×{self.height} at {self.fps:.4g} fps"

    def equals(self, other: Shape) -> bool:
        """Return whether clips of both can be compared as they are."""
        sizes = (self.num_frames, self.height, self.width)
        same_rate = math.isclose(self.fps, other.fps, rel_tol=_SAME_RATE)
        return sizes == (other.num_frames, other.height, other.width) and same_rate


def shape_of(frames: Frames) -> Shape:
    """Return the shape of a clip, of which one frame is decoded."""
    _, height, width, _ = frames.read([0]).shape
    return Shape(frames.timeline.num_frames, frames.timeline.fps, height, width)


def check_equal(shapes: Mapping[str, Shape]) -> None:
    """Refuse clips that differ; by name.

    Raises:
        ConfigError: They do; the error says how to go on.
    """
    names = list(shapes)
    different = [name for name in names if not shapes[name].equals(shapes[names[0]])]
    if not different:
        return
    listed = "; ".join(f"{name} has {shapes[name]}" for name in different[:_SHOWN])
    raise ConfigError(
        f"{names[0]} has {shapes[names[0]]}, but {len(different)} of {len(names)} clips differ: "
        f"{listed}. Their numbers would differ for that alone. Give clips of one shape, or "
        "--resample, which cuts all to the shortest, smallest and slowest"
    )


def smallest(shapes: Sequence[Shape]) -> Shape:
    """Return what every clip can be cut down to: lowest rate, shortest duration, smallest sides."""
    fps = min(shape.fps for shape in shapes)
    seconds = min(shape.num_frames / shape.fps for shape in shapes)
    return Shape(
        max(math.floor(seconds * fps + 1e-6), 1),
        fps,
        min(shape.height for shape in shapes),
        min(shape.width for shape in shapes),
    )


class View:
    """A clip as a measure sees it: as it is, or cut to a common shape."""

    def __init__(self, frames: Frames, target: Shape | None = None) -> None:
        self._frames, self._target = frames, target
        timeline = frames.timeline
        if target is None:
            self._indices: Sequence[int] = range(timeline.num_frames)
        else:
            ratio = timeline.fps / target.fps
            last = timeline.num_frames - 1
            self._indices = [min(round(n * ratio), last) for n in range(target.num_frames)]

    @property
    def num_frames(self) -> int:
        """How many frames `parts` yields."""
        return len(self._indices)

    @property
    def fps(self) -> float:
        """Average frames per second (> 0)."""
        return self._target.fps if self._target else self._frames.timeline.fps

    def parts(self) -> Iterator[Pixels]:
        """Yield all frames, RGB uint8 [F, H, W, 3], of which few are in memory at a time."""
        for start in range(0, len(self._indices), _FRAMES_AT_ONCE):
            yield self._read(self._indices[start : start + _FRAMES_AT_ONCE])

    def first(self, count: int, step: int = 1) -> Pixels:
        """Return `count` frames from the first on, every `step`-th.

        Raises:
            VideoError: The clip has too few.
        """
        needed = (count - 1) * step + 1
        if len(self._indices) < needed:
            raise VideoError(f"{needed} frames are needed, there are {len(self._indices)}")
        return self._read(self._indices[:needed:step])

    def _read(self, indices: Sequence[int]) -> Pixels:
        found = self._frames.read(indices)
        target = self._target
        if target is None or found.shape[1:3] == (target.height, target.width):
            return found
        return np.stack([_covering(frame, target.height, target.width) for frame in found])


def _covering(frame_HW3: Pixels, height: int, width: int) -> Pixels:
    """Return a frame made smaller until it just covers the size, and cut to its middle."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(frame_HW3))
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))
