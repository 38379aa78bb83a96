"""The deployment that answers HTTP, and hands work to the others."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter, Gauge, Histogram

from videorl.config import SamplingConfig
from videorl.serving.app import build_app
from videorl.serving.engine import Engine
from videorl.serving.errors import Failure
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import Offer, VideoTask
from videorl.serving.results import Results
from videorl.serving.work import Replicas
from videorl.types import Score

_READY_S = 2.0
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

    def __init__(self, videos: DeploymentHandle, rewards: Mapping[str, DeploymentHandle]) -> None:
        self._videos, self._rewards = videos, rewards
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
        return await self._videos.fit.remote(sampling, exactly)

    async def sample(self, tasks: Sequence[VideoTask]) -> Sequence[bytes | Failure]:
        """Send the batch to a replica, rather to one that has the adapter in memory."""
        chosen = self._videos.options(multiplexed_model_id=tasks[0].adapter)
        return await chosen.sample.remote(list(tasks))

    async def score(
        self, model: str, uploads: Sequence[tuple[bytes, str]]
    ) -> Sequence[Score | Failure]:
        """Send the uploads to a replica of the model."""
        return await self._rewards[model].score.remote(list(uploads))

    async def is_ready(self) -> bool:
        """Tell whether all applications run."""
        statuses = await asyncio.wait_for(asyncio.to_thread(serve.status), _READY_S)
        return all(app.status == "RUNNING" for app in statuses.applications.values())

    async def metrics(self) -> str:
        """Return what Ray's agent on this node has of this server."""
        return await asyncio.to_thread(_of_this_node)

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
        self._site, self._engine = site, RayEngine(videos, rewards)

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


def _of_this_node() -> str:
    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=_METRICS_S) as answer:
        lines = answer.read().decode().splitlines()
    names = (line.removeprefix("# HELP ").removeprefix("# TYPE ") for line in lines)
    shown = [line for line, name in zip(lines, names, strict=True) if name.startswith(_SHOWN)]
    return "\n".join([*shown, ""])
