"""Start and stop a server on the connected cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ray import serve

from actors.placement import Role, live_nodes, place
from actors.serving.ingress import Ingress, Site
from actors.serving.replicas import RewardReplica, VideoReplica
from videorl.config import RewardConfig
from videorl.errors import ConfigError
from videorl.recipes.secrets import public_runtime_env
from videorl.serving.policy import Served

APP = "videorl"
_QUEUED_S = 10.0
"""How long more must wait than the replicas have at hand, before another is started."""


@dataclass(frozen=True)
class Address:
    """Where clients connect."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def url(self) -> str:
        """The base of every route."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def check_address(address: Address) -> None:
    """See that the address is free.

    Raises:
        ConfigError: It is in use, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"{address.host}:{address.port} cannot be listened on ({reason}): choose another "
                "with --port or --host, or stop what uses it"
            ) from error


@contextmanager
def serving(
    served: Served,
    rewards: Sequence[RewardConfig],
    site: Site,
    address: Address,
    min_replicas: int = 1,
) -> Iterator[None]:
    """Serve inside the block, which begins when everything is loaded.

    Args:
        served: The policy.
        rewards: The models of `/v1/rewards`.
        site: What the HTTP side is told; `replicas` says how many replicas there may be.
        address: Where to listen; it must be free.
        min_replicas: Of the policy; more come while requests wait.

    Raises:
        ConfigError: The address cannot be listened on, or Serve runs in this cluster already.
    """
    if serve.status().applications:
        raise ConfigError(
            "Ray Serve runs in this cluster already, with an address of its own: take a new "
            "cluster (leave out --address), or end it with `serve shutdown`"
        )
    check_address(address)
    logs = {"log_level": "WARNING"}
    serve.start(http_options={"host": address.host, "port": address.port}, logging_config={**logs})
    try:
        application = _application(served, rewards, site, min_replicas)
        serve.run(application, name=APP, route_prefix="/", logging_config={**logs})
        yield
    finally:
        serve.shutdown()


def _application(
    served: Served, rewards: Sequence[RewardConfig], site: Site, min_replicas: int
) -> Any:
    idle = {"num_cpus": 0.0, "num_gpus": 0.0}
    recipe = replace(
        served.recipe,
        rewards=list(rewards),
        learner=replace(served.recipe.learner, **idle),
        encoder=replace(served.recipe.encoder, **idle),
        generators=replace(served.recipe.generators, min_workers=min_replicas, context_parallel=1),
    )
    roles = place(recipe, live_nodes())
    most, role = site.replicas.videos, roles.generators
    videos = _deployment(VideoReplica, **_scaling(role, min_replicas, most), name="videos")
    scorers = {
        reward.key: _scorer(reward, role, site)
        for reward, role in zip(rewards, roles.rewards, strict=True)
    }
    ingress = _deployment(
        serve.ingress()(Ingress),
        name="ingress",
        max_ongoing_requests=1000,
        max_queued_requests=1000,  # Serve's proxy answers 503 then, and holds no more bodies
        ray_actor_options={"num_cpus": 0},
    )
    return ingress.bind(site, videos.bind(served, role.num_cpus, site.limits), scorers)


def _scorer(reward: RewardConfig, role: Role, site: Site) -> Any:
    options = _scaling(role, reward.num_workers, max(reward.num_workers, site.replicas.scores))
    if environment := public_runtime_env(reward.runtime_env):
        options["ray_actor_options"]["runtime_env"] = environment
    deployment = _deployment(RewardReplica, **options, name=f"reward-{reward.key}")
    return deployment.bind(reward, site.limits)


def _deployment(kind: Any, **options: Any) -> Any:
    made: Any = serve.deployment(kind)
    return made.options(**options)


def _scaling(role: Role, least: int, most: int) -> dict[str, Any]:
    """Return options of a deployment whose replicas have two batches each, and compute one."""
    return {
        "ray_actor_options": role.options(),
        # Checks of sizes are answered beside the batches.
        "max_ongoing_requests": 16,
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": max(least, most),
            "target_ongoing_requests": 2,
            "upscale_delay_s": _QUEUED_S,
        },
    }
