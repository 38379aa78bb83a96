"""Videos made into mp4 files where their pixels are: neither the driver nor its node opens them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from ray import ObjectRef
from ray.actor import ActorHandle

from actors.pool.outcomes import Outcome, as_own_error, judge
from actors.pool.pool import ElasticPool
from actors.pool.state import Reply
from actors.store.handles import changed_group
from actors.store.media import fetch
from videorl.config import ArchiveConfig
from videorl.files import write_bytes
from videorl.futures import mapped, recovered
from videorl.protocols import SelectionRule
from videorl.types import Candidate, CandidateGroup, ScoredGroup

ENCODING = "encoding"
"""The concurrency group of a worker that encodes while it scores other groups."""
_KIND = "an mp4 file"

ScoredThere: TypeAlias = tuple[ScoredGroup, ActorHandle | None]
"""A group, and a worker on whose node its pixels are; None = nobody had to look at them."""


class VideoFiles:
    """Has the workers of a pool encode videos.

    Args:
        pool: Its workers have a method `encode`, as `actors.reward.RewardWorker` has.
    """

    def __init__(self, pool: ElasticPool) -> None:
        self._pool = pool
        self.encode_s = 0.0
        """Seconds that workers spent on it so far."""

    def submit(self, video: ObjectRef, worker: ActorHandle | None = None) -> Future[ObjectRef]:
        """Return a future of the handle of the file's bytes; it is there when they are.

        It fails with `MediaLostError` if the video is gone, with `VideoError` if it cannot be
        encoded, and otherwise as those of `ElasticPool`.

        Args:
            video: The handle of a `Video`.
            worker: Encodes beside its other work; if it cannot, or None, a worker of the pool does.
        """
        if worker is None:
            return self._on_any(video)
        seconds, file = _encode(worker, video)

        def made(took_s: float) -> ObjectRef:
            self.encode_s += took_s
            return file

        def elsewhere(error: Exception) -> Future[ObjectRef]:
            if judge(error) is Outcome.GIVE_UP:
                raise as_own_error(error) from error
            return self._on_any(video)

        return recovered(mapped(seconds.future(), made), elsewhere)

    def save(self, files: Mapping[Path, ObjectRef]) -> None:
        """Write videos as mp4 files from this process, and wait for them.

        Raises:
            WorkLostError: A video could not be had or encoded.
        """
        encoded = {path: self.submit(video) for path, video in files.items()}
        for path, future in encoded.items():
            (content,) = fetch([future.result()])
            write_bytes(path, content)

    def _on_any(self, video: ObjectRef) -> Future[ObjectRef]:
        def made(reply: Reply) -> ObjectRef:
            self.encode_s += reply.value
            return reply.media[0]

        return mapped(self._pool.submit(lambda worker: _encode(worker, video), _KIND), made)


def _encode(worker: ActorHandle, video: ObjectRef) -> list[ObjectRef]:
    """Return the handles of the seconds that it took, and of the bytes."""
    options = {"num_returns": 2, "concurrency_group": ENCODING}
    return worker.encode.options(**options).remote(video)


class ScorerThere(Protocol):
    """The method of a `RayScorer` that `EncodingScorer` needs."""

    def score(self, group: CandidateGroup) -> Future[ScoredThere]:
        """Score a group; tell who has its pixels."""
        ...


class EncodingScorer:
    """Scores groups, and lets go at once of all media that nobody needs after that.

    A video that the archive keeps begins to become an mp4 file; in its place the candidate has a
    future of the file's handle, for which nobody waits but the archive. Other videos are let go,
    and so are latents that are neither learned from nor archived.

    Args:
        scorer: Scores the groups.
        files: Encodes.
        select: Which candidates of a group will be learned from.
        config: What the archive keeps.
    """

    def __init__(
        self, scorer: ScorerThere, files: VideoFiles, select: SelectionRule, config: ArchiveConfig
    ) -> None:
        self._scorer = scorer
        self._files = files
        self._select = select
        self._config = config

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score one group; the future fails as that of the scorer."""
        return mapped(self._scorer.score(group), lambda found: self._trimmed(*found))

    def _trimmed(self, group: ScoredGroup, worker: ActorHandle | None) -> ScoredGroup:
        examples = self._select(group)
        learned = {scored.candidate.id for each in examples for scored in each.candidates}

        def trimmed(candidate: Candidate) -> Candidate:
            is_learned = candidate.id in learned
            keeps = self._config.keeps(candidate.round, is_learned=is_learned)
            file = self._files.submit(candidate.video, worker) if keeps.video else None
            latents = candidate.latents if is_learned or keeps.latents else None
            return replace(candidate, video=file, latents=latents)

        return changed_group(group, trimmed)
