"""Frames of video files, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from videorl.videos.containers import OpenContainer, damaged, naming, open_container
from videorl.videos.deadline import Deadline
from videorl.videos.frames import Gatherer
from videorl.videos.limits import VideoLimits
from videorl.videos.timeline import Timeline, read_timeline
from videorl.videos.truncation import is_cut_off

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.reformatter import VideoReformatter

_WORTH_A_SEEK = 8
"""Frames that are decoded in vain rather than to seek beyond them."""


class VideoFile:
    """Implements `videorl.videos.frames.Frames` for a file that FFmpeg decodes.

    It is decoded with PyAV on one thread. Pixels are those of decord, with which the authors of
    reward models read, wherever decord reads the file correctly.
    """

    def __init__(self, path: Path, limits: VideoLimits) -> None:
        """Find out what the file shows; almost nothing is decoded.

        Args:
            path: The file; what its name ends with does not matter.
            limits: How much it may cost.

        Raises:
            VideoError: The file is damaged, truncated, no video, or shows more than the limits
                allow.
        """
        self._path, self._limits = path, limits
        self._rgb: VideoReformatter | None = None
        self._deadline = Deadline(path, limits.deadline_s)
        self._file, self.timeline = self._deadline.call(self._find_out)
        self._gatherer = Gatherer(str(path), self.timeline.num_frames, self._picture, limits)
        self._places = {pts: place for place, pts in enumerate(self.timeline.pts)}
        self._pictures: Iterator[VideoFrame] = iter(())
        self._place = self.timeline.num_frames
        """Of the picture that was decoded last; at first all packets have been read."""
        self._start, self._is_from_beginning = 0, False
        self._wanted: set[int] = set()

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """See `videorl.videos.frames.Frames.read`."""

        def work() -> npt.NDArray[np.uint8]:
            self._wanted = set(map(int, indices))
            with naming(self._deadline):
                return self._gatherer.read(indices)

        return self._deadline.call(work)

    def _find_out(self) -> tuple[OpenContainer, Timeline]:
        if is_cut_off(self._path):
            error = EOFError("the file ends within a part that should be longer")
            raise damaged(str(self._path), error)
        with naming(self._deadline):
            file = self._open()
            return file, read_timeline(file, self._open, self._limits)

    def _open(self) -> OpenContainer:
        return open_container(self._path, self._deadline)

    def _picture(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode one frame, upright, as RGB uint8 [H, W, 3]."""
        from av.video.reformatter import VideoReformatter

        frame = self._find(index)
        if self._rgb is None:
            self._rgb = VideoReformatter()  # kept: a new one costs as much as a frame
        upright = self._rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.rot90(np.asarray(upright, np.uint8), round(frame.rotation / 90))

    def _find(self, index: int) -> VideoFrame:
        """Return the picture of a frame, going on from the last one or from a start before it."""
        from av import FFmpegError

        start, seek_to = self.timeline.start_of(index)
        frame = None
        try:
            if index <= self._place or start > self._place + _WORTH_A_SEEK:
                self._seek(start, seek_to)
            frame = self._advance(index)
        except FFmpegError:
            if self._is_from_beginning:
                raise
        if frame is None and not self._is_from_beginning:
            # A container's index may lie too, so that seeking leads elsewhere.
            self._rewind()
            frame = self._advance(index)
        if frame is None:
            what = f"no picture comes out for frame {index} of {self.timeline.num_frames}"
            raise damaged(str(self._path), ValueError(what))
        return frame

    def _seek(self, start: int, seek_to: int) -> None:
        if not self._places:
            return self._rewind()
        self._pictures, self._place = self._file.frames(self._is_idle), -1
        self._start, self._is_from_beginning = start, False
        self._file.container.seek(seek_to, stream=self._file.stream, backward=True)

    def _is_idle(self, packet: Packet) -> bool:
        """Return whether this read can do without a picture; what comes after it is kept."""
        if packet.pts is None or (place := self._places.get(packet.pts)) is None:
            return False
        return place not in self._wanted and place < max(self._wanted)

    def _rewind(self) -> None:
        """Begin again with a new decoder, which remembers nothing."""
        self._file.container.close()
        self._file = self._open()
        self._pictures, self._place = self._file.frames(), -1
        self._start, self._is_from_beginning = 0, True

    def _advance(self, index: int) -> VideoFrame | None:
        """Decode until a frame comes; None if it does not."""
        for frame in self._pictures:
            if not self._places:
                place = self._place + 1
            elif frame.pts is None or (place := self._places.get(frame.pts)) is None:
                continue
            if self._place < 0 and place > self._start:
                return None  # sought too far
            self._place = place
            if place >= index:
                return frame if place == index else None
        return None
