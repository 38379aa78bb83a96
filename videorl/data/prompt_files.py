"""Prompt files: text, JSON lines, CSV and Parquet, read strictly.

Empty prompts and repeated ones are skipped, counted and named by line; anything else that cannot be
used is an error that names its line.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from videorl.errors import PromptError

logger = logging.getLogger(__name__)

_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Longer ones first: that of UTF-32 begins with that of UTF-16."""
_NAMED_LINES = 5
"""Skipped lines that are named."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt of a source."""

    text: str
    id: str = ""
    """The user's own name of it; empty = none."""
    tags: tuple[str, ...] = ()
    weight: float = 1.0
    """How often it is drawn, relative to the others; >= 0."""


def read_prompts(path: Path, column: str = "prompt") -> list[PromptRow]:
    """Read a prompt file, in file order.

    `.jsonl` has one JSON object per line, `.csv` a header, `.parquet` named columns; any other file
    is text with one prompt per line. Tables may have columns `id`, `tags` (a list, or text with
    commas) and `weight`.

    Args:
        path: The file; UTF-8, with or without a byte-order mark and CRLF.
        column: The column of the prompts, in tables.

    Raises:
        PromptError: The file cannot be read, or holds a line that cannot be used, or no prompt.
    """
    read = _text_rows
    if path.suffix.lower() in _PARQUET:
        read = _parquet_rows
    elif path.suffix.lower() in _JSON_LINES:
        read = _json_rows
    elif path.suffix.lower() == ".csv":
        read = _csv_rows
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PromptError(
            f"cannot read prompts from {path}: {error.strerror}; give `moving_shapes`, "
            "module:function, or a file: text with one prompt per line, .jsonl, .csv or .parquet"
        ) from error
    rows = ((place, _row(path, place, row, column)) for place, row in read(path, content, column))
    return _checked(path, rows)


def _text_rows(path: Path, content: bytes, column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines = list(_lines(path, content))
    texts = [text for _, text in lines if text.strip()]
    if content.startswith(b"PAR1"):
        raise PromptError(f"{path} is a Parquet file: call it {path.stem}.parquet")
    if texts and all(text.strip().startswith("{") and text.strip().endswith("}") for text in texts):
        raise PromptError(f"{path} looks like JSON lines: call it {path.stem}.jsonl")
    for number, text in lines:
        yield f"line {number}", {column: text}


def _json_rows(path: Path, content: bytes, column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, text in _lines(path, content):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise PromptError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise PromptError(f"{path}, line {number} must be a JSON object, got {text[:60]!r}")
        if column not in row:
            _no_column(f"{path}, line {number}", column, row)
        yield f"line {number}", row


def _csv_rows(path: Path, content: bytes, column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = "\n".join(line for _, line in _lines(path, content, keep_returns=True))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if reader.fieldnames is None:
            return
        if column not in reader.fieldnames:
            _no_column(str(path), column, reader.fieldnames)
        before = reader.line_num
        for row in reader:
            # Where the row begins: quoted line breaks make it longer than one line.
            place, before = f"line {before + 1}", reader.line_num
            if None in row or None in row.values():
                wanted = len(reader.fieldnames)
                raise PromptError(f"{path}, {place} must have {wanted} fields, as the header has")
            yield place, row
    except csv.Error as error:
        raise PromptError(f"{path}, line {reader.line_num} is not CSV: {error}") from error


def _parquet_rows(
    path: Path, content: bytes, column: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise PromptError(f"{path} is not a Parquet file: {error}") from error
    if column not in table.column_names:
        _no_column(str(path), column, table.column_names)
    names = [name for name in (column, "id", "tags", "weight") if name in table.column_names]
    for number, row in enumerate(table.select(names).to_pylist(), 1):
        yield f"row {number}", row


def _lines(path: Path, content: bytes, *, keep_returns: bool = False) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line; a line feed ends one, with or without a return."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            _not_utf8(path, f"it begins as {encoding} does", encoding.lower())
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content[:1000]:
        _not_utf8(path, "it holds zero bytes, as UTF-16 does", "utf-16")
    # Files of old editors end lines with returns alone.
    lines = content.split(b"\n" if b"\n" in content else b"\r")
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"line {number}: byte {error.start + 1} is not UTF-8"
            _not_utf8(path, problem, "latin1")
        yield number, text if keep_returns else text.removesuffix("\r")


def _row(path: Path, place: str, row: Mapping[str, Any], column: str) -> PromptRow:
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise PromptError(f"{path}, {place}: {column} must be text, got {text!r}")
    name = row.get("id")
    return PromptRow(
        (text or "").strip(),
        "" if name is None else str(name).strip(),
        _tags(path, place, row.get("tags")),
        _weight(path, place, row.get("weight")),
    )


def _tags(path: Path, place: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [tag for tag in map(str.strip, value.split(",")) if tag]
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise PromptError(
            f"{path}, {place}: tags must be a list of texts, or text with commas, got {value!r}"
        )
    return tuple(value)


def _weight(path: Path, place: str, value: Any) -> float:
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise PromptError(f"{path}, {place}: weight must be a number >= 0, got {value!r}")
    return weight


def _checked(path: Path, rows: Iterable[tuple[str, PromptRow]]) -> list[PromptRow]:
    """Skip what is empty or repeated, and say so; refuse ids that occur twice."""
    kept: dict[str, PromptRow] = {}
    ids: dict[str, str] = {}
    empty: list[str] = []
    repeated: list[str] = []
    for place, row in rows:
        if not row.text:
            empty.append(place)
        elif row.text in kept:
            repeated.append(place)
        else:
            if row.id and row.id in ids:
                raise PromptError(f"{path}, {place}: id {row.id!r} is that of {ids[row.id]} too")
            ids[row.id] = place
            kept[row.text] = row
    if not kept:
        raise PromptError(f"{path} holds no prompt: all of its {len(empty)} lines are blank")
    if empty or repeated:
        logger.warning(
            "%s: skipped %d blank and %d duplicate lines, kept %d prompts (%s)",
            path,
            len(empty),
            len(repeated),
            len(kept),
            _named([*empty, *repeated]),
        )
    if not any(row.weight for row in kept.values()):
        raise PromptError(f"{path}: all weights are 0, so that no prompt can be drawn")
    return list(kept.values())


def _named(places: list[str]) -> str:
    more = len(places) - _NAMED_LINES
    return ", ".join(places[:_NAMED_LINES]) + (f" and {more} more" if more > 0 else "")


def _no_column(where: str, column: str, columns: Iterable[str]) -> NoReturn:
    known = list(columns)
    near = difflib.get_close_matches(column, known, n=1, cutoff=0.5)
    hint = f"; did you mean prompts.column={near[0]}?" if near else ""
    raise PromptError(f"{where} has no column {column!r}, but {', '.join(known)}{hint}")


def _not_utf8(path: Path, problem: str, likely: str) -> NoReturn:
    raise PromptError(
        f"{path}, {problem}; save the file as UTF-8 (e.g. `iconv -f {likely} -t utf-8 {path.name}`)"
    )
