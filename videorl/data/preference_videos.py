"""Preference pairs stored as video files: their table, and how they are encoded to latents once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from videorl.data.archive_tables import pack_latents
from videorl.data.preferences import PREFERENCES, open_tables, parquet_files
from videorl.data.video_io import read_video
from videorl.errors import ArchiveError, VideoError

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.types import Video

VIDEO_PREFERENCES = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("prompt", "chosen_video", "rejected_video")
    ]
)
"""One row per pair. Videos are paths relative to the folder of the Parquet files, and inside it, of
any kind of file that `videorl.videos` reads (mp4, for instance). Other columns are ignored."""


@dataclass(frozen=True, slots=True)
class VideoPair:
    """One row of the table; both files exist."""

    prompt: str
    chosen: Path
    rejected: Path


def has_videos(path: Path) -> bool:
    """Return whether an archive is a table of `VIDEO_PREFERENCES`; False for other places."""
    if (path / "pairs").is_dir() or not (files := parquet_files(path)):
        return False
    try:
        names = ds.dataset(files, format="parquet").schema.names
    except pa.ArrowInvalid:
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
    """Read the table, without decoding anything.

    Args:
        path: A Parquet file or a folder of them, with the columns of `VIDEO_PREFERENCES`.

    Raises:
        ArchiveError: A column is missing or of another type, there is no pair, or a video is
            missing or outside of the folder.
    """
    dataset = open_tables(path, VIDEO_PREFERENCES)
    root = path if path.is_dir() else path.parent
    rows = dataset.to_table(VIDEO_PREFERENCES.names).to_pylist()
    if not rows:
        raise ArchiveError(f"{path} holds no preference pair")
    for index, row in enumerate(rows):
        if empty := [name for name, value in row.items() if value is None]:
            raise ArchiveError(f"{path}: pair {index} has no {empty[0]}")
    return [
        VideoPair(
            row["prompt"],
            *(_file(root, row[name], index) for name in ("chosen_video", "rejected_video")),
        )
        for index, row in enumerate(rows)
    ]


def _file(root: Path, name: str, index: int) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArchiveError(f"pair {index} names a video outside of {root}, {name!r}; do not use it")
    if not path.is_file():
        raise ArchiveError(f"pair {index} names {name!r}, but there is no such file in {root}")
    return path


def write_latents(
    pairs: Sequence[VideoPair], encode: Callable[[Video], Tensor], folder: Path
) -> None:
    """Encode every video once, into a folder that `read_preferences` reads; whole or not at all.

    Args:
        pairs: From `read_video_pairs`.
        encode: Video -> latents [C, T, H, W].
        folder: Folder to write; replaced if it exists.

    Raises:
        ArchiveError: A video is damaged, or is not of the size that the policy makes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with pq.ParquetWriter(partial / "pairs.parquet", PREFERENCES) as writer:
        for index, pair in enumerate(pairs):
            row: dict[str, object] = {"prompt": pair.prompt}
            for role, path in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                try:
                    latents = encode(read_video(path))
                except VideoError as error:
                    raise ArchiveError(f"the {role} video of pair {index}: {error}") from error
                packed = pack_latents(latents)
                row |= {f"{role}_{name}": value for name, value in packed.items()}
            writer.write_table(pa.Table.from_pylist([row], PREFERENCES))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
