"""The frames of something on disk, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from videorl.errors import VideoError
from videorl.videos.limits import MAX_MIB, VideoLimits
from videorl.videos.timeline import Timeline

_MIB = 2**20


class Frames(Protocol):
    """Frames that are decoded when they are asked for."""

    @property
    def timeline(self) -> Timeline:
        """Which frames there are, and when they are shown."""
        ...

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return the frames at `indices` as RGB uint8 [len(indices), H, W, 3].

        Args:
            indices: 0-based and not empty, in any order, repeats allowed. A frame has the same
                pixels however it is asked for.

        Raises:
            VideoError: There is no such frame, the file is damaged there, the time is up, or the
                frames are too large to be held at once.
        """
        ...


def gather(
    name: str,
    indices: Sequence[int],
    num_frames: int,
    picture: Callable[[int], npt.NDArray[np.uint8]],
    limits: VideoLimits,
) -> npt.NDArray[np.uint8]:
    """Read frames in their order, each once, and put them where they are wanted.

    Args:
        name: The file's path; used in errors.
        indices: As for `Frames.read`.
        num_frames: How many there are.
        picture: Returns one frame as RGB uint8 [H, W, 3].
        limits: `max_mib` is used.

    Raises:
        VideoError: There is no such frame, sizes differ, or all of them are too large.
    """
    slots: dict[int, list[int]] = {}
    for slot, index in enumerate(map(int, indices)):
        slots.setdefault(index, []).append(slot)
    if not slots or min(slots) < 0 or max(slots) >= num_frames:
        wanted = f"{min(slots)} to {max(slots)}" if slots else "no"
        raise VideoError(f"{name}: {wanted} frames were asked for, there are 0 to {num_frames - 1}")
    found: npt.NDArray[np.uint8] | None = None
    for index in sorted(slots):
        picture_HW3 = picture(index)
        if found is None:
            _check_memory(name, len(indices), picture_HW3, limits)
            found = np.empty((len(indices), *picture_HW3.shape), np.uint8)
        if picture_HW3.shape != found.shape[1:]:
            (old_height, old_width), (height, width) = found.shape[1:3], picture_HW3.shape[:2]
            raise VideoError(
                f"{name}: frame {index} has {width}×{height} pixels, those before it "
                f"{old_width}×{old_height}; all frames of a video must have the same size"
            )
        found[slots[index]] = picture_HW3
    assert found is not None
    return found


def _check_memory(
    name: str, count: int, picture_HW3: npt.NDArray[np.uint8], limits: VideoLimits
) -> None:
    mib = count * picture_HW3.nbytes / _MIB
    if mib > limits.max_mib:
        height, width, _ = picture_HW3.shape
        raise VideoError(
            f"{name}: {count} frames of {width}×{height} pixels are {mib:.0f} MiB, at most "
            f"{limits.max_mib:g} MiB are read at once; use a shorter or smaller clip, or set the "
            f"environment variable {MAX_MIB}"
        )
