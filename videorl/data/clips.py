"""Videos with their prompts, as found in a folder, a Parquet file or the archive of a run."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from videorl.errors import PromptError, VideoError
from videorl.videos.finding import SUFFIXES, text_beside, videos_in

logger = logging.getLogger(__name__)

PROMPT_FILES = ("prompts.csv", "prompts.jsonl")
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


def find_clips(place: Path, prompts: Path | None = None) -> ClipSource:
    """Find the videos of a folder (or run, or archive) or of a Parquet file, with their prompts.

    - A run folder or its `archive`: all candidates whose video was kept.
    - Any other folder: its videos, in subfolders too, files and folders of pictures (see
      `videorl.videos.finding`). Prompts are those of `prompts`, of `prompts.csv` or `prompts.jsonl`
      in the folder (columns `video`, a path below the folder, and `prompt`), or else of a text file
      beside each video (`clip.txt` for `clip.mp4`).
    - A Parquet file: columns `video` (path, relative to the file, or the bytes of a video file) and
      `prompt`; `id`, if there, names the rows.

    Raises:
        VideoError: There is no such place, it holds no video, or a column is missing.
        PromptError: A file of prompts cannot be read.
    """
    place = place.absolute()
    if place.is_file():
        source = _from_parquet(place)
    elif not place.is_dir():
        raise VideoError(f"{place}: no such folder or Parquet file")
    elif (archive := _archive_in(place)) is not None:
        source = _listed(_archived(archive))
    else:
        source = _listed(_from_folder(place, prompts))
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


def _listed(clips: Sequence[Clip]) -> ClipSource:
    by_key = {clip.key: clip for clip in clips}

    def read(keys: Collection[Key]) -> Iterator[Clip]:
        return (clip for key, clip in by_key.items() if key in keys)

    return ClipSource(tuple(by_key), read)


def _archive_in(folder: Path) -> Path | None:
    for path in (folder, folder / "archive"):
        if any(path.glob("candidates/step-*.parquet")):
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


def _from_folder(folder: Path, prompts: Path | None) -> list[Clip]:
    found = videos_in(folder)
    beside = [folder / name for name in PROMPT_FILES if (folder / name).exists()]
    table = prompts or next(iter(beside), None)
    rows = _read_prompts(table) if table else []
    # Resolved, as a row may spell the path of a file as `./a.mp4`.
    listed = [(folder / video, prompt) for video, prompt in rows]
    known = {path.resolve() for path, _ in listed}
    others = [(path, _text_beside(path)) for path in found if path.resolve() not in known]
    return [Clip(_name(path, folder), prompt, str(path)) for path, prompt in (*listed, *others)]


def _name(path: Path, folder: Path) -> str:
    if path == folder:
        return path.name
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _text_beside(video: Path) -> str:
    text = text_beside(video)
    if not text.is_file():
        return ""
    try:
        return text.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise PromptError(f"{text} is not UTF-8: {error}") from error


def _read_prompts(path: Path) -> list[tuple[str, str]]:
    """Return (video, prompt) of every row of a CSV or JSON-lines file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".jsonl":
                rows: list[Any] = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file))
        return [(str(row["video"]), str(row["prompt"] or "").strip()) for row in rows]
    except OSError as error:
        raise PromptError(f"cannot read prompts from {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(
            f"{path} must be UTF-8 with `video` and `prompt` in every row, as CSV with a header or "
            f"as JSON lines (.jsonl): {type(error).__name__}: {error}"
        ) from error


def _from_parquet(path: Path) -> ClipSource:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        names = schema.names
        if missing := {"video", "prompt"} - set(names):
            raise VideoError(f"{path} has no column {sorted(missing)}; it has {', '.join(names)}")
        # Paths are read now; bytes may exceed memory and are read batch by batch.
        is_path = pa.types.is_string(schema.field("video").type)
        columns = ["prompt", *(["id"] if "id" in names else []), *(["video"] if is_path else [])]
        rows = pq.ParquetFile(path).read(columns).to_pylist()
    except pa.ArrowInvalid as error:
        raise VideoError(f"{path} is not a Parquet file: {error}") from error
    ids = [str(row.get("id") or row.get("video") or f"row {n}") for n, row in enumerate(rows)]
    keys = [(name, row["prompt"] or "") for name, row in zip(ids, rows, strict=True)]
    if is_path:
        files = [str(path.parent / (row["video"] or "")) for row in rows]
        return _listed([Clip(*key, file) for key, file in zip(keys, files, strict=True)])
    return ClipSource(tuple(dict.fromkeys(keys)), partial(_read_bytes, path, keys))


def _read_bytes(path: Path, all_keys: Sequence[Key], keys: Collection[Key]) -> Iterator[Clip]:
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
                    if (key := all_keys[start]) in left:
                        left.remove(key)
                        yield Clip(*key, _content(value.as_py()))
                    start += 1


def _content(value: Any) -> bytes:
    """Return the bytes of a video, which some data set tools wrap in a struct."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else b""
