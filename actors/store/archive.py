"""The archive writer: a process that opens what is archived, so that the driver need not."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from errno import ETIMEDOUT
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef

from actors.naming import named, shown_by_name
from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import cause_of, first_line
from actors.store.handles import to_archive
from actors.store.media import fetch
from videorl.config import ArchiveConfig
from videorl.errors import ArchiveError, VideorlError
from videorl.futures import completed, gathered, mapped, recovered, then
from videorl.types import StepRecord

logger = logging.getLogger(__name__)

_MAX_UNWRITTEN = 8
"""So many steps may be unwritten before the driver waits; their files fill the object store."""

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

        self._archive = Archive(
            directory,
            config.videos,
            config.latents,
            fetch,
            encode=bytes,
            every=config.every,
            keep_gb=config.keep_gb,
        )

    def write(self, record: StepRecord) -> None:
        """Write one step, whose videos are mp4 files; what was lost with its node is left out."""
        self._archive.write(record)

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`."""
        self._archive.truncate(step)


@dataclass(frozen=True, slots=True)
class _Write:
    """A step that is not known to be on disk, and the writer's pending answer."""

    record: Future[StepRecord]
    """There as soon as its videos are files."""
    done: Future[None]


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
        self._unwritten: dict[int, _Write] = {}
        self._config = config

    def write(self, record: StepRecord) -> None:
        """Send one step to the writer as soon as its videos are files.

        Raises:
            ArchiveError: Too many steps are unwritten, and a second try failed.
        """
        self._forget_written()
        if len(self._unwritten) >= _MAX_UNWRITTEN:
            self.flush()
        self._send(record.step, _with_files(record, self._config))

    def flush(self) -> None:
        """Return when everything is on disk.

        Raises:
            ArchiveError: A step could not be written in two tries; the next `flush` tries again.
        """
        for step, write in list(self._unwritten.items()):
            what = f"step {step}"
            try:
                self._with_record(write.record, what)
                self._written(write.done, what)
            except Exception as error:  # the second try decides
                logger.error("archive: trying step %d again after %s", step, first_line(error))
                self._with_record(write.record, what)
                self._written(self._send(step, write.record), what)
            del self._unwritten[step]

    def truncate(self, step: int) -> None:
        """Remove every step >= `step`, to go back to a checkpoint."""
        self._written(self._actor.truncate.remote(step).future(), f"what follows step {step}")

    def close(self) -> None:
        """Stop the writer; call `flush` first."""
        ray.kill(self._actor, no_restart=True)

    def _with_record(self, record: Future[StepRecord], what: str) -> None:
        """Wait for the files of a step, and say so: not the writer, but reward workers make them.

        Raises:
            ArchiveError: They did not come in time.
        """
        if not self._waited(record, f"the mp4 files of {what}"):
            raise ArchiveError(
                ETIMEDOUT,
                f"the videos of {what} were not made into mp4 files within "
                f"{self._config.timeout_s:.0f} s",
            )

    def _written(self, done: Future[None], what: str) -> None:
        """Wait for the writer's answer, and say so; one that hangs is replaced.

        Raises:
            ArchiveError: It hung, or that of the writer.
        """
        if not self._waited(done, f"the archive writer: {what}"):
            ray.kill(self._actor, no_restart=False)
            timeout_s = self._config.timeout_s
            raise ArchiveError(
                ETIMEDOUT, f"{what} was not written to the archive within {timeout_s:.0f} s"
            )
        _raise_own(done)

    def _waited(self, done: Future[Any], what: str) -> bool:
        """Return whether it is done in time; until then say what is waited for."""
        started, timeout_s = time.monotonic(), self._config.timeout_s
        while not wait([done], timeout=min(_REPORT_S, timeout_s)).done:
            if (waited := time.monotonic() - started) >= timeout_s:
                return False
            logger.warning("waiting for %s, for %.0f s", what, waited)
        return True

    def _send(self, step: int, record: Future[StepRecord]) -> Future[None]:
        done = then(record, lambda whole: self._actor.write.remote(whole).future())
        self._unwritten[step] = _Write(record, done)
        return done

    def _forget_written(self) -> None:
        """Drop steps that are on disk, so that their files can be freed."""
        for step, write in list(self._unwritten.items()):
            if not write.done.done():
                continue
            if (error := write.done.exception()) is None:
                del self._unwritten[step]
            else:
                logger.error("archive: step %d is not written yet: %s", step, first_line(error))


def _raise_own(done: Future[None]) -> None:
    """Raise the error of the writer, as it was raised there, if there is any."""
    if (error := done.exception()) is not None:
        raise cause_of(error) from None


def _with_files(record: StepRecord, config: ArchiveConfig) -> Future[StepRecord]:
    """Return the record as it is archived, once all that it waits for are files or are lost."""
    keeps_videos = config.videos != "none"
    candidates = (scored.candidate for group in record.groups for scored in group.candidates)
    pending = {one.id: one.video for one in candidates if keeps_videos and one.video is not None}
    files = [recovered(file, partial(_left_out, name)) for name, file in pending.items()]

    def whole(found: list[ObjectRef | None]) -> StepRecord:
        named_files = dict(zip(pending, found, strict=True))
        return to_archive(record, named_files, keeps_latents=config.latents)

    return mapped(gathered(files), whole)


def _left_out(name: str, error: Exception) -> Future[ObjectRef | None]:
    if not isinstance(error, VideorlError):
        raise error
    logger.warning("the video of %s is not in the archive: %s", name, first_line(error))
    return completed(lambda: None)
