"""Prompt files: text, JSON lines, CSV and Parquet.

Blank and repeated prompts are skipped, counted and named in the log. Whatever else cannot be
used is an error that names its line.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from videorl.data.prompt_rows import PromptRow, parse_row, usable_rows
from videorl.data.text_files import read_text
from videorl.errors import PromptError

DEFAULT_COLUMN = "prompt"

_OPTIONAL = ("id", "tags", "weight")
_FIRST_BYTES = {
    b"PAR1": "a Parquet file: end its name in .parquet",
    b"PK\x03\x04": "a zip archive, as Excel workbooks are: save the table as CSV",
    b"\x1f\x8b": "compressed by gzip: unpack it",
}
_OTHER_SUFFIXES = {
    ".json": "end its name in .jsonl, with one JSON object on each line",
    ".tsv": "save it as .csv, with commas between the columns",
}

_Row: TypeAlias = Mapping[str, Any] | str
"""Values by column, or what is wrong with a row."""
_Reader: TypeAlias = Callable[[Path, str], Iterator[tuple[str, _Row]]]
"""(file, column of the prompts) -> place of every row, for messages, and the row."""


def read_prompts(path: Path, column: str = DEFAULT_COLUMN) -> list[PromptRow]:
    """Read a prompt file, in file order.

    `.jsonl` has one JSON object per line, `.csv` a header, `.parquet` named columns; any other file
    is text with one prompt per line. Tables may have columns `id`, `tags` (a list, or text with
    commas) and `weight`; where a value is empty, the row has no id, no tags, or the weight 1.

    Args:
        path: The file; UTF-8, with or without a byte-order mark, with any line ends.
        column: The column of the prompts, in tables.

    Raises:
        PromptError: The file cannot be read, lacks the column, or holds rows that cannot be used,
            or no prompt at all.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            first_bytes = file.read(4)
        if suffix in _OTHER_SUFFIXES:
            raise PromptError(f"{path} is of no kind that is read: {_OTHER_SUFFIXES[suffix]}")
        for mark, kind in _FIRST_BYTES.items():
            if first_bytes.startswith(mark) and (mark != b"PAR1" or suffix not in _PARQUET):
                raise PromptError(f"{path} is {kind}")
        rows = [
            (place, row if isinstance(row, str) else parse_row(row, column))
            for place, row in _READERS.get(suffix, _text_rows)(path, column)
        ]
    except OSError as error:
        here = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise PromptError(
            f"cannot read prompts from {path}{here}: {error.strerror or error}; give "
            "`moving_shapes`, module:function, or a file: text with one prompt per line, .jsonl, "
            ".csv or .parquet"
        ) from error
    return usable_rows(str(path), rows)


def _text_rows(path: Path, column: str) -> Iterator[tuple[str, _Row]]:
    if column != DEFAULT_COLUMN:
        raise PromptError(f"{path} is read as plain text, which has no column {column!r}: omit it")
    lines = _lines(path)
    texts = [line.strip() for line in lines if line.strip()]
    if texts and all(text.startswith("{") and text.endswith("}") for text in texts):
        raise PromptError(f"{path} looks like JSON lines: end its name in .jsonl")
    header = [name.strip(' "') for name in texts[0].split(",")] if texts else []
    if column in header and len(header) > 1:
        raise PromptError(f"{path} looks like CSV, with a header: end its name in .csv")
    for number, line in enumerate(lines, 1):
        yield f"line {number}", {column: line}


def _json_rows(path: Path, column: str) -> Iterator[tuple[str, _Row]]:
    for number, line in enumerate(_lines(path), 1):
        place = f"line {number}"
        if not line.strip():
            yield place, {column: ""}
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield place, f"is not JSON ({error.msg} at character {error.colno})"
            continue
        if not isinstance(row, dict):
            yield place, f"must be a JSON object, got {line.strip():.60}"
        else:
            yield place, _wrong_columns(list(row), column) or row


def _csv_rows(path: Path, column: str) -> Iterator[tuple[str, _Row]]:
    # Strict, or a quote that is never closed would swallow the rest of the file.
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""), strict=True, skipinitialspace=True
    )
    names: list[str] = []
    while True:
        # A row ends at `line_num`, and may have begun lines before.
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PromptError(f"{path}, {place}: is not CSV ({error})") from error
        if cells is None:
            return
        if len(cells) < 2 and not "".join(cells).strip():
            yield place, {column: ""}
        elif not names:
            names = [name.strip() for name in cells]
            if problem := _wrong_columns(names, column):
                raise PromptError(f"{path} {problem}")
        elif len(cells) == len(names):
            yield place, dict(zip(names, cells, strict=True))
        else:
            yield (
                place,
                f"has {len(cells)} fields, but the header has {len(names)}; a text with commas "
                "must be quoted",
            )


def _parquet_rows(path: Path, column: str) -> Iterator[tuple[str, _Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not `read_table`: other columns may hold whole videos.
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if problem := _wrong_columns(names, column):
                raise PromptError(f"{path} {problem}")
            table = file.read(
                [name for name in dict.fromkeys((column, *_OPTIONAL)) if name in names]
            )
        table.validate(full=True)
    except pa.ArrowException as error:
        raise PromptError(f"{path} is not a readable Parquet file: {error}") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


_PARQUET = (".parquet", ".pq")
_READERS: dict[str, _Reader] = {
    ".txt": _text_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".csv": _csv_rows,
    **dict.fromkeys(_PARQUET, _parquet_rows),
}
"""By the end of a file's name; files with other ends are text."""


def _lines(path: Path) -> list[str]:
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []


def _wrong_columns(names: Sequence[str], column: str) -> str:
    """Return what is wrong with the names of columns; empty if nothing is."""
    for name in (column, *_OPTIONAL):
        if names.count(name) > 1:
            return f"has {names.count(name)} columns {name!r}"
    if column in names:
        return ""
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        return f"has no column {column!r}, but {names[0]!r}; separate columns by commas"
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"has no column {column!r}, but {', '.join(names) or 'none at all'}; {hint}prompts.column, "
        "or evaluation.column, says which to read"
    )
