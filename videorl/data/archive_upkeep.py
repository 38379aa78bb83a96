"""What the writer of an archive does after each step, so that a long run stays small."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from videorl.data.archive_compaction import merge, next_merge, tidy
from videorl.data.archive_layout import Span, read_layout
from videorl.data.archive_retention import Retention

logger = logging.getLogger(__name__)


class Upkeep:
    """Merges the files of older steps, and deletes the oldest media.

    Args:
        directory: The archive folder, of which the caller is the only writer.
        steps_per_file: Steps of a partition.
        most_bytes: Of videos and latents; 0 = nothing is deleted.
    """

    def __init__(self, directory: Path, steps_per_file: int, most_bytes: float) -> None:
        self._directory = directory
        self._steps_per_file = steps_per_file
        self._retention = Retention(directory, most_bytes)
        self._left_out: set[Span] = set()
        """Files that cannot be merged."""

    def after(self, step: int) -> None:
        """Do what is due after a step is written; what fails costs a warning, as nothing is lost.

        A single partition is made at a time, so that the archive of an older run does not hold up
        its first step.
        """
        # One without the other: on a full disk nothing can be merged, and deleting makes room.
        for work in (self._merge, lambda: self._retention.after(step)):
            try:
                work()
            except (OSError, pa.ArrowException) as error:
                logger.warning(
                    "archive: step %d is written, but older steps could not be merged or thinned "
                    "out: %s",
                    step,
                    error,
                )

    def forget(self) -> None:
        """Look at all that is there again, as it was changed."""
        self._retention.forget()

    def _merge(self) -> None:
        layout = read_layout(self._directory)
        spans = next_merge(self._directory, layout, self._steps_per_file, self._left_out)
        if not spans:
            return
        try:
            tidy(self._directory)  # what was left by a writer that was killed and started again
            merge(self._directory, spans)
        except (OSError, pa.ArrowException) as error:
            if not isinstance(error, OSError) or error.errno is None:  # no fault of the disk
                self._left_out.update(spans)  # damaged: readers name them
            raise
