"""Videos rated by people, in the columns of VideoFeedback."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from videorl.data.label_rows import name_of, numbers_of, read_labels, texts_of
from videorl.data.table_rows import Row
from videorl.errors import DatasetError

DIMENSIONS = (
    "visual quality",
    "temporal consistency",
    "dynamic degree",
    "text-to-video alignment",
    "factual consistency",
)
COLUMNS = ("id", "text prompt", *DIMENSIONS)


@dataclass(frozen=True, slots=True)
class RatedVideo:
    """A video with human ratings on each of `DIMENSIONS`, from 1 (bad) to 4 (perfect)."""

    path: Path
    prompt: str
    ratings: tuple[float, ...]


def read_ratings(path: Path, root: Path | None = None) -> tuple[RatedVideo, ...]:
    """Read rated videos; rows that cannot be used are logged and left out.

    Args:
        path: CSV, JSON, JSON lines or Parquet, with at least `COLUMNS`.
        root: Folder with `<id>.mp4` of every row; None = the folder `videos` beside the file.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    folder = root if root is not None else path.parent / "videos"
    videos, _ = read_labels(path, COLUMNS, lambda row: _rated(row, folder))
    return tuple(videos)


def _rated(row: Row, folder: Path) -> RatedVideo:
    """Check one row.

    Raises:
        DatasetError: A value is missing or no finite number, or the video does not exist.
    """
    prompt = texts_of(row, ["text prompt"])["text prompt"]
    path = folder / f"{name_of(row, 'id')}.mp4"
    ratings = tuple(numbers_of(row, DIMENSIONS).values())
    if not os.path.isfile(path):  # False also for names that no file can have
        raise DatasetError(f"there is no file {path}")
    return RatedVideo(path, prompt, ratings)
