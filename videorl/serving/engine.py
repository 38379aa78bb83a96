"""What the HTTP side asks of whoever computes: replicas on Ray, or this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from videorl.config import SamplingConfig
from videorl.serving.errors import Failure
from videorl.serving.requests import VideoTask
from videorl.types import Score


class Engine(Protocol):
    """Computes videos and scores."""

    async def fit(self, sampling: SamplingConfig, *, exactly: bool) -> SamplingConfig | Failure:
        """Return settings that the model can sample with.

        Args:
            sampling: What is asked for.
            exactly: Refuse a number of frames that the model does not make; otherwise the nearest
                is taken.
        """
        ...

    async def sample(self, tasks: Sequence[VideoTask]) -> Sequence[bytes | Failure]:
        """Return the mp4 of each task; all are of one group."""
        ...

    async def score(
        self, model: str, uploads: Sequence[tuple[bytes, str]]
    ) -> Sequence[Score | Failure]:
        """Return the score that a loaded model gives each uploaded video with its prompt."""
        ...

    async def is_ready(self) -> bool:
        """Tell whether every part answers."""
        ...

    async def metrics(self) -> str:
        """Return what is measured, as Prometheus reads it."""
        ...

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        ...

    def queued(self, what: str, count: int) -> None:
        """Note how many requests wait for `videos`, or for a reward model."""
        ...
