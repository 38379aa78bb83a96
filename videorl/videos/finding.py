"""Videos below a folder: files by name, or by content if misnamed, and folders of pictures."""

from __future__ import annotations

import logging
from pathlib import Path

from videorl.videos.folders import PICTURES, RATE_FILE, is_frame_folder

logger = logging.getLogger(__name__)

# fmt: off
SUFFIXES = frozenset({
    ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
})
# fmt: on
_MATROSKA, _GIF = b"\x1a\x45\xdf\xa3", b"GIF8"
_NO_VIDEO = (b"M4A", b"M4B", b"avi", b"hei", b"mif")
"""Beginnings of the brands of mp4 files that hold sound or pictures (AVIF, HEIF)."""


def videos_in(folder: Path) -> list[Path]:
    """Return the video files and the folders of pictures below a folder, hidden ones left out.

    Files that are named otherwise but begin like a video are among them. Folders of pictures
    without a rate are not, and are logged.
    """
    found: list[Path] = []
    picture_folders: set[Path] = set()
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            picture_folders.add(path.parent)
        elif path.is_file() and (suffix in SUFFIXES or _begins_like_a_video(path)):
            found.append(path)
    videos = {path for path in picture_folders if is_frame_folder(path)}
    if others := sorted(picture_folders - videos):
        logger.warning(
            "%d folders hold pictures and are not read as videos, %s for instance; to have them "
            "read, put the frames per second into a file %s beside the pictures",
            len(others),
            others[0],
            RATE_FILE,
        )
    return sorted([*found, *videos])


def text_beside(video: Path) -> Path:
    """Return the file that may hold a video's prompt: `clip.txt` for `clip.mp4` or `clip/`."""
    return video.parent / f"{video.name if video.is_dir() else video.stem}.txt"


def _begins_like_a_video(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    is_mp4 = start[4:8] == b"ftyp" and not start[8:].startswith(_NO_VIDEO)
    is_avi = start[:4] == b"RIFF" and start[8:12] == b"AVI "
    return is_mp4 or is_avi or start.startswith((_MATROSKA, _GIF))
