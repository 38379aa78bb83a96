"""Small files of single steps are merged into partitions, and taken apart again.

At any moment each step is in exactly one committed place, see `videorl.data.archive_layout`: new
files come under another name, are forced to disk, and count from the moment on when their
candidates file is there, or that of the wider partition is gone. What an interruption leaves is
invisible, and `tidy` removes it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from videorl.data.archive_layout import Layout, Span, files_of, read_layout
from videorl.data.archive_tables import SCHEMAS
from videorl.errors import ArchiveError
from videorl.files import sync

logger = logging.getLogger(__name__)

STEPS_PER_FILE = 100
"""Steps of a partition."""
KEPT_APART = 8
"""So many newest steps are never merged: the driver may ask for them to be written again."""
_MOST_BYTES = 2**30
"""Of a partition's candidates file, which may hold latents: it is written again as a whole."""
_GROUP_BYTES = 8 * 2**20
"""Of a row group: rows of a step with latents are found without reading those of others."""
_SIGNS = b"videorl.signs"
"""Metadata of a partition: step -> what told changes of the file that it replaced."""

Sign = tuple[int, int]
"""Number of a file in its file system, and its time in ns."""


def next_merge(
    directory: Path, layout: Layout, steps_per_file: int, left_out: Collection[Span] = ()
) -> list[Span]:
    """Return the next files to merge, none if nothing is due.

    Args:
        directory: The archive folder.
        layout: Its committed files.
        steps_per_file: Partitions end before multiples of it.
        left_out: Files that cannot be merged.
    """
    newest = layout.spans[-1].last if layout.spans else -1
    blocks: dict[int, list[Span]] = {}
    for span in layout.spans:
        block = span.first // steps_per_file
        if (block + 1) * steps_per_file + KEPT_APART <= newest + 1:
            blocks.setdefault(block, []).append(span)
    for spans in blocks.values():
        if len(spans) > 1 and (due := _first_run(directory, spans, left_out)):
            return due
    return []


def _first_run(directory: Path, spans: Sequence[Span], left_out: Collection[Span]) -> list[Span]:
    """Return the first files in a row that together make a partition of bounded size."""
    run, size = list[Span](), 0
    for span in spans:
        files = [span.path(directory, name) for name in SCHEMAS]
        is_whole = span not in left_out and all(file.exists() for file in files)
        own = span.path(directory, "candidates").stat().st_size if is_whole else 0
        fits = run and run[-1].last + 1 == span.first and size + own <= _MOST_BYTES
        if not (is_whole and fits):
            if len(run) > 1:
                break
            run, size = [], 0
        if is_whole:
            run, size = [*run, span], size + own
    return run if len(run) > 1 else []


def merge(directory: Path, spans: Sequence[Span]) -> Span:
    """Replace files of steps in a row by a partition; return it.

    Raises:
        OSError: It could not be written; nothing has changed then.
        pyarrow.ArrowException: A file is damaged; likewise.
    """
    whole = Span(spans[0].first, spans[-1].last)
    signs = {step: sign for span in spans for step, sign in signs_of(directory, span).items()}
    _replace(directory, whole, spans, signs)
    for span in spans:
        remove(directory, span)
    return whole


def split(directory: Path, span: Span, step: int) -> None:
    """Replace a partition by one of the steps before `step`, and files of each step from it on.

    Raises:
        OSError: They could not be written; nothing has changed then.
        ArchiveError: A file is damaged; likewise.
    """
    try:
        _take_apart(directory, span, step)
    except pa.ArrowException as error:
        file = directory / f"*/{span.name}.parquet"
        raise ArchiveError(f"{file} is damaged, put back a copy of it: {error}") from error


def _take_apart(directory: Path, span: Span, step: int) -> None:
    for number in range(max(step, span.first), span.last + 1):
        _replace(directory, Span(number, number), [span], {})
    if span.first < step:
        head = range(span.first, step)
        signs = {n: sign for n, sign in signs_of(directory, span).items() if n in head}
        _replace(directory, Span(span.first, step - 1), [span], signs)
    remove(directory, span)


def remove(directory: Path, span: Span) -> None:
    """Delete the tables of some steps, candidates first."""
    for name in reversed(SCHEMAS):
        span.path(directory, name).unlink(missing_ok=True)
        if name == "candidates" and span.is_partition:
            # Were it still there after a power cut, it would commit steps without tables.
            _sync(directory, name)


def tidy(directory: Path) -> None:
    """Delete what an interrupted writer left: hidden folders, and files that do not count."""
    for leftover in (*directory.glob(".partial-*"), *directory.glob(".merging-*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    layout = read_layout(directory)
    for name in reversed(SCHEMAS):
        for span in files_of(directory, name) - set(layout.spans):
            if span.is_partition or layout.has(span.first):
                span.path(directory, name).unlink(missing_ok=True)


def signs_of(directory: Path, span: Span) -> dict[int, Sign]:
    """Return step -> what changes when a step is written again, though not when it is merged.

    Of a damaged partition it is what changes when its file is replaced.

    Raises:
        FileNotFoundError: The file is not there.
    """
    file = span.path(directory, "candidates")
    facts = file.stat()
    own = facts.st_ino, facts.st_mtime_ns
    if not span.is_partition:
        return {span.first: own}
    try:
        kept = (pq.read_metadata(file).metadata or {}).get(_SIGNS, b"{}")
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        kept = b"{}"
    known = {int(step): (sign[0], sign[1]) for step, sign in json.loads(kept).items()}
    return {step: known.get(step, own) for step in span.steps}


def _replace(
    directory: Path, span: Span, sources: Sequence[Span], signs: Mapping[int, Sign]
) -> None:
    """Write the files of `span` from those of others; its candidates file comes last."""
    partial = directory / f".merging-{span.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name, schema in SCHEMAS.items():
            files = [source.path(directory, name) for source in sources]
            rows = _rows(files, schema, span)
            write_rows(partial / f"{name}.parquet", schema, rows, signs)
        for name in SCHEMAS:
            if name == "candidates":  # what it commits must be on disk before it
                for other in SCHEMAS:
                    _sync(directory, other)
            os.replace(partial / f"{name}.parquet", span.path(directory, name))
        _sync(directory, "candidates")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rows(files: Sequence[Path], schema: pa.Schema, span: Span) -> Iterator[pa.RecordBatch]:
    wanted: Any = (ds.field("step") >= span.first) & (ds.field("step") <= span.last)
    return rows_of(files, schema, wanted)


def rows_of(
    files: Sequence[Path], schema: pa.Schema, wanted: Any, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of files that an expression wants, in order, and few of them at a time."""
    dataset = ds.dataset(list(files), schema=schema, format="parquet")
    yield from dataset.to_batches(
        columns=columns,
        filter=wanted,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    )


def write_rows(
    file: Path,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    signs: Mapping[int, Sign] | None = None,
) -> None:
    """Write a table in row groups of bounded size, on disk when this returns."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting, size = list[pa.RecordBatch](), 0
        for batch in batches:
            if waiting and size + batch.nbytes > _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting, size = [], 0
            if batch.num_rows:
                waiting, size = [*waiting, batch], size + batch.nbytes
        # At the end even without rows: a file needs a schema, and older readers a row group.
        writer.write_table(pa.Table.from_batches(waiting, schema))
        if signs:
            kept = json.dumps({str(step): sign for step, sign in signs.items()})
            writer.add_key_value_metadata({_SIGNS.decode(): kept})
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _sync(directory: Path, table: str) -> None:
    sync(directory / table)
