"""Videos with their prompts, as found in a folder, a Parquet file or the archive of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from videorl.data.archive_layout import read_layout
from videorl.data.clip_rows import ClipRow, read_clip_rows
from videorl.data.parquet_rows import parquet_schema
from videorl.data.tables import PARQUET, READERS
from videorl.data.text_files import printable, problem_of, read_lines
from videorl.errors import PromptError, TableError, VideoError
from videorl.videos.finding import SUFFIXES, text_beside, videos_in

logger = logging.getLogger(__name__)

PROMPT_FILES = tuple(f"prompts{suffix}" for suffix in READERS)
_ROWS_AT_ONCE = 8
"""Rows of a Parquet file whose videos are in memory at the same time."""

Key: TypeAlias = tuple[str, str]
"""Id and prompt, which together identify a clip: a video may have several prompts."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One video and its prompt."""

    id: str
    """Path below the folder, candidate id, or place in the Parquet file."""
    prompt: str
    """Empty if none was found; each reward model decides whether it can score that."""
    content: str | bytes
    """Absolute path of the video (a file, or a folder of pictures), or the bytes of a file."""

    @property
    def key(self) -> Key:
        """Id and prompt, which identify the clip."""
        return self.id, self.prompt


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Clips whose contents are read on demand."""

    keys: tuple[Key, ...]
    """Of all clips, in order and each once."""
    read: Callable[[Collection[Key]], Iterator[Clip]]
    """Yields the clips with these keys, in order."""
    refused: Mapping[Key, str] = field(default_factory=dict[Key, str])
    """Why others cannot be scored: their row of a table, or the text beside them, is wrong."""


def find_clips(place: Path, prompts: Path | None = None) -> ClipSource:
    """Find the videos of a folder (or run, or archive) or of a table, with their prompts.

    - A run folder or its `archive`: all candidates whose video was kept.
    - Any other folder: its videos, in subfolders too, files and folders of pictures (see
      `videorl.videos.finding`). Prompts are those of `prompts`, of `prompts.csv` (`.jsonl`,
      `.json`, `.parquet`) in the folder (columns `video`, a path below the folder, and `prompt`),
      or else of a text file beside each video (`clip.txt` for `clip.mp4`).
    - A table (see `videorl.data.tables`): columns `video` (path, relative to the file; in Parquet
      also the bytes of a video file) and `prompt`; `id`, if there, names the rows.

    Raises:
        VideoError: There is no such place, it holds no video, or a column is missing.
        PromptError: A file of prompts cannot be read, or none of its rows can be used.
    """
    place = place.absolute()
    if place.is_file():
        source = _from_table(place)
    elif not place.is_dir():
        raise VideoError(f"{place}: no such folder or table")
    elif (archive := _archive_in(place)) is not None:
        source = _listed(_archived(archive))
    else:
        source = _from_folder(place, prompts)
    if not source.keys and source.refused:
        raise PromptError(
            f"no video of {place} can be scored: {next(iter(source.refused.values()))}"
        )
    if not source.keys:
        raise VideoError(f"{place} holds no video ({', '.join(sorted(SUFFIXES))})")
    if missing := sum(not prompt for _, prompt in source.keys):
        logger.warning(
            "%d of %d videos have no prompt; put `video` and `prompt` columns into %s, or a text "
            "file of the same name beside each video",
            missing,
            len(source.keys),
            place / PROMPT_FILES[0],
        )
    return source


def _listed(clips: Sequence[Clip], refused: Mapping[Key, str] | None = None) -> ClipSource:
    by_key: dict[Key, Clip] = {}
    for clip in clips:
        by_key.setdefault(clip.key, clip)
    _warn_of_repeats(len(clips) - len(by_key))

    def read(keys: Collection[Key]) -> Iterator[Clip]:
        return (clip for key, clip in by_key.items() if key in keys)

    others = {key: why for key, why in (refused or {}).items() if key not in by_key}
    return ClipSource(tuple(by_key), read, others)


def _warn_of_repeats(count: int) -> None:
    if count:
        logger.warning("%d videos are listed before with the same id and prompt; skipped", count)


def _archive_in(folder: Path) -> Path | None:
    for path in (folder, folder / "archive"):
        if read_layout(path).spans:
            return path
    return None


def _archived(archive: Path) -> list[Clip]:
    from videorl.data.archive import read_table, video_path

    rows = read_table(archive, "candidates", ["candidate_id", "prompt", "video"]).to_pylist()
    kept = [row for row in rows if row["video"] is not None]
    if len(kept) < len(rows):
        logger.warning("%d of %d candidates have no video there", len(rows) - len(kept), len(rows))
    return [
        Clip(row["candidate_id"], row["prompt"], str(video_path(archive, row["video"])))
        for row in kept
    ]


def _from_folder(folder: Path, prompts: Path | None) -> ClipSource:
    found = videos_in(folder)
    rows = _rows_of_folder(folder, prompts)
    # Resolved, as a row may spell the path of a file as `./a.mp4`.
    known = {(folder / row.video).resolve() for row in rows if row.video}
    lost = next((row for row in rows if row.problem and not _is_there(folder, row.video)), None)
    for path in found:
        if path.resolve() not in known:
            rows.append(_row_beside(path, folder, lost))
    clips: list[Clip] = []
    refused: dict[Key, str] = {}
    for row in rows:
        path = folder / row.video
        key = (printable(_name(path, folder)), row.prompt)
        if not row.problem:
            clips.append(Clip(*key, str(path)))
        elif row.video:
            refused[key] = row.problem
    return _listed(clips, refused)


def _is_there(folder: Path, video: str) -> bool:
    return bool(video) and os.path.exists(folder / video)  # False also for a name that is too long


def _rows_of_folder(folder: Path, prompts: Path | None) -> list[ClipRow]:
    """Return the rows of the table of prompts that was given, or that lies in the folder."""
    beside = [folder / name for name in PROMPT_FILES if (folder / name).exists()]
    table = prompts or next(iter(beside), None)
    if prompts is None and len(beside) > 1:
        logger.warning("prompts are those of %s, not of %s", beside[0], beside[1].name)
    try:
        return list(read_clip_rows(table)) if table else []
    except TableError as error:
        raise PromptError(f"cannot read prompts of videos: {error}") from error


def _row_beside(video: Path, folder: Path, lost: ClipRow | None) -> ClipRow:
    """Return a video that no table lists, with the text beside it.

    Without a text, it is refused where a row was `lost` that may have been its own.
    """
    name, text = _name(video, folder), text_beside(video)
    if problem_of(name):
        return ClipRow("", name, "", f"{printable(name)}: the file's name is not UTF-8; rename it")
    if not text.is_file():
        problem = f"no row names it, but one cannot be read: {lost.problem}" if lost else ""
        return ClipRow("", name, "", problem)
    try:
        prompt = "\n".join(read_lines(text)).strip()
    except (OSError, TableError) as error:
        return ClipRow("", name, "", f"{text.name} cannot be read: {error}")
    problem = problem_of(prompt)
    return ClipRow("", name, printable(prompt), f"{text.name}: {problem}" if problem else "")


def _name(path: Path, folder: Path) -> str:
    if path == folder:
        return path.name
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _from_table(path: Path) -> ClipSource:
    try:
        has_bytes = path.suffix.lower() in PARQUET and _has_bytes(path)
        rows = list(read_clip_rows(path, with_videos=not has_bytes))
    except TableError as error:
        raise VideoError(str(error)) from error
    keys = [(row.id or row.video or f"row {n}", row.prompt) for n, row in enumerate(rows)]
    refused = {key: row.problem for key, row in zip(keys, rows, strict=True) if row.problem}
    if has_bytes:
        return _with_bytes(path, keys, refused)
    listed = zip(keys, rows, strict=True)
    clips = [Clip(*key, str(path.parent / row.video)) for key, row in listed if not row.problem]
    return _listed(clips, refused)


def _has_bytes(path: Path) -> bool:
    """Return whether the videos of a Parquet file are contents, not paths, if it has any.

    Raises:
        TableError: They are neither.
    """
    import pyarrow as pa

    from videorl.data.arrow_types import is_bytes, is_text

    schema = parquet_schema(path)
    if "video" not in schema.names:
        return False
    kind = schema.field("video").type
    has_parts = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_text(kind) or is_bytes(kind) or has_parts):
        raise TableError(f"{path}: column 'video' must be paths or bytes of files, got {kind}")
    return not is_text(kind)


def _with_bytes(path: Path, keys: Sequence[Key], refused: Mapping[Key, str]) -> ClipSource:
    usable = [None if key in refused else key for key in keys]
    distinct = tuple(key for key in dict.fromkeys(usable) if key is not None)
    _warn_of_repeats(len(usable) - usable.count(None) - len(distinct))
    return ClipSource(distinct, partial(_read_bytes, path, usable), refused)


def _read_bytes(
    path: Path, all_keys: Sequence[Key | None], keys: Collection[Key]
) -> Iterator[Clip]:
    """Yield clips of a Parquet file; row groups without a wanted clip are not read."""
    import pyarrow.parquet as pq

    left, start = set(keys), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if left.isdisjoint(all_keys[start:end]):
                start = end
                continue
            for batch in file.iter_batches(_ROWS_AT_ONCE, [group], ["video"]):
                for value in batch["video"]:
                    if (key := all_keys[start]) in left and key is not None:
                        left.remove(key)
                        yield Clip(*key, _content(value.as_py(), path.parent))
                    start += 1


def _content(value: Any, folder: Path) -> str | bytes:
    """Return the bytes of a video, or its path, which data set tools wrap in a struct."""
    if isinstance(value, Mapping):
        content, place = value.get("bytes"), value.get("path")
        return str(folder / place) if content is None and isinstance(place, str) else content or b""
    return value or b""
