"""What `archive.keep_gb` deletes: the oldest videos and latents, whole steps at a time.

Rows stay, of all tables; a candidate's video and latents become null, as where they were never
kept. A step's go together, so that no pair is left with one of its two videos. The rows change
first: an interruption leaves videos that no row names, which the next writer deletes.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from videorl.data.archive_compaction import rows_of, signs_of, write_rows
from videorl.data.archive_layout import Span, read_layout
from videorl.data.archive_tables import CANDIDATES
from videorl.files import sync, write_json
from videorl.files.steps import step_name, step_of

logger = logging.getLogger(__name__)

FILE = "removed.json"
_MEDIA = ("video", "latents", "latents_shape", "latents_dtype")
_LEFT = 0.9
"""Of what may be kept, so much is left when something is deleted: files are not rewritten often."""


class Retention:
    """Keeps the media of one archive below a number of bytes.

    Args:
        directory: The archive folder, of which the caller is the only writer.
        most_bytes: Of mp4 files and latents; 0 = nothing is ever deleted.
    """

    def __init__(self, directory: Path, most_bytes: float) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._bytes: dict[int, int] | None = None
        """Step -> bytes of its media; None = not looked at yet."""

    def forget(self) -> None:
        """Look at all that is there again, as it was changed."""
        self._bytes = None

    def after(self, step: int) -> None:
        """Take note of a step that was written, and delete what is too much.

        The newest step keeps its media, however many they are.

        Raises:
            OSError: A file could not be written or deleted.
            pyarrow.ArrowException: A candidates file is damaged.
        """
        if not self._most_bytes:
            return
        if self._bytes is None:
            _delete_unnamed(self._directory)
            self._bytes = _all_bytes(self._directory)
        else:
            self._bytes[step] = _video_bytes(self._directory, step) + _latent_bytes(
                self._directory, Span(step, step)
            )
        total = sum(self._bytes.values())
        if total <= self._most_bytes:
            return
        newest, end = max(self._bytes), 0
        for number in sorted(self._bytes):
            if total <= _LEFT * self._most_bytes or number == newest:
                break
            total -= self._bytes[number]
            end = number + 1
        self._delete(end)

    def _delete(self, end: int) -> None:
        """Delete the media of all steps before `end`."""
        assert self._bytes is not None
        gone = {step: size for step, size in self._bytes.items() if step < end and size}
        if not gone:
            return
        layout = read_layout(self._directory)
        num_latents = sum(
            _without_media(self._directory, span, end) for span in layout.spans_of(sorted(gone))
        )
        num_videos = 0
        for step in sorted(gone):
            folder = self._directory / "videos" / step_name(step)
            num_videos += sum(1 for _ in folder.glob("*.mp4"))
            shutil.rmtree(folder, ignore_errors=True)
            del self._bytes[step]
        size = sum(gone.values())
        _count(self._directory, {"videos": num_videos, "latents": num_latents, "bytes": size}, end)
        logger.warning(
            "archive.keep_gb=%g: %d videos and %d latents of steps %d to %d were deleted, "
            "%.3g GB; scores and pairs stay",
            self._most_bytes / 1e9,
            num_videos,
            num_latents,
            min(gone),
            end - 1,
            size / 1e9,
        )


def removed(directory: Path) -> dict[str, int]:
    """Return how many `videos`, `latents` and `bytes` were deleted; empty if none were.

    All are of steps before `end`.
    """
    try:
        return {name: int(count) for name, count in json.loads(_counts(directory)).items()}
    except FileNotFoundError:
        return {}


def _counts(directory: Path) -> str:
    return (directory / FILE).read_text(encoding="utf-8")


def _count(directory: Path, counts: dict[str, int], end: int) -> None:
    before = removed(directory)
    summed = {name: before.get(name, 0) + count for name, count in counts.items()}
    write_json(directory / FILE, {**summed, "end": max(end, before.get("end", 0))})


def _delete_unnamed(directory: Path) -> None:
    """Delete the videos of steps of which no row names any: an interruption left them."""
    layout = read_layout(directory)
    named: set[int] = set()
    for span in layout.spans:
        file = span.path(directory, "candidates")
        for batch in rows_of([file], CANDIDATES, ds.field("video").is_valid(), ["step"]):
            named.update(batch.column(0).to_pylist())
    for folder in (directory / "videos").glob("step-*"):
        step = step_of(folder.name)
        if step is not None and layout.has(step) and step not in named:
            shutil.rmtree(folder)


def _all_bytes(directory: Path) -> dict[int, int]:
    found: dict[int, int] = {}
    for folder in (directory / "videos").glob("step-*"):
        if (step := step_of(folder.name)) is not None:
            found[step] = _video_bytes(directory, step)
    for span in read_layout(directory).spans:
        for step, share in _latent_shares(directory, span).items():
            found[step] = found.get(step, 0) + share
    return found


def _latent_shares(directory: Path, span: Span) -> dict[int, int]:
    """Return step -> its part of the bytes that latents take in a file; steps without have 0."""
    size, counts = _latent_bytes(directory, span), dict.fromkeys(span.steps, 0)
    if size and span.is_partition:
        file = span.path(directory, "candidates")
        has_latents = ds.field("latents_shape").is_valid()
        for batch in rows_of([file], CANDIDATES, has_latents, ["step"]):
            for step in batch.column(0).to_pylist():
                counts[step] += 1
    elif size:
        counts[span.first] = 1
    total = max(sum(counts.values()), 1)
    return {step: size * count // total for step, count in counts.items()}


def _video_bytes(directory: Path, step: int) -> int:
    try:
        with os.scandir(directory / "videos" / step_name(step)) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:
        return 0


def _latent_bytes(directory: Path, span: Span) -> int:
    """Return the bytes of a file that latents take; 0 where it has none."""
    total = 0
    metadata = pq.read_metadata(span.path(directory, "candidates"))
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            statistics = column.statistics
            has_some = statistics is None or statistics.null_count < group.num_rows
            if column.path_in_schema == "latents" and has_some:
                total += column.total_compressed_size
    return total


def _without_media(directory: Path, span: Span, end: int) -> int:
    """Write a candidates file again without media of steps before `end`; return their latents."""
    file = span.path(directory, "candidates")
    old, others = ds.field("step") < end, ds.field("step") >= end
    names = [name for name in CANDIDATES.names if name not in _MEDIA]
    bare = (_with_nulls(batch) for batch in rows_of([file], CANDIDATES, old, names))
    kept = rows_of([file], CANDIDATES, others)
    shapes = rows_of([file], CANDIDATES, old, ["latents_shape"])
    num_latents = sum(len(batch) - batch.column(0).null_count for batch in shapes)
    partial = directory / f".merging-{span.name}.parquet"
    signs = signs_of(directory, span) if span.is_partition else {}
    try:
        write_rows(partial, CANDIDATES, chain(bare, kept), signs)
        os.replace(partial, file)
        sync(file.parent)
    finally:
        partial.unlink(missing_ok=True)
    return num_latents


def _with_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        pa.nulls(batch.num_rows, field.type)
        if field.name in _MEDIA
        else batch.column(batch.schema.get_field_index(field.name))
        for field in CANDIDATES
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CANDIDATES)
