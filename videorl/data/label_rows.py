"""Tables of people's labels: rows that cannot be used are logged, counted and left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from videorl.data.table_rows import BLANK, BadRow, Columns, Row
from videorl.data.tables import read_rows
from videorl.data.text_files import problem_of
from videorl.errors import DatasetError, TableError

V = TypeVar("V")
logger = logging.getLogger(__name__)

_SHOWN = 5
"""Number of skipped rows that are logged one by one."""


def read_labels(
    path: Path, columns: Sequence[str], read: Callable[[Row], V]
) -> tuple[list[V], int]:
    """Return what `read` makes of the usable rows of a table, and how many others there are.

    Args:
        path: A table, see `videorl.data.tables.read_rows`.
        columns: Names of the columns that it must have.
        read: Raises DatasetError for a row that cannot be used.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    usable: list[V] = []
    skipped: list[tuple[str, DatasetError]] = []
    try:
        for place, row in read_rows(path, Columns(tuple(columns))):
            if row is BLANK:
                continue
            try:
                usable.append(read(_checked(row)))
            except DatasetError as error:
                skipped.append((place, error))
    except TableError as error:
        raise DatasetError(str(error)) from error
    for place, error in skipped[:_SHOWN]:
        logger.warning("%s, %s skipped: %s", path, place, error)
    if not usable and not skipped:
        raise DatasetError(f"{path} has no usable row: it is empty")
    if not usable:
        place, error = skipped[0]
        raise DatasetError(
            f"{path} has no usable row; {len(skipped)} were skipped, {place}: {error}"
        )
    if skipped:
        total = len(skipped) + len(usable)
        logger.warning("%s: %d of %d rows skipped", path, len(skipped), total)
    return usable, len(skipped)


def _checked(row: Row | BadRow) -> Row:
    if isinstance(row, BadRow):
        raise DatasetError(row.reason)
    return row


def texts_of(row: Row, names: Iterable[str]) -> dict[str, str]:
    """Return values of a row without spaces around them; each must be a text that says something.

    Raises:
        DatasetError: A value is missing, empty, no text, or no valid Unicode.
    """
    texts: dict[str, str] = {}
    for name in names:
        value = row[name]
        if value is None or value == "" or (isinstance(value, str) and not value.strip()):
            raise DatasetError(f"nothing in column {name!r}")
        if not isinstance(value, str):
            raise DatasetError(f"{name} must be text, got {value!r:.60}")
        if problem := problem_of(value):
            raise DatasetError(f"{name}: {problem}")
        texts[name] = value.strip()
    return texts


def name_of(row: Row, column: str) -> str:
    """Return what a column calls a row: a text, or a whole number.

    Raises:
        DatasetError: It is neither.
    """
    value = row[column]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what pandas makes of whole numbers where some rows have none
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return texts_of(row, [column])[column]


def numbers_of(row: Row, names: Iterable[str]) -> dict[str, float]:
    """Return values of a row as finite numbers.

    Raises:
        DatasetError: A value is no number, or is not finite.
    """
    numbers: dict[str, float] = {}
    for name in names:
        value = row[name]
        try:
            numbers[name] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            numbers[name] = math.nan
        if not math.isfinite(numbers[name]):
            raise DatasetError(f"{name} must be a finite number, got {value!r:.60}")
    return numbers
