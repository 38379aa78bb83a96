"""Labelled examples whose videos are read when needed, and may be damaged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from videorl.errors import DatasetError, PromptError, VideoError
from videorl.reward_training.config import LabelsConfig
from videorl.reward_training.task import Split

E = TypeVar("E")
V = TypeVar("V")
logger = logging.getLogger(__name__)


def read_splits(
    labels: LabelsConfig, read: Callable[[Path, Path | None], Sequence[E]]
) -> dict[Split, Sequence[E]]:
    """Read the label files of a recipe; without a held-out file, that split is empty.

    Args:
        labels: Section `labels` of the recipe.
        read: Called with a file, and the folder that its videos are relative to, if one is set.
    """
    root = Path(labels.videos) if labels.videos else None
    held_out = read(Path(labels.held_out), root) if labels.held_out else ()
    return {"train": read(Path(labels.train), root), "held_out": held_out}


class Examples(Generic[E, V]):
    """A sequence of labelled examples, with what the model sees of each.

    Args:
        examples: The examples in the order of their file.
        read: Returns what the model sees of an example; raises VideoError or PromptError where that
            cannot be read.
    """

    def __init__(self, examples: Sequence[E], read: Callable[[E], V]) -> None:
        self.examples = tuple(examples)
        self._read = read
        self._bad: set[int] = set()

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, index: int) -> V | None:
        """Return what the model sees of an example; None, with a warning once, if unreadable."""
        if index in self._bad:
            return None
        try:
            return self._read(self.examples[index])
        except (VideoError, PromptError) as error:
            self._bad.add(index)
            logger.warning("labelled example %d skipped: %s", index, error)
            return None

    def readable(self, index: int) -> tuple[E, V, int]:
        """Return the first readable example from `index` on, its value, and how many were skipped.

        After the last example it goes on with the first.

        Raises:
            DatasetError: No example can be read.
        """
        for skipped in range(len(self)):
            place = (index + skipped) % len(self)
            if (value := self.read(place)) is not None:
                return self.examples[place], value, skipped
        raise DatasetError(f"none of {len(self)} labelled examples can be read")

    def read_all(self, indices: Sequence[int]) -> tuple[list[V], list[bool]]:
        """Return what the model sees of examples, and which of them could be read.

        The value of a readable example takes the place of each other one, so that all ranks do
        equally much work.

        Raises:
            DatasetError: None of them can be read.
        """
        values = [self.read(index) for index in indices]
        stand_in = next((value for value in values if value is not None), None)
        if stand_in is None:
            raise DatasetError(f"none of {len(indices)} held-out examples in a row can be read")
        return (
            [stand_in if value is None else value for value in values],
            [value is not None for value in values],
        )
