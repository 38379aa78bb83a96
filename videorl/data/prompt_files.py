"""Prompt files: text, CSV, JSON, JSON lines and Parquet, told apart by the end of their name."""

from __future__ import annotations

import json
from pathlib import Path

from videorl.data.prompt_rows import PromptRow, parse_row, usable_rows
from videorl.data.table_rows import BLANK, BadRow, Columns, Row, Rows
from videorl.data.tables import READERS, check_kind, read_rows
from videorl.data.text_files import read_lines
from videorl.errors import PromptError, TableError

DEFAULT_COLUMN = "prompt"

_OPTIONAL = ("id", "tags", "weight", "image")
_HINT = "prompts.column, or evaluation.column, says which to read"
_TEXT = (".txt", ".text", ".list", ".lst", "")
"""Ends of names of files with one prompt on each line."""
_HEADERS = frozenset({"prompt", "prompts", "caption", "captions", "text", "text prompt"})
"""What a column of prompts is called; a line of such words is a header, and no prompt."""


def read_prompts(path: Path, column: str = DEFAULT_COLUMN) -> list[PromptRow]:
    """Read a prompt file, in file order.

    A table (see `videorl.data.tables.read_rows`) may have columns `id`, `tags` (a list, or text
    with commas) `weight` and `image` (the path of a picture, relative to the file's folder, or
    absolute); where a value is empty, the row has no id, no tags, the weight 1, or no image.
    `.txt`, or no end at all, is text with one prompt per line. Rows that cannot be used are left
    out, named in the log by their lines, and counted; so are blank and repeated prompts.

    Args:
        path: The file; UTF-8, with or without a byte-order mark, with any line ends.
        column: The column of the prompts, in tables.

    Raises:
        PromptError: The file cannot be read, is of no kind that is read, lacks the column, or no
            row of it can be used.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        here = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise PromptError(
            f"cannot read prompts from {path}{here}: {error.strerror or error}; give "
            "`moving_shapes`, module:function, or a file: text with one prompt per line, "
            f"{', '.join(READERS)}"
        ) from error
    try:
        rows = [
            (place, row if isinstance(row, BadRow) else parse_row(row, column, path.parent))
            for place, row in _rows(path, column)
        ]
    except TableError as error:
        raise PromptError(str(error)) from error
    return usable_rows(str(path), rows)


def _rows(path: Path, column: str) -> Rows:
    check_kind(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        # The line ends inside of a prompt are not those of the system that saved the file.
        rows = read_rows(path, Columns((column,), _OPTIONAL, _HINT))
        return ((place, _with_line_feeds(row, column)) for place, row in rows)
    if suffix in READERS:
        return read_rows(path, Columns((column,), _OPTIONAL, _HINT))
    if suffix == ".tsv":
        raise TableError(f"{path} is of no kind that is read: save it as .csv, with commas")
    if suffix not in _TEXT:
        raise TableError(
            f"{path} is of no kind that is read: end its name in .txt if it has one prompt on each "
            f"line; tables are {', '.join(READERS)}"
        )
    if column != DEFAULT_COLUMN:
        raise TableError(f"{path} is read as plain text, which has no column {column!r}: omit it")
    return _text_rows(path)


def _with_line_feeds(row: Row | BadRow, column: str) -> Row | BadRow:
    if isinstance(row, BadRow):
        return row
    return {**row, column: row[column].replace("\r\n", "\n").replace("\r", "\n")}


def _text_rows(path: Path) -> Rows:
    lines = read_lines(path)
    texts = [line.strip() for line in lines if line.strip()]
    if texts and all(_is_json(text) for text in texts):
        raise TableError(f"{path} looks like JSON lines: end its name in .jsonl")
    if texts and texts[0].startswith(("[", "{")) and _is_json("".join(texts)):
        raise TableError(f"{path} holds JSON: end its name in .json")
    if texts and _is_header(texts[0]):
        raise TableError(
            f"{path} looks like CSV, with a header: end its name in .csv. If {texts[0]!r} is a "
            "prompt, put another one above it"
        )
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield f"line {number}", BLANK
        elif _is_json(line.strip()):
            yield f"line {number}", BadRow(f"is JSON, and no prompt: {line.strip():.60}")
        else:
            yield f"line {number}", {DEFAULT_COLUMN: line}


def _is_json(text: str) -> bool:
    """Return whether a line is an object or a list of JSON, or begins like one of texts."""
    if not text.startswith(("{", "[")):
        return False
    if text[1:].lstrip().startswith(('"', "{")):
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_header(line: str) -> bool:
    """Return whether a line names columns, one of which holds prompts."""
    for separator in (",", ";", "\t", "|"):
        names = [name.strip(' "').lower().replace("_", " ") for name in line.split(separator)]
        are_short = all(name.replace(" ", "").isalnum() and name.count(" ") < 2 for name in names)
        if are_short and _HEADERS.intersection(names):
            return True
    return False
