"""What stored preference pairs hold, known by content."""

from __future__ import annotations

from pathlib import Path

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
        found = [file for name in tables for file in path.glob(f"{name}/step-*.parquet")]
        files = {file.relative_to(path).as_posix(): file for file in found}
    elif path.is_file():
        files = {"table": path}
    else:
        files = {Path(file).name: Path(file) for file in parquet_files(path)}
    return content_of_files(files, fresh=fresh) if files else None


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
