"""What a machine has that a run needs: versions, memory, disk, GPUs, models."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

_OWN = __name__.partition(".")[0]
PACKAGES = (_OWN, "torch", "diffusers", "transformers", "peft", "ray", "deepspeed")
"""Versions that must be the same on all nodes, beside Python's."""

Presence: TypeAlias = Literal["here", "cached", "to download", "missing"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One machine."""

    name: str
    versions: Mapping[str, str]
    resources: Mapping[str, float]
    """As Ray calls them: `CPU`, `GPU`, and those of the user's own."""
    memory_gb: float
    disk_free_gb: float
    """Where the run folder is, or will be."""
    models: Mapping[str, Presence]
    """Setting -> whether what it names is on this machine."""


def facts_here(run_dir: str, models: Mapping[str, str]) -> NodeFacts:
    """Return what this machine has; nothing is downloaded.

    Args:
        run_dir: The folder of the run.
        models: Setting -> folder, file, shipped name or hub id.
    """
    import psutil
    import torch

    existing = Path(run_dir).expanduser().absolute()
    while not existing.exists():
        existing = existing.parent
    return NodeFacts(
        platform.node(),
        {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()},
        psutil.virtual_memory().total / 1e9,
        shutil.disk_usage(existing).free / 1e9,
        {setting: presence(place) for setting, place in models.items()},
    )


def presence(place: str) -> Presence:
    """Tell whether a model is on this machine: a shipped name, a file or folder, or a hub id."""
    if local_place(place).exists():
        return "here"
    if place.count("/") != 1 or place[0] in "/.~":
        return "missing"
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE, f"models--{place.replace('/', '--')}", "snapshots")
    return "cached" if snapshots.is_dir() and any(snapshots.iterdir()) else "to download"


def local_place(place: str) -> Path:
    """Return where a shipped name, a file or a folder is, or would be."""
    from videorl.policies import checkpoints as policies
    from videorl.rewards import checkpoints as rewards

    shipped = policies.SHIPPED | rewards.SHIPPED
    return shipped.get(place, Path(place).expanduser())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
