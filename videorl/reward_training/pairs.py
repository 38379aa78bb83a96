"""Labelled pairs of videos, in the columns of VideoAlign and VideoGen-RewardBench."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videorl.data.label_rows import read_labels, texts_of
from videorl.data.table_rows import Row
from videorl.errors import DatasetError
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
    """Read a table of labelled pairs; rows that cannot be used are logged and counted.

    Args:
        path: CSV, JSON, JSON lines or Parquet, with at least `COLUMNS` and the dimensions. A label
            is A, B, same or invalid.
        root: Folder that video paths are relative to; None = the folder of the table.
        dimensions: Names of the label columns.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    folder = root if root is not None else path.parent
    names = (*COLUMNS, *dimensions)
    pairs, num_skipped = read_labels(path, names, lambda row: _pair(row, folder, dimensions))
    return LabelFile(tuple(pairs), num_skipped)


def _pair(row: Row, folder: Path, dimensions: Sequence[str]) -> LabelledPair:
    """Check one row.

    Raises:
        DatasetError: A value is missing, a label is unknown, all labels are invalid, or a video
            does not exist.
    """
    values = texts_of(row, (*COLUMNS, *dimensions))
    for name in dimensions:
        if values[name] not in LABELS:
            raise DatasetError(f"{name} is {values[name]!r}, expected one of {', '.join(LABELS)}")
    labels = tuple(LABELS[values[name]] for name in dimensions)
    if all(label == INVALID for label in labels):
        raise DatasetError("every label is invalid")
    paths = [folder / values[name] for name in ("path_A", "path_B")]
    for path in paths:
        if not os.path.isfile(path):  # False also for names that no file can have
            raise DatasetError(f"there is no file {path}")
    return LabelledPair(paths[0], paths[1], values["prompt"], labels)
