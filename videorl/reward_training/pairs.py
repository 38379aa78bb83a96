"""Labelled pairs of videos, in the columns of VideoAlign and VideoGen-RewardBench."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videorl.data.label_rows import read_labels, texts_of
from videorl.data.table_rows import Row
from videorl.errors import DatasetError
from videorl.files.images import problem_of_image
from videorl.reward_training.losses import INVALID, PREFERS_A, PREFERS_B, SAME
from videorl.types import Condition, TextAndImage

DIMENSIONS = ("VQ", "MQ", "TA")
LABELS = {"A": PREFERS_A, "B": PREFERS_B, "same": SAME, "invalid": INVALID}
COLUMNS = ("path_A", "path_B", "prompt")
"""Columns needed besides the dimensions; others (frame rates, models, …) are ignored."""
IMAGE = "image"
"""Column of the pictures that videos begin with, of models that take them."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two videos of a prompt, and which is better on each dimension."""

    path_a: Path
    path_b: Path
    prompt: str
    labels: tuple[int, ...]
    """Per dimension: 1 A is better, -1 B is better, 0 same, 22 invalid; see `losses`."""
    image: str = ""
    """Absolute path of the picture that both videos begin with; empty = none."""

    @property
    def condition(self) -> Condition:
        """Return what a policy encodes of it."""
        return TextAndImage(self.prompt, self.image) if self.image else self.prompt


@dataclass(frozen=True, slots=True)
class LabelFile:
    """The usable rows of a file, in order, and the number of other rows."""

    pairs: tuple[LabelledPair, ...]
    num_skipped: int


def read_pairs(
    path: Path,
    root: Path | None = None,
    dimensions: Sequence[str] = DIMENSIONS,
    *,
    with_images: bool = False,
) -> LabelFile:
    """Read a table of labelled pairs; rows that cannot be used are logged and counted.

    Args:
        path: CSV, JSON, JSON lines or Parquet, with at least `COLUMNS` and the dimensions. A label
            is A, B, same or invalid.
        root: Folder that video paths are relative to; None = the folder of the table.
        dimensions: Names of the label columns.
        with_images: The column `IMAGE` is needed too: paths relative to the table's folder.

    Raises:
        DatasetError: The file cannot be read, lacks a column, or has no usable row.
    """
    folder = root if root is not None else path.parent
    names = (*COLUMNS, *dimensions, *([IMAGE] if with_images else []))

    def read(row: Row) -> LabelledPair:
        pair = _pair(row, folder, dimensions)
        return replace(pair, image=_image(row, path.parent)) if with_images else pair

    pairs, num_skipped = read_labels(path, names, read)
    return LabelFile(tuple(pairs), num_skipped)


def _image(row: Row, folder: Path) -> str:
    """Return the path of a row's picture.

    Raises:
        DatasetError: There is none, or it is no picture.
    """
    image = str(folder.absolute() / texts_of(row, [IMAGE])[IMAGE])
    if problem := problem_of_image(image):
        raise DatasetError(problem)
    return image


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
