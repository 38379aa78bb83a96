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


class Gatherer:
    """Reads frames in their order, each once, and puts them where they are wanted."""

    def __init__(
        self,
        name: str,
        num_frames: int,
        picture: Callable[[int], npt.NDArray[np.uint8]],
        limits: VideoLimits,
    ) -> None:
        """Prepare to read.

        Args:
            name: The file's path; used in errors.
            num_frames: How many there are.
            picture: Returns one frame as RGB uint8 [H, W, 3].
            limits: `max_mib` is used.
        """
        self._name, self._num_frames = name, num_frames
        self._picture, self._limits = picture, limits
        self._shape: tuple[int, ...] | None = None
        """[H, W, 3] of the frame that was read first."""

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """See `Frames.read`."""
        slots = self._slots(indices)
        found: npt.NDArray[np.uint8] | None = None
        for index in sorted(slots):
            picture_HW3 = self._picture(index)
            self._check_size(index, picture_HW3)
            if found is None:
                self._check_memory(len(indices), picture_HW3)
                found = np.empty((len(indices), *picture_HW3.shape), np.uint8)
            found[slots[index]] = picture_HW3
        assert found is not None, "there is an index"
        return found

    def _slots(self, indices: Sequence[int]) -> dict[int, list[int]]:
        """Return where each frame is wanted."""
        slots: dict[int, list[int]] = {}
        for slot, index in enumerate(map(int, indices)):
            slots.setdefault(index, []).append(slot)
        if not slots or min(slots) < 0 or max(slots) >= self._num_frames:
            asked = f"frames {min(slots)} to {max(slots)} were" if slots else "no frame was"
            raise VideoError(
                f"{self._name}: {asked} asked for, there are frames 0 to {self._num_frames - 1}"
            )
        return slots

    def _check_size(self, index: int, picture_HW3: npt.NDArray[np.uint8]) -> None:
        self._shape = self._shape or picture_HW3.shape
        if picture_HW3.shape != self._shape:
            (other_height, other_width), (height, width) = self._shape[:2], picture_HW3.shape[:2]
            raise VideoError(
                f"{self._name}: frame {index} has {width}×{height} pixels, others have "
                f"{other_width}×{other_height}; all frames of a video must have the same size"
            )

    def _check_memory(self, count: int, picture_HW3: npt.NDArray[np.uint8]) -> None:
        mib, most = count * picture_HW3.nbytes / _MIB, self._limits.max_mib
        if mib > most:
            height, width, _ = picture_HW3.shape
            raise VideoError(
                f"{self._name}: {count} frames of {width}×{height} pixels are {mib:.0f} MiB, at "
                f"most {most:g} MiB are read at once; use a shorter or smaller clip, or set the "
                f"environment variable {MAX_MIB}"
            )
