"""Video files opened by FFmpeg: which kinds, which stream, and its packets and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import VideoError
from videorl.videos.deadline import Deadline

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Only what holds pictures with times. Above all no playlists (HLS, DASH, concat), which read other
# files and addresses; no raw streams, whose rate would be made up; no text drawn as pictures.
_KINDS = "apng,asf,avi,flv,gif,ivf,matroska,mov,mpeg,mpegts,mxf,nut,ogg,rm,webp_anim,wtv"
_INDEPENDENT = frozenset({"h264", "hevc"})
"""Codecs whose pictures leave no trace if nobody refers to them; VP8 adapts its tables even so."""
_MAX_PIXELS = 2**26
"""Per frame (8192×8192): damaged headers ask for more memory than any machine has."""
_OPTIONS = {"format_whitelist": _KINDS, "protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class OpenContainer:
    """An open file, at the place that it was read to."""

    name: str
    """The path; used in errors."""
    container: InputContainer
    stream: VideoStream
    """The video stream that players show."""
    codec: str
    """FFmpeg's name of the format, for instance h264; several decoders may read it."""
    deadline: Deadline

    @property
    def is_progressive(self) -> bool:
        """Whether packets hold whole frames, not fields, as far as the stream's header tells."""
        return self.stream.codec_context.field_order in (0, 1)  # unknown, progressive

    def packets(self) -> Iterator[Packet]:
        """Yield the packets that are left, in decoding order, and an empty one to flush decoders.

        Raises:
            VideoError: A packet is damaged or cut, or the time is up.
        """
        for packet in self.container.demux(self.stream):
            self.deadline.check()
            if packet.is_corrupt:
                raise damaged(self.name, EOFError("a packet is incomplete"))
            yield packet

    def frames(self, is_idle: Callable[[Packet], bool] | None = None) -> Iterator[VideoFrame]:
        """Yield the pictures that are left, in the order in which they are shown.

        Args:
            is_idle: Says whether nobody wants the picture of a packet. It is left out if no other
                picture refers to it, which changes nothing else.

        Raises:
            VideoError: As for `packets`.
            FFmpegError: A packet cannot be decoded though all that it needs was there.
        """
        import av

        first_key: Packet | None = None
        for packet in self.packets():
            if first_key is None and packet.is_keyframe:
                first_key = packet
            if is_idle is not None and self.codec in _INDEPENDENT:
                self.stream.codec_context.skip_frame = "NONREF" if is_idle(packet) else "DEFAULT"
            try:
                frames = self.stream.decode(packet)
            except av.FFmpegError:
                if _refers_before(packet, first_key):
                    continue
                raise
            for frame in frames:
                if frame.is_corrupt:
                    raise damaged(self.name, ValueError("a picture is incomplete"))
                yield frame


def _refers_before(packet: Packet, first_key: Packet | None) -> bool:
    """Return whether a packet needs pictures from before the first key frame, as players know."""
    if first_key is None:
        return True
    return packet.pts is not None and first_key.pts is not None and packet.pts < first_key.pts


def open_container(path: Path, deadline: Deadline) -> OpenContainer:
    """Open a file at its start, whatever its name ends with.

    Raises:
        VideoError: It is no video file, has no video stream, or its codec cannot be decoded.
        FFmpegError: It is damaged.
    """
    import av

    try:
        container = av.open(
            str(path.absolute()),  # FFmpeg would take `take:1.mp4` for an address
            options=dict(_OPTIONS),
            metadata_errors="replace",
            timeout=deadline.seconds_left,
        )
    except (av.InvalidDataError, av.ArgumentError) as error:
        # The second is what FFmpeg says of a kind that is not on the list.
        raise VideoError(
            f"{path}: cannot be decoded, it is no video of a kind that is read (mp4, mov, mkv, "
            "webm, avi, gif, ...), or its beginning is damaged or truncated"
        ) from error
    stream = _shown_stream(path, container)
    context = stream.codec_context
    # Workers share the cores; and errors are to be errors, not repaired pictures.
    context.thread_count = 1
    context.options = {"err_detect": "explode", "max_pixels": str(_MAX_PIXELS)}
    return OpenContainer(str(path), container, stream, context.codec.canonical_name, deadline)


def _shown_stream(path: Path, container: InputContainer) -> VideoStream:
    """Return the video stream that players choose; covers of audio files are none."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not videos:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise VideoError(f"{path}: has no video stream (its streams: {kinds})")
    best = container.streams.best("video")
    chosen = next((stream for stream in videos if best and stream.index == best.index), videos[0])
    if chosen.codec_context is None:
        raise VideoError(f"{path}: its video codec is not supported; convert it to H.264")
    return chosen


@contextmanager
def naming(deadline: Deadline) -> Iterator[None]:
    """Turn the errors of PyAV into a `VideoError` that names the file."""
    import av

    name = deadline.name
    try:
        yield
    except VideoError:
        raise
    except av.ExitError as error:  # interrupted while it waited for data
        raise deadline.expired() from error
    except (av.FFmpegError, EOFError, MemoryError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> VideoError:
    """Return the error for a file that cannot be decoded, with the decoder's reason."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return VideoError(
        f"{name}: cannot be decoded, it is damaged or truncated: {str(reason).splitlines()[0]}"
    )
