"""What `videorl doctor --recipe` looks at: a recipe, and the machines it would run on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jobs.findings import Finding
from jobs.fit_checks import check_fit, ray_node

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.run.node_facts import NodeFacts

_BYTES_PER_PIXEL = 0.1
"""Of an mp4 as the archive writes them, about."""


Check: TypeAlias = "Callable[[Recipe, Sequence[NodeFacts]], list[Finding]]"
"""Compares a recipe with its machines, of which there is one at least, the driver's first."""


def pin_and_check(recipe: Recipe) -> list[Finding]:
    """Ask the hub which commits the recipe's ids are, and put these in; no file is downloaded."""
    from videorl.errors import VideorlError
    from videorl.files import hub
    from videorl.run.pins import hub_settings

    findings: list[Finding] = []
    try:
        for setting in hub_settings(recipe):
            name = hub.resolved(setting.name, setting.key)
            setting.put(str(name))
            findings.append(Finding("hub", "ok", f"{setting.key}: {name}"))
    except VideorlError as error:
        findings.append(Finding("hub", "broken", str(error), "see the message"))
    return findings


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
    from videorl.files.hub import local_path

    findings: list[Finding] = []
    try:
        prompts.check_sources(recipe)
        findings.append(Finding("prompts", "ok", recipe.prompts.source))
    except (VideorlError, OSError) as error:
        findings.append(Finding("prompts", "broken", str(error), "see the message"))
    if (archive := recipe.offline.archive) and not local_path(archive).exists():
        fix = "set offline.archive to the archive folder of a run, or to Parquet files"
        findings.append(Finding("archive", "broken", f"there is no {archive}", fix))
    return findings


def check_workers(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare the CPUs and GPUs that the workers ask for with those that are there."""
    from actors.placement import check_feasible, place_training, why_beside
    from videorl.errors import ResourceError

    there = [ray_node(node) for node in nodes]
    # What compares base and aligned policy at the end takes the learner's place.
    found = (
        f"{sum(node.cpus for node in there):g} CPUs and {sum(node.gpus for node in there):g} GPUs"
        " there"
    )
    try:
        placement = place_training(recipe, there)
        found = f"{placement.num_cpus():g} and {placement.num_gpus():g} wanted, {found}"
        with why_beside(recipe):
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
    from videorl.errors import VideorlError

    try:
        sizes = sizes_gb(recipe)
    except VideorlError as error:
        fix = "see that each node has more memory than the largest model's files"
        return [Finding("memory", "warning", f"the size of a model is not known: {error}", fix)]
    setting = max(sizes, key=lambda one: sizes[one])
    least = min(nodes, key=lambda node: node.memory_gb)
    found = (
        f"{least.memory_gb:.1f} GB on {least.name}, the least; {sizes[setting]:.1f} GB in "
        f"{setting}, the largest model"
    )
    if least.memory_gb > sizes[setting]:
        return [Finding("memory", "ok", found)]
    return [Finding("memory", "broken", found, "use nodes with more memory, or smaller models")]


def check_room(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare free disk space with what checkpoints and archive will take, roughly."""
    from videorl.errors import VideorlError

    needed, unknown = {"archive": archive_gb(recipe)}, ""
    try:
        on_gpu = any(node.resources.get("GPU", 0) for node in nodes)
        needed["checkpoints"] = checkpoints_gb(recipe, on_gpu=on_gpu)
    except VideorlError as error:
        unknown = f" (checkpoints: not known, {error})"
    total, free = sum(needed.values()), nodes[0].disk_free_gb
    parts = ", ".join(f"{size:.2g} GB of {name}" for name, size in needed.items())
    found = f"{free:.1f} GB free for {recipe.run_dir}; about {parts}{unknown}"
    if free > total:
        return [Finding("room", "ok", found)]
    fix = (
        "set run_dir to a larger disk, archive.keep_gb, archive.videos=none, checkpoint.keep=1, or "
        "a lower num_steps"
    )
    return [Finding("room", "broken", found, fix)]


def check_downloads(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Compare free space for the hub's cache with what is to download, by the plan."""
    from videorl.errors import VideorlError
    from videorl.planning.cards import Card
    from videorl.planning.plan import make_plan

    lacking = [node for node in nodes if "to download" in node.models.values()]
    if not lacking:
        return []
    try:
        needed = make_plan(recipe, Card("any", 1e6, 1.0)).download_bytes / 1e9
    except VideorlError as error:
        fix = "see that the disk of HF_HOME has room for all models"
        return [Finding("downloads", "warning", f"their size is not known: {error}", fix)]
    least = min(lacking, key=lambda node: node.cache_free_gb)
    found = (
        f"{needed:.1f} GB to download, {least.cache_free_gb:.1f} GB free in the hub's cache on "
        f"{least.name}"
    )
    if least.cache_free_gb > needed:
        return [Finding("downloads", "ok", found)]
    return [Finding("downloads", "broken", found, "set HF_HOME to a larger disk there")]


CHECKS: list[Check] = [
    check_models,
    check_downloads,
    check_sources,
    check_workers,
    check_versions,
    check_memory,
    check_fit,
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
    num_steps = math.ceil(recipe.num_steps / recipe.archive.every)
    groups = num_steps * recipe.prompts.per_round
    sampled = recipe.prompts.candidates_per_prompt
    num_videos = {"all": sampled, "pairs": 2, "none": 0}[recipe.archive.videos] * groups
    size = num_videos * recipe.video_pixels * _BYTES_PER_PIXEL
    if recipe.archive.latents:
        # 16 channels in float32, of 4 frames and 8 x 8 pixels: Wan 2.1 and CogVideoX.
        num_latents = (sampled if recipe.archive.videos == "all" else 2) * groups
        size += num_latents * recipe.video_pixels / (4 * 8 * 8) * 16 * 4
    return min(size / 1e9, recipe.archive.keep_gb or math.inf)


def checkpoints_gb(recipe: Recipe, *, on_gpu: bool) -> float:
    """Return the most that the checkpoints of a run take, by the plan.

    Raises:
        CheckpointError: The policy's configurations cannot be read.
    """
    from videorl.planning.checkpoints import checkpoints_bytes
    from videorl.planning.memory import PolicyCounts
    from videorl.planning.models import read_configs
    from videorl.planning.shadow import compute_dtype

    counts = PolicyCounts(recipe, read_configs(recipe.policy.path), on_gpu=on_gpu)
    itemsize = compute_dtype(recipe, on_gpu).itemsize
    return checkpoints_bytes(recipe, counts.sizes, itemsize) / 1e9


def sizes_gb(recipe: Recipe) -> dict[str, float]:
    """Return setting -> size of the files of the models that are here, or of known size.

    Of models that are not here, the policy's follows from its configurations, and that of published
    reward models is known; others are left out.

    Raises:
        CheckpointError: The policy's configurations cannot be read.
        ConfigError: The recipe does not fit the policy.
    """
    from videorl.files import hub
    from videorl.planning.rewards import is_known, reward_memory
    from videorl.run.node_facts import local_place

    found: dict[str, float] = {}
    for setting, text in models_of(recipe).items():
        place, name = local_place(text), hub.parse(text)
        if not place.exists() and name and (commit := hub.cached_commit(name)):
            place = name.cache / "snapshots" / commit
        found[setting] = _size_gb(place) if place.exists() else 0.0
    if not found["policy.path"]:
        from videorl.planning.cards import Card
        from videorl.planning.plan import make_plan

        alone = replace(recipe, rewards=[])
        found["policy.path"] = make_plan(alone, Card("any", 1e6, 1.0)).download_bytes / 1e9
    for number, reward in enumerate(recipe.rewards):
        if found.get(setting := f"rewards.{number}.path") == 0.0 and is_known(reward):
            found[setting] = reward_memory(reward, recipe)[0].weights / 1e9
    return {setting: size for setting, size in found.items() if size}


def _size_gb(place: Path) -> float:
    if place.is_file():
        return place.stat().st_size / 1e9
    return sum(path.stat().st_size for path in place.rglob("*.safetensors")) / 1e9
