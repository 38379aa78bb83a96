"""Rows of a table of videos and their prompts; those that cannot be used say why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.data.table_rows import BLANK, BadRow, Columns, Row
from videorl.data.tables import read_rows
from videorl.data.text_files import printable, problem_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One row; all of its texts can be written anywhere."""

    id: str
    """The user's own name of it; empty = none."""
    video: str
    """Path as it stands there; empty if there is none, or if videos were not read."""
    prompt: str
    """Without spaces around it; empty if there is none."""
    problem: str = ""
    """Why it cannot be scored, with file and line; empty = it can."""


def read_clip_rows(path: Path, with_videos: bool = True) -> Iterator[ClipRow]:
    """Yield the rows of a table with the columns `video`, `prompt` and, where it is there, `id`.

    Rows that cannot be used are logged.

    Args:
        path: Of a kind that `videorl.data.tables.read_rows` reads.
        with_videos: Whether `video` is a column of paths, to be read.

    Raises:
        TableError: See `read_rows`.
    """
    wanted = ("video", "prompt") if with_videos else ("prompt",)
    for place, row in read_rows(path, Columns(wanted, ("id",))):
        if row is BLANK:
            continue
        is_bad = isinstance(row, BadRow)
        values = row.values if is_bad else row
        problem = row.reason if is_bad else _problem(row, with_videos)
        if problem:
            problem = f"{path.name}, {place}: {problem}"
            logger.warning("not scored: %s", problem)
        name = values.get("id")
        yield ClipRow(
            "" if name is None else printable(str(name)),
            _text(values.get("video")),
            _text(values.get("prompt")).strip(),
            problem,
        )


def _problem(row: Row, with_videos: bool) -> str:
    """Return what is wrong with the values of a row; empty if nothing is."""
    video, prompt = row["video"] if with_videos else "-", row["prompt"]
    if video is None or video == "":
        return "has no video"
    if not isinstance(video, str) or "\0" in video:
        return f"video must be a path, got {video!r:.60}"
    if not isinstance(prompt, str | None):
        return f"prompt must be text, got {prompt!r:.60}"
    return problem_of(video) or problem_of(prompt or "")


def _text(value: Any) -> str:
    """Return a value as a text that can be written anywhere, and may be part of a path."""
    return printable(value).replace("\0", "\\0") if isinstance(value, str) else ""
