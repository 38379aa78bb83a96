"""What stored preference pairs hold, known by content."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from videorl.data.archive_layout import files_of
from videorl.data.preference_videos import has_videos, video_files
from videorl.data.preferences import parquet_files
from videorl.files.content import Content, content_of_files


def table_content(path: Path, *, fresh: bool = False) -> Content | None:
    """Return the content of the tables of an `offline.archive`; None if there is none here.

    Args:
        path: The archive of a run, of which only what pairs are read from counts; or a Parquet
            file, or a folder of them.
        fresh: As for `videorl.files.content.file_digest`.
    """
    if (path / "pairs").is_dir():
        tables = ("pairs", "candidates")
        found = [span.path(path, name) for name in tables for span in files_of(path, name)]
        files = {file.relative_to(path).as_posix(): file for file in found}
    elif path.is_file():
        files = {"table": path}
    else:
        files = {Path(file).name: Path(file) for file in parquet_files(path)}
    files |= {f"picture {name}": place for name, place in _pictures(files.values()).items()}
    return content_of_files(files, fresh=fresh) if files else None


def _pictures(tables: Iterable[Path]) -> dict[str, Path]:
    """Return the pictures that tables name and that are here, by their names in them."""
    found: dict[str, Path] = {}
    for table in tables:
        with suppress(pa.ArrowException, OSError):  # damaged, which whoever reads it says
            if "image" in pq.read_schema(table).names:
                names = set(pq.read_table(table, columns=["image"])["image"].to_pylist())
                found |= {name: table.parent / name for name in names if name}
    return {name: place for name, place in found.items() if place.is_file()}


def video_content(path: Path, *, fresh: bool = False) -> Content | None:
    """Return the content of the video files of an `offline.archive`.

    None if it has none, or they are not all here any more: once they are encoded they are not
    needed, and as long as they are, reading the table names the missing one.
    """
    if not has_videos(path):
        return None
    files = video_files(path)
    if not all(file.is_file() for file in files.values()):
        return None
    return content_of_files(files, fresh=fresh)
