"""Video files of any kind, made with FFmpeg, and what other decoders see in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream


def moving_pattern(count: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """Frames [F, H, W, 3] that all differ."""
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack([2 * x + 5 * n, 2 * y + 9 * n, x + y + 13 * n], axis=-1) for n in range(count)
    ]
    return (np.stack(frames) % 256).astype(np.uint8)


def make_video(  # noqa: PLR0913, every kind of file has settings of its own
    path: Path,
    count: int = 24,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: Fraction | int = 24,
    size: tuple[int, int] = (48, 64),
    ticks: Sequence[int] = (),
    kind: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video; its frames are those of `moving_pattern`.

    Args:
        path: Where to; its suffix decides the container.
        count: Number of frames.
        codec: Name of FFmpeg's encoder.
        pixels: FFmpeg's name of the pixel format.
        rate: Frames per second.
        size: Height and width.
        ticks: When each frame is shown, in 1/24000 s; empty = evenly.
        kind: FFmpeg's name of the container, if not as the suffix says.
        options: Of the encoder.
        container_options: Of the container.
    """
    with av.open(str(path), "w", format=kind, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        if ticks:
            stream.codec_context.time_base = Fraction(1, 24000)
        for place, pixels_HW3 in enumerate(moving_pattern(count, *size)):
            frame = av.VideoFrame.from_ndarray(pixels_HW3, format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[place], Fraction(1, 24000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_copy(source: Path, path: Path, start_s: float) -> Path:
    """Cut the part from `start_s` out without encoding again, as `ffmpeg -ss START -c copy` does.

    Packets from the key frame before the cut on are in the new file; an edit list hides them.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        cut = round(start_s / float(stream.time_base or 1))
        old.seek(cut, stream=stream)
        for packet in old.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts = packet.pts - cut, packet.dts - cut
            packet.stream = copied
            new.mux(packet)
    return path


def decoded(path: Path) -> npt.NDArray[np.uint8]:
    """What PyAV shows, frame by frame; what it cannot decode is skipped, as players do."""
    frames: list[npt.NDArray[np.uint8]] = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # damage looks otherwise on more
        for packet in container.demux(stream):
            with suppress(av.InvalidDataError):
                frames += [
                    frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in packet.decode()
                ]
    return np.stack(frames)


class ByDecord:
    """What decord, the decoder of the reward models' authors, reads of a file."""

    def __init__(self, path: Path) -> None:
        # After PyAV: both bring libraries of the same names, and PyAV's VP9 fails with decord's.
        import decord

        self._reader = decord.VideoReader(str(path), num_threads=1)
        self.count, self.fps = len(self._reader), float(self._reader.get_avg_fps())

    def frames(self) -> npt.NDArray[np.uint8]:
        """Return the frames [F, H, W, 3], one by one: batches fail where a video is turned."""
        return np.stack([self._reader[place].asnumpy() for place in range(self.count)])

    def times_s(self) -> npt.NDArray[np.float32]:
        """Return when each frame is shown [F]."""
        return self._reader.get_frame_timestamp(range(self.count))[:, 0].astype(np.float32)


def patched(path: Path, box: bytes, offset: int, content: bytes) -> Path:
    """Overwrite bytes of the first such box of an mp4 file, `offset` bytes after its name."""
    data = bytearray(path.read_bytes())
    start = data.index(box) + len(box) + offset
    data[start : start + len(content)] = content
    path.write_bytes(data)
    return path


def turned(path: Path) -> Path:
    """Mark an mp4 file to be shown turned by a quarter, clockwise, as telephones do."""
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return patched(path, b"tkhd", 40, struct.pack(">9i", *matrix))
