"""A folder of pictures as a video: what image tools write, with the rate in a file beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videorl.errors import VideoError
from videorl.videos.deadline import Deadline
from videorl.videos.frames import Gatherer
from videorl.videos.limits import VideoLimits
from videorl.videos.timeline import Timeline, check_count

RATE_FILE = "fps.txt"
"""Holds the frames per second: `24`, `23.976` or `24000/1001`."""
PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder by number (`2.png` before `10.png`), hidden ones left out."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: _parts(path.name))


def is_frame_folder(path: Path) -> bool:
    """Return whether a folder is a video: it holds pictures and their rate."""
    return (path / RATE_FILE).is_file() and bool(pictures_in(path))


class FrameFolder:
    """Implements `videorl.videos.frames.Frames` for a folder of pictures."""

    def __init__(self, path: Path, limits: VideoLimits) -> None:
        """List the pictures; nothing is decoded.

        Args:
            path: The folder. Pictures are numbered without gaps, and `fps.txt` holds their rate.
            limits: How much it may cost.

        Raises:
            VideoError: There is no picture, no rate, or a picture is missing.
        """
        self._deadline = Deadline(path, limits.deadline_s)
        self._files = self._deadline.call(lambda: pictures_in(path))
        if not self._files:
            raise VideoError(f"{path}: is a folder without pictures, no video")
        check_count(str(path), len(self._files), limits)
        _check_gaps(path, self._files)
        fps = _read_rate(path, len(self._files))
        self._gatherer = Gatherer(str(path), len(self._files), self._picture, limits)
        self.timeline = Timeline(np.arange(len(self._files)) / fps, fps)

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """See `videorl.videos.frames.Frames.read`."""
        return self._deadline.call(lambda: self._gatherer.read(indices))

    def _picture(self, index: int) -> npt.NDArray[np.uint8]:
        from PIL import Image, ImageOps

        self._deadline.check()
        path = self._files[index]
        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise VideoError(
                        f"{path}: has more than 8 bits per channel (mode {image.mode}); convert it"
                    )
                # As browsers show it: upright, and black where it is transparent, like video files.
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except VideoError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(
                f"{path}: cannot be decoded, it is damaged or truncated: {error}"
            ) from error


def _parts(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names by the numbers in them."""
    parts = re.split(r"(\d+)", name)
    return [(n % 2, int(part) if n % 2 else 0, part) for n, part in enumerate(parts)]


def _check_gaps(folder: Path, files: Sequence[Path]) -> None:
    """Check that the last numbers in the names rise evenly."""
    numbers = [re.findall(r"\d+", path.stem) for path in files]
    if not all(numbers):
        return
    steps = [int(after[-1]) - int(before[-1]) for before, after in pairwise(numbers)]
    for file, step in zip(files, steps, strict=False):
        if step != min(steps) or step < 1:
            raise VideoError(
                f"{folder}: the pictures are not numbered evenly: after {file.name} comes one that "
                f"is {step} further, elsewhere it is {min(steps)}; is one missing?"
            )


def _read_rate(folder: Path, count: int) -> float:
    path = folder / RATE_FILE
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        fps = float(Fraction(text))
    except FileNotFoundError as error:
        raise VideoError(
            f"{folder}: is a folder of {count} pictures without a rate; write the frames per "
            f"second into {path}, for instance 24"
        ) from error
    except (OSError, ValueError, ZeroDivisionError, OverflowError):
        fps = math.nan
    if not 0 < fps < math.inf:
        raise VideoError(f"{path}: expected frames per second as a number above 0, e.g. 24")
    return fps
