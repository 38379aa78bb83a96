"""The plan's memory of each role, held against the GPUs, or the host memory, of each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from videorl.config import Recipe
from videorl.planning.cards import GIB, USABLE, Card
from videorl.planning.models import Configs
from videorl.planning.roles import count_needs
from videorl.run.node_facts import NodeFacts

HOST = "host memory"


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker of a role takes of a node."""

    peak_gib: float
    num_gpus: float
    """Below 1 it shares a GPU; 0 = it computes on the CPU, in host memory."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker may run: the smallest GPU of a node, or the node's host memory."""

    node: str
    device: str
    room_gib: float
    """What the worker may fill."""
    free_gib: float
    """What nobody else holds of that now."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A worker held against the nodes that Ray may place it on."""

    peak_gib: float
    places: tuple[Place, ...]
    unknown: tuple[str, ...] = ()
    """Nodes with GPUs that do not tell their memory."""

    @property
    def too_small(self) -> tuple[Place, ...]:
        """Places without room, the smallest first."""
        short = [place for place in self.places if place.room_gib < self.peak_gib]
        return tuple(sorted(short, key=lambda place: place.room_gib))

    @property
    def taken(self) -> tuple[Place, ...]:
        """Places that have room, of which others hold too much now."""
        return tuple(
            place for place in self.places if place.free_gib < self.peak_gib <= place.room_gib
        )

    @property
    def fits_somewhere(self) -> bool:
        """Whether a place has room, or may have."""
        return bool(self.unknown) or len(self.too_small) < len(self.places)


def count_peaks(recipe: Recipe, configs: Configs, *, on_gpu: bool) -> dict[str, float]:
    """Return role -> peak of one worker in GiB, at the micro-batch that the recipe asks for.

    `auto` counts as one video on GPUs, where the run takes as many as fit.

    Args:
        recipe: The run.
        configs: Of its policy.
        on_gpu: Whether learner or generators have GPUs, which decides `policy.dtype=auto`.

    Raises:
        ConfigError: It cannot be planned.
    """
    asked = recipe.learner.micro_batch_size
    number = recipe.learner.videos_at_once if asked != "auto" or not on_gpu else 1
    recipe = replace(recipe, learner=replace(recipe.learner, micro_batch_size=number))
    roles = count_needs(recipe, configs, Card("any", 1e6, 1.0), on_gpu=on_gpu).roles
    return {name: role.memory.peak_gib for name, role in roles.items()}


def fit(worker: Worker, nodes: Sequence[NodeFacts]) -> Fit:
    """Hold a worker against the nodes that have the CPUs, GPUs and custom resources for it."""
    if not worker.num_gpus:
        places = [_host(node.name, node.memory_gb, node.memory_free_gb) for node in nodes]
        return Fit(worker.peak_gib, tuple(places))
    share = min(worker.num_gpus, 1.0)
    known = [node for node in nodes if node.gpus]
    unknown = tuple(node.name for node in nodes if not node.gpus)
    return Fit(worker.peak_gib, tuple(_gpu(node, share) for node in known), unknown)


def fit_together(peaks_gib: Sequence[float], nodes: Sequence[NodeFacts]) -> Fit:
    """Hold all workers that compute on CPUs against the host memory of all nodes together."""
    name = nodes[0].name if len(nodes) == 1 else f"all {len(nodes)} nodes"
    total = sum(node.memory_gb for node in nodes), sum(node.memory_free_gb for node in nodes)
    return Fit(sum(peaks_gib), (_host(name, *total),))


def _host(name: str, memory_gb: float, free_gb: float) -> Place:
    return Place(name, HOST, memory_gb * 1e9 / GIB, free_gb * 1e9 / GIB)


def _gpu(node: NodeFacts, share: float) -> Place:
    """Return the smallest GPU of a node, which Ray may give as well as any other."""
    smallest = min(node.gpus, key=lambda gpu: gpu.total_gib)
    room = smallest.total_gib * USABLE * share
    free = min(gpu.free_gib for gpu in node.gpus)
    return Place(node.name, smallest.name, room, min(room, free))
