"""Open what a path names as a video: the only place that decides which kind it is."""

from __future__ import annotations

from pathlib import Path

from videorl.errors import VideoError
from videorl.videos.files import VideoFile
from videorl.videos.folders import FrameFolder
from videorl.videos.frames import Frames
from videorl.videos.limits import VideoLimits, limits_of_environment


def open_frames(path: Path, limits: VideoLimits | None = None) -> Frames:
    """Open a video file or a folder of pictures.

    Args:
        path: What to open.
        limits: How much it may cost; None = as the environment says.

    Raises:
        VideoError: There is nothing of that name; it is damaged, truncated or no video; or it shows
            more than the limits allow.
    """
    limits = limits or limits_of_environment()
    try:
        if path.is_dir():
            return FrameFolder(path, limits)
        if not path.is_file():
            what = "neither a file nor a folder" if path.exists() else "no such file"
            raise VideoError(f"{path}: {what}")
        return VideoFile(path, limits)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror or error}") from error
