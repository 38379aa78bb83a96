"""What a run's policy computes on, on the Ray that is connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from actors.placement import Node, place, place_training
from videorl.config import Recipe
from videorl.planning.fitting import own_memory_gib
from videorl.policies.devices import Devices

# NVIDIA's cards before Ampere, as Ray names them.
_WITHOUT_BFLOAT16 = frozenset({"K80", "M60", "P4", "P40", "P100", "T4", "V100"})


def computing_devices(recipe: Recipe, nodes: Sequence[Node]) -> Devices:
    """Return what the learner and the generators of a run will compute on.

    Where only some cards have bfloat16, the others emulate it: slower, but with the same result.

    Args:
        recipe: The run.
        nodes: All nodes of its cluster.
    """
    placement = place_training(recipe, nodes)
    gpus = [placement.learner.num_gpus, placement.generators.num_gpus]
    if recipe.evaluation.source and not recipe.learns_online:
        # The generators take the learner's place when it has left.
        idle = replace(recipe, learner=recipe.learner.taking_nothing())
        gpus.append(place(idle, nodes).generators.num_gpus)
    cards = {
        name.removeprefix("accelerator_type:")
        for node in nodes
        if node.gpus
        for name in node.custom
        if name.startswith("accelerator_type:")
    }
    return Devices(
        on_gpu=any(share > 0 for share in gpus),
        has_bfloat16=not cards or not cards <= _WITHOUT_BFLOAT16,
    )


def learner_memory_gib(recipe: Recipe, nodes: Sequence[Node]) -> float:
    """Return the GPU memory that a learner rank has to itself, in GiB; 0 = it has no GPU.

    Args:
        recipe: The run.
        nodes: All nodes of its cluster.
    """
    role = place_training(recipe, nodes).learner
    if not role.num_gpus:
        return 0.0
    options = {"num_cpus": 0, "num_gpus": role.num_gpus, "resources": dict(role.custom)}
    probe: Any = ray.remote(own_memory_gib).options(**options)
    return float(ray.get(probe.remote())) * min(role.num_gpus, 1.0)
