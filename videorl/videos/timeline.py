"""What a video *is*: which frames are shown, and when. Computed from packets, not from headers.

Headers count packets: also those that an edit list hides, those that show nothing, and those that
are not there. They state a rate and a duration that need not be those of the frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from videorl.errors import VideoError
from videorl.videos.containers import OpenContainer
from videorl.videos.key_frames import can_start_at
from videorl.videos.limits import MAX_FRAMES, VideoLimits

# Each packet shows exactly one picture. Of other codecs (hidden references of VP8, packed frames of
# MPEG-4, fields, ...) the pictures are counted by decoding.
_PICTURE_PER_PACKET = frozenset({"av1", "h264", "hevc", "vp9"})
_RATE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames that a video shows, in order; F is their number."""

    times_s: npt.NDArray[np.float64]
    """Seconds [F] at which frames appear: rising, from 0."""
    fps: float
    """Average frames per second (> 0, finite)."""
    pts: Sequence[int] = ()
    """Timestamps [F] by which a decoder's pictures are recognised; empty = by counting them."""
    starts: Sequence[tuple[int, int]] = ((0, 0),)
    """(frame, timestamp to seek to) where decoding may begin, with the same result; rising from
    frame 0. Without `pts` there is no seeking."""

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.times_s)

    def start_of(self, frame: int) -> tuple[int, int]:
        """Return the last of `starts` that is not after `frame`."""
        return self.starts[bisect_right(self.starts, frame, key=lambda start: start[0]) - 1]


@dataclass(slots=True)
class _Packets:
    """What the packets of a stream say, without decoding them."""

    pts: list[int] = field(default_factory=list[int])
    """Of those that are shown."""
    last_ticks: int = 0
    """How long the frame that is shown last stays; 0 = not stated."""
    starts: list[int] = field(default_factory=list[int])
    """Timestamps of packets from which a decoder may start."""
    first: int = 0
    """Timestamp of the first packet, hidden or not."""
    is_complete: bool = True
    """Each shown one has a timestamp of its own, and its picture can be decoded."""


def read_timeline(
    file: OpenContainer, reopen: Callable[[], OpenContainer], limits: VideoLimits
) -> Timeline:
    """Find out what a file shows.

    Args:
        file: At its start; its packets are read, which costs little.
        reopen: Opens it again, to decode and count its pictures where packets do not tell.
        limits: `max_frames` is used.

    Raises:
        VideoError: The file shows nothing or too much, is damaged, or has neither times nor a rate.
        FFmpegError: It cannot be decoded.
    """
    packets = _read_packets(file, limits)
    if packets.is_complete and file.codec in _PICTURE_PER_PACKET:
        pts, count = sorted(packets.pts), len(packets.pts)
    else:
        shown = _read_pictures(reopen(), limits)
        pts, count = [pts for pts in shown if pts is not None], len(shown)
    if not count:
        raise VideoError(f"{file.name}: holds no frame that is shown")
    if len(pts) < count or any(after <= before for before, after in pairwise(pts)):
        made = _counted(file, count)
    else:
        made = _timed(file, pts, packets)
    if made.times_s[-1] > limits.max_frames:
        raise VideoError(
            f"{file.name}: lasts {made.times_s[-1]:.0f} s, at most {limits.max_frames:g} s are "
            f"read; if that is right, set the environment variable {MAX_FRAMES}"
        )
    return made


def _read_packets(file: OpenContainer, limits: VideoLimits) -> _Packets:
    found, latest, count = _Packets(), None, 0
    extradata = file.stream.codec_context.extradata
    for packet in file.packets():
        if not packet.size:
            continue
        count += 1
        if packet.pts is None:
            found.is_complete = False
            continue
        can_start = can_start_at(packet, file.codec, extradata)
        if can_start:
            found.starts.append(packet.pts)
        if count == 1:
            found.first = packet.pts
            found.is_complete = can_start and file.is_progressive
        if packet.is_discard:
            continue
        # Shown before the first picture, it refers to one that was cut away.
        found.is_complete &= packet.pts >= found.first
        found.pts.append(packet.pts)
        check_count(file.name, len(found.pts), limits)
        if latest is None or packet.pts > latest:
            latest, found.last_ticks = packet.pts, packet.duration or 0
    found.is_complete &= len(set(found.pts)) == len(found.pts)
    return found


def _read_pictures(file: OpenContainer, limits: VideoLimits) -> list[int | None]:
    """Return the timestamps of all pictures, which are decoded and dropped."""
    found: list[int | None] = []
    with file.container:
        for frame in file.frames():
            found.append(frame.pts)
            check_count(file.name, len(found), limits)
    return found


def check_count(name: str, count: int, limits: VideoLimits) -> None:
    """Check that a video does not show too many frames.

    Raises:
        VideoError: It does.
    """
    if count > limits.max_frames:
        raise VideoError(
            f"{name}: shows more than {limits.max_frames:g} frames; cut it into shorter clips, or "
            f"set the environment variable {MAX_FRAMES}"
        )


def _timed(file: OpenContainer, pts: list[int], packets: _Packets) -> Timeline:
    """Return the timeline of frames with timestamps."""
    tick_s = float(file.stream.time_base or 0)
    times_s = np.multiply(np.asarray(pts, np.int64) - pts[0], tick_s, dtype=np.float64)
    fps = _rate(file, times_s, packets.last_ticks * tick_s, tick_s)
    places = {value: place for place, value in enumerate(pts)}
    starts = {places[value]: value for value in packets.starts if value in places}
    return Timeline(times_s, fps, pts, sorted((starts | {0: packets.first}).items()))


def _counted(file: OpenContainer, count: int) -> Timeline:
    """Return the timeline of frames without usable timestamps (AVI, for instance)."""
    fps = _declared_rate(file)
    if not fps:
        raise VideoError(
            f"{file.name}: has neither timestamps nor a frame rate; convert it, with its true rate"
        )
    return Timeline(np.arange(count) / fps, fps)


def _rate(
    file: OpenContainer, times_s: npt.NDArray[np.float64], last_s: float, tick_s: float
) -> float:
    """Return the rate that the container states, if its frames keep to it, or else theirs."""
    declared, count = _declared_rate(file), len(times_s)
    if count == 1:
        if not declared and not last_s:
            raise VideoError(f"{file.name}: its single frame has neither a duration nor a rate")
        return declared or 1 / last_s
    step_s = float(times_s[-1]) / (count - 1)
    mean_s = (float(times_s[-1]) + (last_s or step_s)) / count
    # Timestamps are rounded to ticks; a container's mean may count the last frame or not.
    slack_s = _RATE_TOLERANCE * step_s + tick_s / (count - 1)
    if declared and min(abs(1 / declared - step_s), abs(1 / declared - mean_s)) <= slack_s:
        return declared
    return 1 / step_s


def _declared_rate(file: OpenContainer) -> float:
    return float(file.stream.average_rate or file.stream.guessed_rate or 0)
