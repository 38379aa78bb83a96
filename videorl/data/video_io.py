"""Videos written as mp4 files, in H.264, which every player and browser opens; and read whole."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np

from videorl.errors import VideoError
from videorl.files import write_bytes
from videorl.types import Video
from videorl.videos.opening import open_frames

_BT601 = 6
"""ITU-T H.273 code of the RGB to YUV matrix that is used; without it players may assume BT.709."""

# x264's lookahead reads memory that it has not written when frames are under about 64 pixels, so
# that equal clips gave different bytes: everything that uses the lookahead is off.
_X264 = "rc-lookahead=0:mbtree=0:bframes=0:scenecut=0:weightp=0"


def encode_mp4(video: Video) -> bytes:
    """Encode as H.264 (constant rate factor 10, 4:2:0 colour); equal videos give equal bytes.

    4:2:0 colour needs even sides: the last row or column is repeated where a side is odd.

    Raises:
        VideoError: The frames are not a non-empty uint8 [F, H, W, 3], or `fps` is not above 0.
    """
    import av

    frames_FHW3 = video.frames
    if frames_FHW3.ndim != 4 or frames_FHW3.shape[3] != 3 or 0 in frames_FHW3.shape:
        raise VideoError(f"expected frames [F, H, W, 3], got {frames_FHW3.shape}")
    if frames_FHW3.dtype != np.uint8:
        raise VideoError(f"expected uint8 frames, got {frames_FHW3.dtype}")
    if not 0 < video.fps < float("inf"):
        raise VideoError(f"expected fps > 0, got {video.fps}")
    _, height, width, _ = frames_FHW3.shape
    frames_FHW3 = np.pad(
        frames_FHW3, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge"
    )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(video.fps).limit_denominator(1001),
            options={"crf": "10", "preset": "veryfast", "x264-params": _X264},
        )
        stream.height, stream.width = frames_FHW3.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        # x264's output depends on the number of threads, and small clips lose time starting them.
        stream.codec_context.thread_count = 1
        for frame_HW3 in frames_FHW3:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HW3), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_mp4(path: Path, video: Video) -> None:
    """Write `encode_mp4(video)` to `path`, whole or not at all."""
    write_bytes(path, encode_mp4(video))


def read_video(path: Path) -> Video:
    """Decode every frame of a video file, or of a folder of pictures.

    Raises:
        VideoError: It is missing, damaged, truncated, holds no frame, or costs more than
            `videorl.videos.limits` allow.
    """
    frames = open_frames(path)
    timeline = frames.timeline
    return Video(frames.read(range(timeline.num_frames)), timeline.fps)
