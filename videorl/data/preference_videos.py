"""Preference pairs stored as video files: their table. `pair_encoding` turns them into latents."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from videorl.data.parquet_rows import parquet_rows
from videorl.data.preferences import (
    images_of,
    open_tables,
    parquet_files,
    usable_pairs,
)
from videorl.data.table_rows import BadRow, Columns, Row
from videorl.errors import ArchiveError
from videorl.files.images import problem_of_image

logger = logging.getLogger(__name__)

VIDEO_PREFERENCES = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("prompt", "chosen_video", "rejected_video")
    ]
)
"""One row per pair. Videos are paths relative to the folder of the Parquet files, and inside it, of
any kind of file that `videorl.videos` reads (mp4, for instance). A column `image` may have the path
of the picture that the prompt carries; other columns are ignored."""


@dataclass(frozen=True, slots=True)
class VideoPair:
    """One row of the table; both files exist."""

    prompt: str
    chosen: Path
    rejected: Path
    image: str = ""
    """Absolute path of the picture that the prompt carries; empty = none."""


def has_videos(path: Path) -> bool:
    """Return whether an archive is a table of `VIDEO_PREFERENCES`; False for other places."""
    if (path / "pairs").is_dir() or not (files := parquet_files(path)):
        return False
    try:
        names = ds.dataset(files, format="parquet").schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False
    return "chosen_video" in names and "chosen_latents" not in names


def video_files(path: Path) -> dict[str, Path]:
    """Return name -> file of every video that the table names, which need not exist."""
    columns = ["chosen_video", "rejected_video"]
    table = ds.dataset(parquet_files(path), format="parquet").to_table(columns)
    root = path if path.is_dir() else path.parent
    names = {str(name) for column in table.columns for name in column.to_pylist()}
    return {name: root / name for name in sorted(names)}


def read_video_pairs(path: Path) -> list[VideoPair]:
    """Read the table, without decoding anything; pairs that cannot be used are left out and logged.

    Args:
        path: A Parquet file or a folder of them, with the columns of `VIDEO_PREFERENCES`.

    Raises:
        ArchiveError: A column is missing or of another type, no pair can be used, or a video is
            outside of the folder.
    """
    open_tables(path, VIDEO_PREFERENCES)
    root = path if path.is_dir() else path.parent
    columns = Columns(tuple(VIDEO_PREFERENCES.names))
    rows = [row for file in parquet_files(path) for _, row in parquet_rows(Path(file), columns)]
    if not rows:
        raise ArchiveError(f"{path} holds no preference pair")
    images = images_of(path)
    problems = [
        _problem(row, root, number) or (image and problem_of_image(image)) or ""
        for number, (row, image) in enumerate(zip(rows, images, strict=True))
    ]
    pairs: list[VideoPair] = []
    for number in usable_pairs(path, problems):
        row = rows[number]
        assert not isinstance(row, BadRow)
        chosen, rejected = root / row["chosen_video"], root / row["rejected_video"]
        pairs.append(VideoPair(row["prompt"], chosen, rejected, images[number]))
    return pairs


def _problem(row: Row | BadRow, root: Path, number: int) -> str:
    """Return what is wrong with a pair; empty if nothing is.

    Raises:
        ArchiveError: It names a file outside of the folder.
    """
    if isinstance(row, BadRow):
        return row.reason
    if empty := [name for name, value in row.items() if value is None]:
        return f"has no {empty[0]}"
    for name in (row["chosen_video"], row["rejected_video"]):
        if "\0" in name:
            return f"names {name!r}, which no file can be called"
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise ArchiveError(
                f"pair {number} names a video outside of {root}, {name!r}; do not use it"
            )
        if not os.path.isfile(path):  # False also for a name that is too long
            return f"names {name!r}, but there is no such file in {root}"
    return ""
