"""What `videorl doctor --recipe` looks at: a recipe, and the machines it would run on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.run.node_facts import NodeFacts

_BYTES_PER_PIXEL = 0.1
"""Of an mp4 as the archive writes them, about."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `fix` says what to do unless all is well."""

    name: str
    status: Literal["ok", "warning", "broken"]
    found: str
    fix: str = ""


Check: TypeAlias = "Callable[[Recipe, Sequence[NodeFacts]], list[Finding]]"
"""Compares a recipe with its machines, of which there is one at least, the driver's first."""


def check_models(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Look for the models that the recipe names, on every node."""
    findings: list[Finding] = []
    for setting, place in models_of(recipe).items():
        by_state = {state: [n.name for n in nodes if n.models[setting] == state] for state in _FIX}
        if lacking := by_state["missing"]:
            fix = f"copy it there, or set {setting} to a folder that every node has, or a hub id"
            found = f"{setting}: {place} is missing on {', '.join(lacking)}"
            findings.append(Finding("model", "broken", found, fix))
        elif lacking := by_state["to download"]:
            found = f"{setting}: {place} is not in the hub's cache on {', '.join(lacking)}"
            findings.append(Finding("model", "warning", found, _FIX["to download"]))
        else:
            findings.append(Finding("model", "ok", f"{setting}: {place}"))
    return findings


_FIX = {
    "missing": "",
    "to download": "it is downloaded when the run starts: check the network, the disk, and "
    "HF_TOKEN for a gated model; or let `videorl fetch` bring it before",
}


def check_sources(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Read prompts and find stored pairs, on this machine: only the driver needs them."""
    from videorl.data import prompts
    from videorl.errors import VideorlError

    findings: list[Finding] = []
    try:
        prompts.check_sources(recipe)
        findings.append(Finding("prompts", "ok", recipe.prompts.source))
    except (VideorlError, OSError) as error:
        findings.append(Finding("prompts", "broken", str(error), "see the message"))
    if (archive := recipe.offline.archive) and not Path(archive).expanduser().exists():
        fix = "set offline.archive to the archive folder of a run, or to Parquet files"
        findings.append(Finding("archive", "broken", f"there is no {archive}", fix))
    return findings


def check_workers(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare the CPUs and GPUs that the workers ask for with those that are there."""
    from actors.placement import Node, check_feasible, place
    from videorl.errors import ResourceError

    there = [
        Node(node.resources.get("CPU", 0), node.resources.get("GPU", 0), node.resources)
        for node in nodes
    ]
    placement = place(recipe, there)
    found = (
        f"{placement.num_cpus():g} CPUs and {placement.num_gpus():g} GPUs wanted, "
        f"{sum(node.cpus for node in there):g} and {sum(node.gpus for node in there):g} there"
    )
    try:
        check_feasible(placement, there, can_grow=recipe.cluster.can_grow)
    except ResourceError as error:
        fix = "lower the workers' num_cpus, num_gpus and numbers, or add nodes"
        return [Finding("workers", "broken", f"{found}: {error}", fix)]
    return [Finding("workers", "ok", found)]


def check_versions(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare the versions of all nodes with those of the driver's."""
    first, findings = nodes[0], list[Finding]()
    for package, version in first.versions.items():
        others = [
            f"{node.versions[package]} on {node.name}"
            for node in nodes[1:]
            if node.versions[package] != version
        ]
        if others:
            found = f"{package} is {version} on {first.name}, but {', '.join(others)}"
            fix = f"install {package} {version} on every node"
            findings.append(Finding("versions", "broken", found, fix))
    same = f"{len(nodes)} nodes have the same Python and packages"
    return findings or [Finding("versions", "ok", same if len(nodes) > 1 else "one node")]


def check_memory(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare the memory of each node with the largest model, which a process reads whole."""
    from videorl.run.node_facts import local_place

    sizes = {setting: _size_gb(local_place(place)) for setting, place in models_of(recipe).items()}
    setting = max(sizes, key=lambda one: sizes[one])
    least = min(nodes, key=lambda node: node.memory_gb)
    found = (
        f"{least.memory_gb:.1f} GB on {least.name}, the least; {sizes[setting]:.1f} GB in "
        f"{setting}, the largest model here"
    )
    if least.memory_gb > sizes[setting]:
        return [Finding("memory", "ok", found)]
    return [Finding("memory", "broken", found, "use nodes with more memory, or smaller models")]


def check_room(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare free disk space with what checkpoints and archive will take, roughly."""
    needed = {"archive": archive_gb(recipe)}
    if (trained := trained_numbers(recipe)) is not None:
        # Weights, two moments and the reference in float32, and the published versions.
        numbers = trained * (4 + recipe.rollouts.max_staleness + 1)
        needed["checkpoints"] = 4 * numbers * (recipe.checkpoint.keep + 1) / 1e9
    total, free = sum(needed.values()), nodes[0].disk_free_gb
    parts = ", ".join(f"{size:.2g} GB of {name}" for name, size in needed.items())
    found = f"{free:.1f} GB free for {recipe.run_dir}; about {parts}"
    if trained is None:
        found += " (checkpoints: not known, as policy.path is not a folder here)"
    if free > total:
        return [Finding("room", "ok", found)]
    fix = (
        "set run_dir to a larger disk, archive.videos=none, checkpoint.keep=1, or a lower num_steps"
    )
    return [Finding("room", "broken", found, fix)]


CHECKS: list[Check] = [
    check_models,
    check_sources,
    check_workers,
    check_versions,
    check_memory,
    check_room,
]


def models_of(recipe: Recipe) -> dict[str, str]:
    """Return setting -> folder, file or hub id of every model that the recipe reads."""
    from videorl.rewards import MODELS

    found = {"policy.path": recipe.policy.path}
    if recipe.policy.lora.initial:
        found["policy.lora.initial"] = recipe.policy.lora.initial
    for number, reward in enumerate(recipe.rewards):
        known = MODELS.get(reward.name)
        if path := reward.path or (known.published if known else None):
            found[f"rewards.{number}.path"] = path
        if isinstance(base := reward.options.get("base"), str):
            found[f"rewards.{number}.options.base"] = base
    return found


def archive_gb(recipe: Recipe) -> float:
    """Return about how much the archive of a whole run takes."""
    if not recipe.learns_online:
        return 0.0
    groups = recipe.num_steps * recipe.prompts.per_round
    sampled = recipe.prompts.candidates_per_prompt
    num_videos = {"all": sampled, "pairs": 2, "none": 0}[recipe.archive.videos] * groups
    size = num_videos * recipe.video_pixels * _BYTES_PER_PIXEL
    if recipe.archive.latents:
        # 16 channels in float32, of 4 frames and 8 x 8 pixels: Wan 2.1 and CogVideoX.
        size += sampled * groups * recipe.video_pixels / (4 * 8 * 8) * 16 * 4
    return size / 1e9


def trained_numbers(recipe: Recipe) -> int | None:
    """Return how many numbers are trained, by the headers of the policy's files.

    None if they are not in a folder on this machine.
    """
    from safetensors import safe_open

    from videorl.run.node_facts import local_place

    files = sorted((local_place(recipe.policy.path) / "transformer").glob("*.safetensors"))
    if not files:
        return None
    lora, total = recipe.policy.lora, 0
    for path in files:
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - the object is no dict
                shape = tensors.get_slice(name).get_shape()
                if not lora.rank:
                    total += math.prod(shape)
                elif name.endswith(tuple(f"{target}.weight" for target in lora.target_modules)):
                    total += lora.rank * sum(shape)
    return total


def _size_gb(place: Path) -> float:
    if place.is_file():
        return place.stat().st_size / 1e9
    return sum(path.stat().st_size for path in place.rglob("*.safetensors")) / 1e9
