"""Videos rated by people, in the columns of VideoFeedback: CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import DatasetError
from videorl.reward_training.label_rows import check_columns, usable_rows

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
        path: `.csv`, `.json` (a list of objects) or `.parquet`, with at least `COLUMNS`.
        root: Folder with `<id>.mp4` of every row; None = the folder `videos` beside the file.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    folder = root if root is not None else path.parent / "videos"
    rows = _rows(path)
    check_columns(path, rows[0] if rows else (), COLUMNS)
    numbered = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    videos, _ = usable_rows(path, numbered, lambda row: _rated(row, folder))
    return tuple(videos)


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            present = [name for name in pq.read_schema(path).names if name in COLUMNS]
            return pq.read_table(path, columns=present).to_pylist()
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        if path.suffix == ".json":
            return [dict(row) for row in json.loads(text)]
    except (OSError, ValueError, TypeError, csv.Error, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    raise DatasetError(f"{path} is neither .csv, .json nor .parquet")


def _rated(row: Mapping[str, Any], folder: Path) -> RatedVideo:
    """Check one row.

    Raises:
        DatasetError: A value is missing or not a number, or the video does not exist.
    """
    prompt, path = str(row.get("text prompt") or "").strip(), folder / f"{row.get('id')}.mp4"
    try:
        ratings = tuple(float(row[name]) for name in DIMENSIONS)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"a rating is not a number: {error}") from error
    if not all(math.isfinite(rating) for rating in ratings):
        raise DatasetError(f"a rating is not finite: {ratings}")
    if not prompt:
        raise DatasetError("nothing in column text prompt")
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    return RatedVideo(path, prompt, ratings)
