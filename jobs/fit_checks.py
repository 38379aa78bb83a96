"""What `videorl doctor --recipe` says of the memory of each role, on each node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.findings import Finding

if TYPE_CHECKING:
    from actors.placement import Node, Role
    from videorl.config import Recipe
    from videorl.planning.nodes import Fit, Place
    from videorl.run.node_facts import NodeFacts

_SHOWN = 3
"""Nodes that a finding names."""


def check_fit(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Hold the plan's memory of each role against the GPUs of the nodes, or their host memory."""
    from videorl.errors import CheckpointError, ConfigError, ResourceError
    from videorl.planning.models import read_configs
    from videorl.planning.nodes import HOST, Worker, count_peaks, fit, fit_together
    from videorl.planning.rewards import itemsize

    try:
        roles = _placed(recipe, nodes)
    except ResourceError as error:
        return [Finding("fit", "broken", str(error), "see workers")]
    on_gpu = any(roles[name].num_gpus for name in ("learner", "generator") if name in roles)
    try:
        peaks = count_peaks(recipe, read_configs(recipe.policy.path), on_gpu=on_gpu)
    except (ConfigError, CheckpointError) as error:
        fix = "rehearsal=always finds out in the first minutes of the run"
        return [Finding("fit", "warning", f"memory is not known: {error}", fix)]
    findings: list[Finding] = []
    on_cpu: list[float] = []
    rewards = {reward.key: reward for reward in recipe.rewards}
    for name in peaks.keys() & roles.keys():
        role, peak = roles[name], peaks[name]
        able = [node for node in nodes if role.fits(ray_node(node))]
        if not role.num_gpus and name in rewards:  # estimated for GPUs; on CPUs in float32
            peak *= 4 / itemsize(rewards[name])
        if name == "generator":  # a worker's processes are all on one node
            peak *= recipe.generators.context_parallel if not role.num_gpus else 1
        found = fit(Worker(peak, role.num_gpus), able)
        on_cpu += [peak] * (0 if role.num_gpus else role.num_workers)
        findings.append(as_finding(name, found))
    if on_cpu:
        together = fit_together(on_cpu, nodes)
        findings.append(as_finding(f"{len(on_cpu)} workers on CPUs, {HOST}", together))
    return sorted(findings, key=lambda finding: finding.found)


def as_finding(name: str, found: Fit) -> Finding:
    """Say whether a role fits, on which node not, and by how much.

    Args:
        name: Of the role.
        found: Its worker, held against the nodes that can have it.
    """
    needs = f"{name}: {found.peak_gib:.2f} GiB needed"
    if not found.places and not found.unknown:
        return Finding("fit", "broken", f"{needs}, no node can have it", "see workers")
    short = [f"{found.peak_gib - p.room_gib:.2f} lack on {_place(p)}" for p in found.too_small]
    if short:
        said = f"{needs}, {_shown(short)}"
        if found.fits_somewhere:
            fix = "keep the role off these nodes, or give all nodes as much memory"
            return Finding("fit", "warning", said, fix)
        fix = "see `videorl plan` for what to change, or use larger GPUs or nodes"
        return Finding("fit", "broken", said, fix)
    if found.taken:
        held = [f"only {place.free_gib:.2f} free on {_place(place)}" for place in found.taken]
        fix = "end what holds the memory there before the run"
        return Finding("fit", "warning", f"{needs}, {_shown(held)}", fix)
    if found.unknown:
        said = f"{needs}, GPUs do not tell their memory on {_shown(found.unknown)}"
        return Finding("fit", "warning", said, "see that nvidia-smi works there")
    least = min(found.places, key=lambda place: place.room_gib)
    return Finding("fit", "ok", f"{needs}, the least is {_place(least)}")


def _place(place: Place) -> str:
    return f"{place.node} ({place.device}, {place.room_gib:.1f} GiB usable)"


def _shown(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _placed(recipe: Recipe, nodes: Sequence[NodeFacts]) -> dict[str, Role]:
    """Return the plan's name of each role -> what Ray is asked for."""
    from actors.placement import place_training

    placed = place_training(recipe, [ray_node(node) for node in nodes])
    own = {"learner": placed.learner, "encoder": placed.encoder}
    if not recipe.has_pools:
        return own
    own["generator"] = placed.generators
    rewards = zip(recipe.rewards, placed.rewards, strict=True)
    return own | {reward.key: role for reward, role in rewards}


def ray_node(node: NodeFacts) -> Node:
    """Return what Ray would know of a node."""
    from actors.placement import Node

    return Node(node.resources.get("CPU", 0), node.resources.get("GPU", 0), node.resources)
