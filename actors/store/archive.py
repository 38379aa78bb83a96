"""The archive writer: a process that opens the media to archive, so that the driver need not."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from errno import ETIMEDOUT
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayTaskError

from actors.naming import named, shown_by_name
from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import answer, first_line
from actors.store.media import fetch
from videorl.config import ArchiveConfig
from videorl.errors import ArchiveError
from videorl.types import StepRecord, Video

logger = logging.getLogger(__name__)

_MAX_UNWRITTEN = 8
"""So many steps may be unwritten before the driver waits; their media fill the object store."""

_REPORT_S = 30.0


@shown_by_name
class ArchiveWriter:
    """An `Archive` in a process of its own.

    Args:
        directory: Where the archive lies, on the driver's node.
        config: Which media are kept.
    """

    def __init__(self, directory: Path, config: ArchiveConfig) -> None:
        from videorl.data.archive import Archive

        self._encode_s = 0.0
        self._archive = Archive(
            directory,
            config.videos,
            config.latents,
            fetch,
            self._encode,
            every=config.every,
            keep_gb=config.keep_gb,
        )

    def write(self, record: StepRecord) -> float:
        """Write one step; media that were lost with their node are left out.

        Returns:
            The seconds that its videos took to encode.
        """
        self._encode_s = 0.0
        self._archive.write(record)
        return self._encode_s

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`."""
        self._archive.truncate(step)

    def _encode(self, video: Video) -> bytes:
        from videorl.data.video_io import encode_mp4

        started = time.perf_counter()
        encoded = encode_mp4(video)
        self._encode_s += time.perf_counter() - started
        return encoded


@dataclass(frozen=True, slots=True)
class _Write:
    """A step that is not known to be on disk, and the writer's pending answer."""

    record: StepRecord
    done: ObjectRef


class RayArchive:
    """Implements `videorl.loop.Archive` on an `ArchiveWriter` beside the driver.

    A step is held until it is on disk, and written again at the next `flush` if that failed, so
    that a disk that was full for a while leaves no hole.

    Args:
        directory: Where the archive lies.
        config: Which media are kept.
        run: Name of the run, for `actors.naming.named`.
    """

    def __init__(self, directory: Path, config: ArchiveConfig, run: str = "") -> None:
        options = {**beside_driver(), "max_restarts": -1, "max_task_retries": -1}
        self._actor = start_actor(ArchiveWriter, named(options, run, "archive"), directory, config)
        self.encode_s = 0.0
        """Seconds that videos took to encode, of steps that are known to be written."""
        self._unwritten: dict[int, _Write] = {}
        self._timeout_s = config.timeout_s

    def write(self, record: StepRecord) -> None:
        """Send one step to the writer.

        Raises:
            ArchiveError: Too many steps are unwritten, and a second try failed.
        """
        self._forget_written()
        if len(self._unwritten) >= _MAX_UNWRITTEN:
            self.flush()
        self._send(record)

    def flush(self) -> None:
        """Return when everything is on disk.

        Raises:
            ArchiveError: A step could not be written in two tries; the next `flush` tries again.
        """
        for step, write in list(self._unwritten.items()):
            what = f"step {step}"
            try:
                self.encode_s += self._written(write.done, what)
            except Exception as error:  # the second try decides
                logger.error("archive: trying step %d again after %s", step, first_line(error))
                self.encode_s += self._written(self._send(write.record), what)
            del self._unwritten[step]

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`, to go back to a checkpoint."""
        self._written(self._actor.truncate.remote(step), f"what follows step {step}")

    def close(self) -> None:
        """Stop the writer; call `flush` first."""
        ray.kill(self._actor, no_restart=True)

    def _written(self, done: ObjectRef, what: str) -> Any:
        """Wait for the writer's answer, and say so; one that hangs is replaced.

        Raises:
            ArchiveError: It hung, or that of the writer.
        """
        started = time.monotonic()
        while not ray.wait([done], timeout=min(_REPORT_S, self._timeout_s))[0]:
            if (waited := time.monotonic() - started) >= self._timeout_s:
                ray.kill(self._actor, no_restart=False)
                raise ArchiveError(
                    ETIMEDOUT, f"{what} was not written to the archive within {waited:.0f} s"
                )
            logger.warning("waiting for the archive writer: %s, for %.0f s", what, waited)
        return answer(done)

    def _send(self, record: StepRecord) -> ObjectRef:
        done = self._actor.write.remote(record)
        self._unwritten[record.step] = _Write(record, done)
        return done

    def _forget_written(self) -> None:
        """Drop steps that are on disk, so that their media can be freed."""
        for step, write in list(self._unwritten.items()):
            finished, _ = ray.wait([write.done], timeout=0)
            if finished:
                try:
                    self.encode_s += ray.get(write.done)
                except RayTaskError as error:
                    logger.error("archive: step %d is not written yet: %s", step, first_line(error))
                else:
                    del self._unwritten[step]
