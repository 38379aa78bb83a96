"""What every reader of a label file does: check its columns, and skip the rows it cannot use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from videorl.errors import DatasetError

R = TypeVar("R")
V = TypeVar("V")
logger = logging.getLogger(__name__)

_SHOWN = 5
"""Number of skipped rows that are logged one by one."""


def check_columns(path: Path, found: Collection[str], wanted: Sequence[str]) -> None:
    """Check that a file has all `wanted` columns.

    Raises:
        DatasetError: Columns are missing.
    """
    if missing := [name for name in wanted if name not in found]:
        raise DatasetError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(found) or 'nothing'}"
        )


def usable_rows(
    path: Path, rows: Iterable[tuple[str, R]], read: Callable[[R], V]
) -> tuple[list[V], int]:
    """Return what `read` makes of the usable rows, and how many were skipped; those are logged.

    Args:
        path: The file, for messages.
        rows: Where each row is ("line 3"), and the row.
        read: Raises DatasetError for a row that cannot be used.

    Raises:
        DatasetError: No row can be used.
    """
    usable: list[V] = []
    num_skipped = 0
    for place, row in rows:
        try:
            usable.append(read(row))
        except DatasetError as error:
            num_skipped += 1
            if num_skipped <= _SHOWN:
                logger.warning("%s, %s skipped: %s", path, place, error)
    if not usable:
        raise DatasetError(f"{path} has no usable row; {num_skipped} were skipped")
    if num_skipped:
        total = num_skipped + len(usable)
        logger.warning("%s: %d of %d rows skipped", path, num_skipped, total)
    return usable, num_skipped
