"""Tables as people have them: CSV, JSON, JSON lines and Parquet, read row by row.

A row that cannot be read costs itself alone: what is wrong with it stands in its place. What
concerns the whole file (its kind, its encoding, a missing column) is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from videorl.data.parquet_rows import parquet_rows
from videorl.data.table_rows import BLANK, BadRow, Columns, Row, Rows, unreadable
from videorl.data.text_files import read_lines, read_text
from videorl.errors import TableError

PARQUET = (".parquet", ".pq")

_FIRST_BYTES = {
    b"PAR1": "a Parquet file: end its name in .parquet",
    b"PK\x03\x04": "a zip archive, as Excel workbooks are: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the table as CSV",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard: unpack it",
    b"%PDF": "a PDF document: save it as text",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"version https://git-lfs": "a pointer of Git LFS, without the content: run `git lfs pull`",
    b"<!doctype html": "a web page, as a failed download leaves it: download it again",
    b"<html": "a web page, as a failed download leaves it: download it again",
}
"""In small letters; what a file of another kind begins with."""

_Reader: TypeAlias = Callable[[Path, Columns], Rows]


def read_rows(path: Path, columns: Columns) -> Rows:
    """Yield the rows of a table, by the end of its name, in file order.

    - `.csv`: a header; commas, quotes and line breaks inside quotes; values are texts.
    - `.jsonl`, `.ndjson`: an object on each line.
    - `.json`: a list of objects, or of texts where one column is wanted.
    - `.parquet`, `.pq`: any type of Arrow; values are Python's.

    Raises:
        TableError: The file cannot be read, is of another kind than its name says or is not UTF-8,
            lacks a column, or cannot be divided into rows.
    """
    check_kind(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TableError(f"{path} is of no kind that is read: {', '.join(READERS)}")
    try:
        yield from reader(path, columns)
    except OSError as error:
        raise unreadable(path, error) from error


def check_kind(path: Path) -> None:
    """Refuse a file that begins as one of another kind than its name says.

    Raises:
        TableError: It does, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            first_bytes = file.read(64).lower().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise unreadable(path, error) from error
    for mark, kind in _FIRST_BYTES.items():
        is_named_so = mark == b"PAR1" and path.suffix.lower() in PARQUET
        if first_bytes.startswith(mark.lower()) and not is_named_so:
            raise TableError(f"{path} is {kind}")


def _csv_rows(path: Path, columns: Columns) -> Rows:
    # Other columns may hold long texts; the limit is that of the process.
    csv.field_size_limit(2**31 - 1)
    text = io.StringIO(read_text(path), newline="")
    # Strict, or a quote that is never closed would swallow the rest of the file.
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    names: list[str] = []
    while True:
        # A row ends at `line_num`, and may have begun lines before.
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if not names or reader.line_num > start:  # where a row ends cannot be known
                raise TableError(
                    f"{path}, line {start}: is not CSV ({error}); a quote inside quotes is "
                    "written twice"
                ) from error
            yield f"line {start}", BadRow(f"is not CSV ({error})")
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            yield f"line {start}", BLANK
        elif not names:
            names = [name.strip() for name in cells]
            if problem := columns.problem(names):
                raise TableError(f"{path} {problem}")
        else:
            yield f"line {start}", _fields(cells, names)


def _fields(cells: Sequence[str], names: Sequence[str]) -> Row | BadRow:
    row = dict(zip(names, cells, strict=False))
    if len(cells) == len(names):
        return row
    return BadRow(
        f"has {len(cells)} fields, but the header has {len(names)}; a text with commas must be "
        "quoted",
        row,
    )


def _json_rows(path: Path, columns: Columns) -> Rows:
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            place = f"line {error.lineno}, character {error.colno}"
            raise TableError(f"{path}, {place}: is not JSON ({error.msg})") from error
        yield from _json_line_rows(path, columns)
        return
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, list | dict):
        raise TableError(f"{path} must hold a list of JSON objects, got {text.strip():.60}")
    for number, item in enumerate(content if isinstance(content, list) else [content], 1):
        yield f"item {number}", _json_row(item, columns)


def _json_line_rows(path: Path, columns: Columns) -> Rows:
    for number, line in enumerate(read_lines(path), 1):
        place = f"line {number}"
        if not line.strip():
            yield place, BLANK
            continue
        try:
            item = json.loads(line, object_pairs_hook=_Object)
        except json.JSONDecodeError as error:
            yield place, BadRow(f"is not JSON ({error.msg} at character {error.colno})")
        except (ValueError, RecursionError) as error:
            yield place, BadRow(f"is not JSON ({error})")
        else:
            yield place, _json_row(item, columns)


class _Object(dict[str, Any]):
    """A JSON object that knows which keys it was given: those that stand twice, too."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.given = [name for name, _ in pairs]


def _json_row(item: Any, columns: Columns) -> Row | BadRow:
    if isinstance(item, str) and len(columns.wanted) == 1:
        return {columns.wanted[0]: item}
    if not isinstance(item, _Object):
        return BadRow(f"must be a JSON object, got {json.dumps(item):.60}")
    problem = columns.problem(item.given)
    return BadRow(problem, item) if problem else item


READERS: dict[str, _Reader] = {
    ".csv": _csv_rows,
    ".jsonl": _json_line_rows,
    ".ndjson": _json_line_rows,
    ".json": _json_rows,
    **dict.fromkeys(PARQUET, parquet_rows),
}
"""By the end of a file's name."""
