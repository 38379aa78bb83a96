"""Labelled pairs of videos, in the CSV columns of VideoAlign and VideoGen-RewardBench."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videorl.errors import DatasetError
from videorl.reward_training.label_rows import check_columns, usable_rows
from videorl.reward_training.losses import INVALID, PREFERS_A, PREFERS_B, SAME

DIMENSIONS = ("VQ", "MQ", "TA")
LABELS = {"A": PREFERS_A, "B": PREFERS_B, "same": SAME, "invalid": INVALID}
COLUMNS = ("path_A", "path_B", "prompt")
"""Columns needed besides the dimensions; others (frame rates, models, …) are ignored."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two videos of a prompt, and which is better on each dimension."""

    path_a: Path
    path_b: Path
    prompt: str
    labels: tuple[int, ...]
    """Per dimension: 1 A is better, -1 B is better, 0 same, 22 invalid; see `losses`."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The usable rows of a file, in order, and the number of other rows."""

    pairs: tuple[LabelledPair, ...]
    num_skipped: int


def read_pairs(
    path: Path, root: Path | None = None, dimensions: Sequence[str] = DIMENSIONS
) -> LabelFile:
    """Read a CSV of labelled pairs; rows that cannot be used are logged and counted.

    Args:
        path: UTF-8, with a header that has at least `COLUMNS` and the dimensions. A label is A, B,
            same or invalid.
        root: Folder that video paths are relative to; None = the folder of the CSV.
        dimensions: Names of the label columns.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    folder = root if root is not None else path.parent
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            check_columns(path, reader.fieldnames or (), (*COLUMNS, *dimensions))
            rows = ((f"line {reader.line_num}", row) for row in reader)
            pairs, num_skipped = usable_rows(path, rows, lambda row: _pair(row, folder, dimensions))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return LabelFile(tuple(pairs), num_skipped)


def _pair(row: Mapping[str, str | None], folder: Path, dimensions: Sequence[str]) -> LabelledPair:
    """Check one row.

    Raises:
        DatasetError: A value is missing, a label is unknown, all labels are invalid, or a video
            does not exist.
    """
    columns = (*COLUMNS, *dimensions)
    values = {name: (row[name] or "").strip() for name in columns}
    if empty := [name for name in columns if not values[name]]:
        raise DatasetError(f"nothing in column(s) {', '.join(empty)}")
    for name in dimensions:
        if values[name] not in LABELS:
            raise DatasetError(f"{name} is {values[name]!r}, expected one of {', '.join(LABELS)}")
    labels = tuple(LABELS[values[name]] for name in dimensions)
    if all(label == INVALID for label in labels):
        raise DatasetError("every label is invalid")
    paths = [folder / values[name] for name in ("path_A", "path_B")]
    for path in paths:
        if not path.is_file():
            raise DatasetError(f"there is no file {path}")
    return LabelledPair(paths[0], paths[1], values["prompt"], labels)
