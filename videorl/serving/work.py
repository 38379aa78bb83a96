"""Requests on their way: from the queue through a replica to the results."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from videorl.config import SamplingConfig
from videorl.serving.dispatch import Dispatcher
from videorl.serving.engine import Engine
from videorl.serving.errors import OUR_FAULT, Failure, RequestError
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import Offer, VideoFields, VideoTask, complete
from videorl.serving.results import Record, Results
from videorl.types import Score

logger = logging.getLogger(__name__)

_KNOWN_SIZES = 256
PER_REPLICA = 2
"""Batches that a replica has at once: it computes the first, and never waits for the next."""
_CHECKED = ("num_frames", "num_inference_steps", "guidance_scale", "fps")
"""Fields, beside those of the size, that a model may refuse."""


@dataclass(frozen=True)
class Replicas:
    """How many compute."""

    videos: int = 1
    """The most replicas of the policy."""
    batch_size: int = 1
    """Videos of one size that a replica samples together. A video is the same bit for bit only
    with 1: arithmetic in larger batches rounds differently."""
    scores: int = 1
    """The most replicas of each reward model."""


class Work:
    """The queues of one server."""

    def __init__(
        self,
        engine: Engine,
        offer: Offer,
        results: Results,
        limits: ServingLimits,
        replicas: Replicas,
    ) -> None:
        self._engine, self._results = engine, results
        self._offer, self._limits = offer, limits
        self._fits: OrderedDict[str, SamplingConfig | Failure] = OrderedDict()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._uploads = 0
        self._videos = Dispatcher[VideoTask, bytes | Failure](
            engine.sample,
            lambda task: task.group,
            replicas=PER_REPLICA * replicas.videos,
            batch_size=replicas.batch_size,
            max_queued=limits.max_queued,
            what="a replica of the policy",
        )
        self._scores = {
            name: Dispatcher[tuple[bytes, str], Score | Failure](
                partial(engine.score, name),
                lambda upload: None,
                replicas=PER_REPLICA * replicas.scores,
                batch_size=8,
                max_queued=limits.max_queued,
                what=f"the reward {name}",
            )
            for name in offer.rewards
        }

    async def task(self, fields: VideoFields) -> VideoTask:
        """Return the complete task of a request.

        Raises:
            RequestError: See `complete`; or the model cannot make such a video, or the queue is
                full.
        """
        self._videos.check_room()
        task = complete(fields, self._offer, self._limits)
        exactly = fields.seconds is None
        key = repr((task.sampling, exactly))
        if (found := self._fits.get(key)) is None:
            found = await self._engine.fit(task.sampling, exactly=exactly)
            self._fits[key] = found
            while len(self._fits) > _KNOWN_SIZES:
                self._fits.popitem(last=False)
        if isinstance(found, Failure):
            named = (name for name in _CHECKED if found.message.startswith(name))
            raise found.error(next(named, "size"))
        return replace(task, sampling=found)

    async def sample(self, task: VideoTask) -> bytes:
        """Return the mp4 of a task.

        Raises:
            RequestError: The queue is full, or there is no video.
        """
        result = self._submit(task, lambda: None)
        found = await result
        self._note()
        if isinstance(found, Failure):
            raise found.error("prompt")
        return found

    def begin(self, task: VideoTask) -> Record:
        """Put a task into the queue and return its record.

        Raises:
            RequestError: The queue is full.
        """
        self._videos.check_room()
        record = self._results.create(task)
        result = self._submit(task, partial(self._results.start, record.id))
        job = asyncio.get_running_loop().create_task(self._keep(record.id, result))
        self._jobs[record.id] = job
        job.add_done_callback(lambda _: self._jobs.pop(record.id, None))
        return record

    def delete(self, video_id: str) -> bool:
        """Forget a video, and take it out of the queue; tell whether there was one."""
        if (job := self._jobs.get(video_id)) is not None:
            job.cancel()
        return self._results.delete(video_id)

    async def score(self, upload: bytes, prompt: str, models: Sequence[str]) -> dict[str, Score]:
        """Return the score of each model.

        Raises:
            RequestError: A queue is full, or a model cannot score the video.
        """
        for name in models:
            self._scores[name].check_room()
        futures = [self._scores[name].submit((upload, prompt)) for name in models]
        found = await asyncio.gather(*futures)
        scores: dict[str, Score] = {}
        for name, score in zip(models, found, strict=True):
            self._engine.queued(name, self._scores[name].num_queued)
            if isinstance(score, Failure):
                raise replace(score, message=f"{name}: {score.message}").error("video")
            scores[name] = score
        return scores

    @contextmanager
    def taking_upload(self) -> Iterator[None]:
        """Hold one of the places for uploads in memory inside the block.

        Raises:
            RequestError: All are taken.
        """
        if self._uploads >= (most := self._limits.max_queued):
            raise RequestError(
                f"{most} uploads are being taken or scored already: try again later",
                status=429,
                code="queue_full",
                retry_after_s=1,
            )
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def _submit(
        self, task: VideoTask, on_start: Callable[[], object]
    ) -> asyncio.Future[bytes | Failure]:
        result = self._videos.submit(task, on_start)
        self._note()
        return result

    def _note(self) -> None:
        self._engine.queued("videos", self._videos.num_queued)

    async def _keep(self, video_id: str, result: asyncio.Future[Any]) -> None:
        try:
            found = await result
        except asyncio.CancelledError:
            return
        except Exception as error:
            logger.exception("%s failed", video_id)
            reason = f"a replica failed: {type(error).__name__}; the log of the server has more"
            if isinstance(error, RequestError):
                reason = str(error)
            self._results.fail(video_id, reason, getattr(error, "code", None) or OUR_FAULT)
            return
        self._note()
        if isinstance(found, Failure):
            self._results.fail(video_id, found.message, found.code)
        else:
            self._results.finish(video_id, found)
