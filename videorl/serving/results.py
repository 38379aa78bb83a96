"""Videos that were asked for, on disk for a while: one JSON file each, and an mp4 once it is done.

A name on disk is made of an id that this module drew, never of a text of a request.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from videorl.files import write_json
from videorl.serving.errors import OUR_FAULT, RequestError
from videorl.serving.limits import MIB, ServingLimits
from videorl.serving.requests import VideoTask

logger = logging.getLogger(__name__)

Status = Literal["queued", "in_progress", "completed", "failed"]
QUEUED: Status = "queued"
IN_PROGRESS: Status = "in_progress"
COMPLETED: Status = "completed"
FAILED: Status = "failed"
_OURS = re.compile(r"\.?(video_[0-9a-f]{32})\.(mp4|json|json\.partial)")
_ID = re.compile(r"video_[0-9a-f]{32}")
_MOST = 10_000
"""Records that are kept; beyond it the oldest are deleted."""


@dataclass
class Record:
    """What is known of a video."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    id: str
    model: str
    """The adapter that samples it, or `base`."""
    prompt: str
    size: str
    seconds: float
    num_frames: int
    fps: float
    num_inference_steps: int
    guidance_scale: float
    seed: int
    created_at: float
    """Unix time, as all times here."""
    expires_at: float
    status: Status = QUEUED
    completed_at: float | None = None
    error: dict[str, Any] | None = None
    num_bytes: int = 0

    def answer(self) -> dict[str, Any]:
        """Return what clients get, with times in whole seconds."""
        found = asdict(self)
        del found["num_bytes"]
        for name in ("created_at", "expires_at", "completed_at"):
            found[name] = None if found[name] is None else int(found[name])
        found["seconds"] = f"{self.seconds:g}"
        progress = 100 if self.status == COMPLETED else 0
        return {"object": "video", "progress": progress, **found}


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


class Results:
    """The records of a folder; only one process may work in it."""

    def __init__(
        self, folder: Path, limits: ServingLimits, now: Callable[[], float] = time.time
    ) -> None:
        """Read what the folder holds.

        What was not finished when the last process ended has failed, and says so.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limits, self._now = folder, limits, now
        self._records: dict[str, Record] = {}
        found = [record for path in folder.glob("video_*.json") if (record := _read(path))]
        for record in sorted(found, key=lambda record: (record.created_at, record.id)):
            self._records[record.id] = record
            if record.status in (QUEUED, IN_PROGRESS):
                message = "the server was restarted before this video was done: ask for it again"
                self.fail(record.id, message, "server_restarted")
        self.tidy()

    def create(self, task: VideoTask) -> Record:
        """Note a video that is to be made.

        Raises:
            RequestError: The disk is full, or cannot be written.
        """
        now, sampling = self._now(), task.sampling
        record = Record(
            id=f"video_{secrets.token_hex(16)}",
            model=task.adapter,
            prompt=task.prompt,
            size=f"{sampling.width}x{sampling.height}",
            seconds=task.seconds,
            num_frames=sampling.num_frames,
            fps=sampling.fps,
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            seed=task.seed,
            created_at=now,
            expires_at=now + self._limits.keep_s,
        )
        try:
            self._write(record)
        except OSError as error:
            logger.error("%s: no result can be kept (%s)", self._folder, error.strerror)
            self._remove(record.id)
            raise RequestError(
                "the server's disk takes no more results: try again later, or POST "
                "/v1/videos/sync, which keeps none",
                status=507,
                code="disk_full",
            ) from error
        self._records[record.id] = record
        self.sweep()
        return record

    def start(self, video_id: str) -> None:
        """Note that a replica has the request; nothing happens if it was deleted."""
        if (record := self._records.get(video_id)) is not None:
            record.status = IN_PROGRESS
            self._note(record)

    def finish(self, video_id: str, content: bytes) -> None:
        """Keep the mp4; nothing happens if the video was deleted meanwhile.

        Where the disk does not take it, the video has failed.
        """
        if (record := self._records.get(video_id)) is None:
            return
        now = self._now()
        done = replace(record, status=COMPLETED, num_bytes=len(content), completed_at=now)
        done.expires_at = now + self._limits.keep_s
        try:
            # The mp4 is whole before its record says that it is done.
            self._mp4(video_id).write_bytes(content)
            self._write(done)
        except OSError as error:
            logger.error("%s: no result can be kept (%s)", self._folder, error.strerror)
            self._mp4(video_id).unlink(missing_ok=True)
            self.fail(video_id, "the server's disk did not take the video", OUR_FAULT)
            return
        vars(record).update(vars(done))
        self.sweep()

    def fail(self, video_id: str, message: str, code: str) -> None:
        """Note why there will be no video."""
        if (record := self._records.get(video_id)) is not None:
            record.status, record.completed_at = FAILED, self._now()
            record.error = {"message": message, "code": code}
            self._note(record)

    def get(self, video_id: str) -> Record | None:
        """Return a record; None = there is none of this id, or no longer."""
        self.sweep()
        return self._records.get(video_id)

    def content(self, video_id: str) -> bytes | None:
        """Return the mp4 of a record; None = there is none."""
        if video_id not in self._records:
            return None
        try:
            return self._mp4(video_id).read_bytes()
        except FileNotFoundError:
            return None

    def all(self) -> list[Record]:
        """Return all records, the oldest first."""
        self.sweep()
        return list(self._records.values())

    def delete(self, video_id: str) -> bool:
        """Forget a video; tell whether there was one."""
        if self._records.pop(video_id, None) is None:
            return False
        self._remove(video_id)
        return True

    def sweep(self) -> None:
        """Delete what is too old, and the oldest that are done while all are too large or many."""
        now = self._now()
        for record in [*self._records.values()]:
            if record.expires_at <= now and record.status in (COMPLETED, FAILED):
                self.delete(record.id)
        size = sum(record.num_bytes for record in self._records.values())
        for record in [*self._records.values()][:-1]:
            if size <= self._limits.keep_mib * MIB and len(self._records) <= _MOST:
                return
            if record.status in (COMPLETED, FAILED):
                size -= record.num_bytes
                self.delete(record.id)
                logger.info("%s is deleted to make room for others", record.id)

    def tidy(self) -> None:
        """Sweep, and delete what was left of a crash: old files that no record speaks of.

        To be called now and then: a server that nobody asks anything keeps nothing longer either.
        """
        self.sweep()
        for path in self._folder.iterdir():
            match = _OURS.fullmatch(path.name)
            if match is None or match[1] in self._records:
                continue
            if path.lstat().st_mtime + self._limits.keep_s <= self._now():
                path.unlink(missing_ok=True)
                logger.info("%s is deleted: it has no record, and is too old to keep", path)

    def _remove(self, video_id: str) -> None:
        for path in (self._mp4(video_id), self._json(video_id)):
            path.unlink(missing_ok=True)
            path.with_name(f".{path.name}.partial").unlink(missing_ok=True)

    def _note(self, record: Record) -> None:
        """Write a record; what this process knows of it holds even if the disk is full."""
        try:
            self._write(record)
        except OSError as error:
            logger.error("the record of %s cannot be written (%s)", record.id, error.strerror)

    def _write(self, record: Record) -> None:
        write_json(self._json(record.id), asdict(record))

    def _mp4(self, video_id: str) -> Path:
        return self._folder / f"{video_id}.mp4"

    def _json(self, video_id: str) -> Path:
        return self._folder / f"{video_id}.json"


def _read(path: Path) -> Record | None:
    try:
        record = _RECORD.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        logger.warning("%s is left out, it is no record of a video (%s)", path, error)
        return None
    return record if _ID.fullmatch(record.id) and path.stem == record.id else None
