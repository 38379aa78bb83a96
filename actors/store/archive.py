"""The archive writer: opens the media that the archive keeps, so that the driver need not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import ObjectRef
from ray.exceptions import RayTaskError

from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import cause_of, first_line
from actors.store.media import fetch
from videorl.config import ArchiveConfig
from videorl.types import StepRecord

logger = logging.getLogger(__name__)

_MAX_UNWRITTEN = 8
"""Steps under way or failed before the driver waits: their media stay in the object store."""


class ArchiveWriter:
    """An `Archive` in a process of its own.

    Args:
        directory: Of the archive, on the driver's node.
        config: What is kept.
    """

    def __init__(self, directory: Path, config: ArchiveConfig) -> None:
        from videorl.data.archive import Archive

        self._archive = Archive(directory, config.videos, config.latents, fetch)

    def write(self, record: StepRecord) -> None:
        """Keep one step; media that were lost with their node are left out of it."""
        self._archive.write(record)

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`."""
        self._archive.truncate(step)


@dataclass(frozen=True, slots=True)
class _Write:
    """A step that is not known to be on disk."""

    record: StepRecord
    done: ObjectRef


class RayArchive:
    """Implements `videorl.loop.Archive` on an `ArchiveWriter` beside the driver.

    A step stays here until it is on disk: one that failed is written again at the next `flush`,
    so a disk that was full for a while leaves no hole.

    Args:
        directory: Of the archive.
        config: What is kept.
    """

    def __init__(self, directory: Path, config: ArchiveConfig) -> None:
        options = {**beside_driver(), "max_restarts": -1, "max_task_retries": -1}
        self._actor = start_actor(ArchiveWriter, options, directory, config)
        self._unwritten: dict[int, _Write] = {}

    def write(self, record: StepRecord) -> None:
        """Send one step to the writer.

        Raises:
            ArchiveError: Several steps could not be written, and still cannot.
        """
        self._forget_written()
        if len(self._unwritten) >= _MAX_UNWRITTEN:
            self.flush()
        self._send(record)

    def flush(self) -> None:
        """Return when everything is on disk.

        Raises:
            ArchiveError: A step could not be written, twice; it is kept for the next flush.
        """
        for step, write in list(self._unwritten.items()):
            try:
                ray.get(write.done)
            except RayTaskError as error:
                logger.error("archive: trying step %d again after %s", step, first_line(error))
                self._get(self._send(write.record))
            del self._unwritten[step]

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`: back to a checkpoint."""
        self._get(self._actor.truncate.remote(step))

    def close(self) -> None:
        """Stop the writer; call `flush` first."""
        ray.kill(self._actor, no_restart=True)

    def _send(self, record: StepRecord) -> ObjectRef:
        done = self._actor.write.remote(record)
        self._unwritten[record.step] = _Write(record, done)
        return done

    def _forget_written(self) -> None:
        """Let go of steps that are on disk, so that their media can be freed."""
        for step, write in list(self._unwritten.items()):
            finished, _ = ray.wait([write.done], timeout=0)
            if finished:
                try:
                    ray.get(write.done)
                except RayTaskError as error:
                    logger.error("archive: step %d is not written yet: %s", step, first_line(error))
                else:
                    del self._unwritten[step]

    def _get(self, ref: ObjectRef) -> None:
        try:
            ray.get(ref)
        except RayTaskError as error:
            raise cause_of(error) from None
