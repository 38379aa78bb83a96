"""The deployment that answers HTTP, and hands work to the others."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter, Gauge, Histogram

from videorl.config import SamplingConfig
from videorl.serving.app import build_app
from videorl.serving.engine import Engine
from videorl.serving.errors import Failure, RequestError
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import Offer, VideoTask
from videorl.serving.results import Results
from videorl.serving.work import PER_REPLICA, Replicas
from videorl.types import Score

logger = logging.getLogger(__name__)

_READY_S = 2.0
_READY_LASTS_S = 1.0
_METRICS_S = 5.0
_SHOWN = ("ray_videorl_serve_", "ray_serve_")
"""Metrics of this server begin with one of these; a node's others are Ray's."""


@dataclass(frozen=True)
class Site:
    """What the HTTP side is told."""

    offer: Offer
    results: Path
    """Folder of results, on the node of the ingress or on shared storage."""
    limits: ServingLimits
    replicas: Replicas
    token: bytes | None
    """SHA-256 of the token, which itself is nowhere; None = requests need none."""


class RayEngine(Engine):
    """Implements `videorl.serving.engine.Engine` by calls of deployments."""

    def __init__(
        self, site: Site, videos: DeploymentHandle, rewards: Mapping[str, DeploymentHandle]
    ) -> None:
        self._site, self._videos, self._rewards = site, videos, rewards
        self._is_ready, self._asked_at = False, -math.inf
        self._answers = Counter(
            "videorl_serve_answers", description="HTTP answers.", tag_keys=("route", "status")
        )
        self._seconds = Histogram(
            "videorl_serve_seconds",
            description="Seconds from a request to the end of its answer.",
            boundaries=[0.01, 0.1, 1, 10, 60, 600],
            tag_keys=("route",),
        )
        self._queued = Gauge(
            "videorl_serve_queued", description="Requests that wait.", tag_keys=("what",)
        )

    async def fit(self, sampling: SamplingConfig, *, exactly: bool) -> SamplingConfig | Failure:
        """Ask a replica."""
        return await _answer(self._videos.fit.remote(sampling, exactly), self._site.limits.work_s)

    async def sample(self, tasks: Sequence[VideoTask]) -> Sequence[bytes | Failure]:
        """Send the batch to a replica, rather to one that has the adapter in memory."""
        chosen = self._videos.options(multiplexed_model_id=tasks[0].adapter)
        return await _answer(chosen.sample.remote(list(tasks)), self._patience_s("videos"))

    async def score(
        self, model: str, uploads: Sequence[tuple[bytes, str]]
    ) -> Sequence[Score | Failure]:
        """Send the uploads to a replica of the model."""
        reply = self._rewards[model].score.remote(list(uploads))
        return await _answer(reply, self._patience_s("scores"))

    def _patience_s(self, what: str) -> float:
        """Return how long a batch may take with those before it; replicas may be starting."""
        most = getattr(self._site.replicas, what)
        return self._site.limits.work_s * (1 + PER_REPLICA * most)

    async def is_ready(self) -> bool:
        """Tell whether every part runs; asked of Serve once a second, whoever asks how often."""
        if time.monotonic() - self._asked_at > _READY_LASTS_S:
            self._asked_at = time.monotonic()
            try:
                statuses = await asyncio.wait_for(asyncio.to_thread(serve.status), _READY_S)
            except (TimeoutError, RayError, RayServeException):
                self._is_ready = False
            else:
                apps = statuses.applications.values()
                self._is_ready = all(app.status == "RUNNING" for app in apps)
        return self._is_ready

    async def metrics(self) -> str:
        """Return what Ray's agent on this node has of this server.

        Raises:
            RequestError: The agent does not answer.
        """
        try:
            return await asyncio.to_thread(_of_this_node)
        except (OSError, ValueError) as error:
            reason = "Ray's agent on this node, which has the metrics, does not answer"
            raise RequestError(reason, status=503, code="no_metrics", retry_after_s=5) from error

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._answers.inc(tags={"route": route, "status": str(status)})
        self._seconds.observe(seconds, tags={"route": route})

    def queued(self, what: str, count: int) -> None:
        """Note how many wait."""
        self._queued.set(count, tags={"what": what})


class Ingress:
    """One replica: it holds the queues and the list of results."""

    def __init__(
        self, site: Site, videos: DeploymentHandle, rewards: Mapping[str, DeploymentHandle]
    ) -> None:
        self._site, self._engine = site, RayEngine(site, videos, rewards)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application, once this process is there."""
        site = self._site
        results = Results(site.results, site.limits)
        return build_app(
            self._engine,
            site.offer,
            results,
            token=site.token,
            limits=site.limits,
            replicas=site.replicas,
        )


async def _answer(reply: Any, patience_s: float) -> Any:
    """Return what a replica answers.

    Raises:
        RequestError: It is gone, stuck, or cannot be started.
    """
    try:
        return await asyncio.wait_for(reply, patience_s)
    except (TimeoutError, RayActorError, BackPressureError, DeploymentUnavailableError) as error:
        logger.error("a replica was lost: %s: %s", type(error).__name__, error)
        raise RequestError(
            "the replica that had this request is gone, or did not answer: ask again",
            status=503,
            code="replica_lost",
            retry_after_s=5,
        ) from error


def _of_this_node() -> str:
    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=_METRICS_S) as answer:
        lines = answer.read().decode().splitlines()
    names = (line.removeprefix("# HELP ").removeprefix("# TYPE ") for line in lines)
    shown = [line for line, name in zip(lines, names, strict=True) if name.startswith(_SHOWN)]
    return "\n".join([*shown, ""])
