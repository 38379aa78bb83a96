"""What each role needs, whether the cluster can ever hold it, and what is still missing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from videorl.config import Recipe, RewardConfig
from videorl.errors import ResourceError, StoppedError
from videorl.settings.workers import LearnerConfig

logger = logging.getLogger(__name__)

_REPORT_S, _ASK_S = 30.0, 0.3


@dataclass(frozen=True, slots=True)
class Node:
    """CPUs, GPUs and custom resources of a node, in total."""

    cpus: float
    gpus: float
    custom: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Role:
    """The workers of one kind, and what each of them needs."""

    name: str
    num_workers: int
    """The fewest that the run needs."""
    num_cpus: float
    num_gpus: float
    custom: Mapping[str, float] = field(default_factory=dict[str, float])
    """Amounts of custom Ray resources, by name."""

    def fits(self, node: Node) -> bool:
        """Return whether the node could hold a worker if nothing else ran there."""
        has_custom = all(node.custom.get(name, 0) >= wanted for name, wanted in self.custom.items())
        return self.num_cpus <= node.cpus and self.num_gpus <= node.gpus and has_custom

    def options(self) -> dict[str, Any]:
        """Return the Ray options of a worker."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return options | ({"resources": dict(self.custom)} if self.custom else {})

    def bundle(self) -> dict[str, float]:
        """Return all that a worker takes, by Ray's names."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.custom}
        return {name: float(amount) for name, amount in amounts.items() if amount > 0}

    def __str__(self) -> str:
        """Return e.g. `generators x 2 with 1 CPU and 0.5 GPU each`."""
        custom = "".join(f", {amount:g} {name}" for name, amount in self.custom.items())
        return (
            f"{self.name} x {self.num_workers} with {self.num_cpus:g} CPU and "
            f"{self.num_gpus:g} GPU{custom} each"
        )


class _Needed(Protocol):
    """A section of the recipe that states what a worker needs."""

    num_cpus: float
    num_gpus: float | None
    resources: dict[str, float]


_NOBODY = Role("nobody", 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Placement:
    """Every role of a run; `rewards` is in the order of the recipe."""

    encoder: Role
    generators: Role
    rewards: tuple[Role, ...]
    learner: Role

    def roles(self) -> tuple[Role, ...]:
        """Return all roles that have workers."""
        every = (self.learner, self.encoder, self.generators, *self.rewards)
        return tuple(role for role in every if role.num_workers)

    def num_cpus(self) -> float:
        """Return the CPUs that all roles need together."""
        return sum(role.num_workers * role.num_cpus for role in self.roles())

    def num_gpus(self) -> float:
        """Return the GPUs that all roles need together."""
        return sum(role.num_workers * role.num_gpus for role in self.roles())


def beside_driver() -> dict[str, Any]:
    """Return the Ray options of an actor on the driver's node that takes no share of its CPUs."""
    node_id = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }


def start_actor(kind: type, options: Mapping[str, Any], *arguments: Any) -> ActorHandle:
    """Start an actor of a plain class and return at once."""
    # Ray takes its groups of threads with the class, and all else later too.
    groups = options.get("concurrency_groups", {})
    later = {name: value for name, value in options.items() if name != "concurrency_groups"}
    return _remote(kind, tuple(groups.items())).options(**later).remote(*arguments)


@cache
def _remote(kind: type, concurrency_groups: tuple[tuple[str, int], ...]) -> Any:
    """Return the actor class, the same each time.

    Ray's head keeps the code of every one that a job makes, 10 to 20 kB, until the job ends.
    """
    if not concurrency_groups:
        return ray.remote(kind)
    options: dict[str, Any] = {"concurrency_groups": dict(concurrency_groups)}
    return ray.remote(**options)(kind)


def live_nodes() -> list[Node]:
    """Return the nodes of the connected cluster."""
    return [
        Node(
            node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0), node["Resources"]
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def place(recipe: Recipe, nodes: Sequence[Node]) -> Placement:
    """Return what every role needs; GPUs that the recipe leaves open are shared out.

    A worker whose `num_gpus` is null gets one GPU. If there are fewer GPUs than such workers, they
    share GPUs: 3 workers on 1 GPU get 0.33 each. The learner's ranks get whole GPUs, except where
    the cluster has only one and there is one rank, which shares it with the others.

    Raises:
        ResourceError: Several ranks would have to share GPUs, or leave none to the others.
    """
    degree = recipe.generators.context_parallel
    needs: list[tuple[str, int, _Needed]] = [
        ("learner", recipe.learner.num_workers, recipe.learner),
        ("encoder", recipe.encoder.num_workers, recipe.encoder),
        ("generators", max(1, recipe.generators.min_workers) * degree, recipe.generators),
        *_reward_needs(recipe.rewards),
    ]
    learner, encoder, generators, *rewards = _shared_out(needs, nodes)
    return Placement(encoder, _joined(generators, degree), tuple(rewards), learner)


def _joined(processes: Role, degree: int) -> Role:
    """Return the workers that consist of `degree` processes each, all on one node.

    Two processes of a worker cannot share a GPU: NCCL refuses that, so there each gets a whole one.
    """
    if degree == 1:
        return processes
    return replace(
        processes,
        num_workers=processes.num_workers // degree,
        num_cpus=processes.num_cpus * degree,
        num_gpus=math.ceil(processes.num_gpus) * degree,
    )


def place_rewards(rewards: Sequence[RewardConfig], nodes: Sequence[Node]) -> Placement:
    """Return what reward models alone need, as `place` does."""
    roles = _shared_out(_reward_needs(rewards), nodes)
    return Placement(_NOBODY, _NOBODY, tuple(roles), _NOBODY)


def place_training(recipe: Recipe, nodes: Sequence[Node]) -> Placement:
    """Return what every role needs that is there while the run learns, as `place` does."""
    if not recipe.has_pools:
        return place_learner_and_encoder(recipe, nodes)
    with why_beside(recipe):
        return place(recipe, nodes)


@contextmanager
def why_beside(recipe: Recipe) -> Iterator[None]:
    """Say of a lack of room inside the block what generators beside a lone learner are for."""
    try:
        yield
    except ResourceError as error:
        if recipe.learns_online or not recipe.has_pools:
            raise
        raise ResourceError(
            f"{error}. Generators and rewards are there to look at held-out prompts every "
            f"{recipe.evaluation.interval} steps, which the guard judges: evaluation.interval=0 "
            "leaves that out"
        ) from error


def place_learner_and_encoder(recipe: Recipe, nodes: Sequence[Node]) -> Placement:
    """Return what a run needs that samples and scores nothing outside its learner."""
    needs: list[tuple[str, int, _Needed]] = [
        ("learner", recipe.learner.num_workers, recipe.learner),
        ("encoder", recipe.encoder.num_workers, recipe.encoder),
    ]
    learner, encoder = _shared_out(needs, nodes)
    return Placement(encoder, _NOBODY, (), learner)


def place_learner(learner: LearnerConfig, nodes: Sequence[Node]) -> Placement:
    """Return what learner ranks alone need, as `place` does."""
    (role,) = _shared_out([("learner", learner.num_workers, learner)], nodes)
    return Placement(_NOBODY, _NOBODY, (), role)


def _reward_needs(rewards: Sequence[RewardConfig]) -> list[tuple[str, int, _Needed]]:
    return [(f"reward {reward.key}", reward.num_workers, reward) for reward in rewards]


def _shared_out(needs: Sequence[tuple[str, int, _Needed]], nodes: Sequence[Node]) -> list[Role]:
    """Return a role for each (name, number of workers, what each of them needs)."""
    left = math.floor(
        sum(node.gpus for node in nodes)
        - sum(count * (needed.num_gpus or 0.0) for _, count, needed in needs)
    )
    still_open = {name: count for name, count, needed in needs if needed.num_gpus is None}
    shares: dict[str, float] = {}
    if left > 0 and (num_ranks := still_open.get("learner", 0)):
        num_others = sum(still_open.values()) - num_ranks
        if (num_ranks, left) != (1, 1) or not num_others:
            _check_whole(num_ranks, num_others, left)
            shares["learner"] = 1.0
            left -= still_open.pop("learner")
    share = _share(sum(still_open.values()), left)
    shares |= dict.fromkeys(still_open, share)
    return [
        Role(
            name,
            count,
            needed.num_cpus,
            shares[name] if needed.num_gpus is None else needed.num_gpus,
            needed.resources,
        )
        for name, count, needed in needs
    ]


def _check_whole(num_ranks: int, num_others: int, num_gpus: int) -> None:
    """Check that every rank can have a GPU of its own, and somebody else at least one."""
    wanted = num_ranks + (num_others > 0)
    if num_gpus < wanted:
        others = ", and those that share GPUs at least one" if num_others else ""
        raise ResourceError(
            f"{num_ranks} learner ranks need a whole GPU each, as nccl takes each GPU once{others}:"
            f" {wanted} GPUs, but {num_gpus} are left to share out. Ask for fewer ranks "
            "(learner.num_workers), or state num_gpus for every role (0 = on the CPU)"
        )


def _share(num_workers: int, num_gpus: int) -> float:
    """Return the GPUs of each worker: 1, 0, or a fraction that Ray can pack onto whole GPUs."""
    if num_gpus <= 0 or num_workers == 0:
        return 0.0
    per_gpu = math.ceil(num_workers / num_gpus)
    return math.floor(100 / per_gpu) / 100


def check_feasible(placement: Placement, nodes: Sequence[Node], *, can_grow: bool) -> None:
    """Check that the whole cluster could hold all roles at once, if nobody else used it.

    Necessary, not sufficient: Ray decides how workers pack onto nodes.

    Args:
        placement: What the roles need.
        nodes: All nodes of the cluster.
        can_grow: Whether an autoscaler may add nodes: a warning then replaces the error.

    Raises:
        ResourceError: All roles need more than the cluster has, or a worker more than any node.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    too_large = [role for role in placement.roles() if not any(role.fits(node) for node in nodes)]
    if placement.num_cpus() <= cpus and placement.num_gpus() <= gpus and not too_large:
        return
    message = (
        f"needed: {placement.num_cpus():g} CPU and {placement.num_gpus():g} GPU "
        f"({'; '.join(map(str, placement.roles()))}); the cluster has {cpus:g} CPU and {gpus:g} "
        f"GPU on {len(nodes)} nodes"
    )
    if too_large:
        message += f"; no node is large enough for one worker of: {too_large[0].name}"
    if not can_grow:
        raise ResourceError(
            f"{message}. Ask for less (learner, encoder, generators, rewards: num_workers, "
            "num_cpus, num_gpus), or set cluster.can_grow=true if an autoscaler adds nodes"
        )
    logger.warning("%s; waiting for the autoscaler to add nodes", message)


class Pool(Protocol):
    """The method of an `ElasticPool` that `wait_until_serving` needs."""

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Return whether a worker became ready in time; raise if none ever will."""
        ...


def wait_until_serving(
    pools: Iterable[Pool],
    places: Callable[[], str],
    should_stop: Callable[[], bool] = lambda: False,
    report_s: float = _REPORT_S,
) -> None:
    """Wait for the first ready worker of every pool; every `report_s`, log what is missing.

    Args:
        pools: Those that must have one.
        places: Says what is needed and who has it, such as `actors.pool.places.Places`.
        should_stop: Asked several times a second.
        report_s: Seconds between two lines.

    Raises:
        PoolFailedError: The workers of a pool cannot start.
        StoppedError: `should_stop` said so.
    """
    for pool in pools:
        said = time.monotonic()
        while not pool.wait_until_serving(min(report_s, _ASK_S)):
            if should_stop():
                raise StoppedError("stopped while it waited for workers to load their models")
            if (now := time.monotonic()) - said >= report_s:
                said = now
                logger.warning("waiting for workers: %s", places())
