"""What a machine has that a run needs: versions, memory, disk, GPUs, models."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from videorl.files import hub
from videorl.storage.copies import copy_of
from videorl.storage.place import is_uri

_OWN = __name__.partition(".")[0]
PACKAGES = (_OWN, "torch", "diffusers", "transformers", "peft", "ray", "deepspeed")
"""Versions that must be the same on all nodes, beside Python's."""

Presence: TypeAlias = Literal["here", "cached", "to download", "missing"]


_ASKED_S = 20.0
"""How long `nvidia-smi` may take."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU."""

    name: str
    total_gib: float
    free_gib: float
    """What no process holds now."""


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
    memory_free_gb: float = 0.0
    """What no process holds of its memory now."""
    gpus: tuple[GpuFacts, ...] = ()
    """All GPUs that tell their memory, also those that this process may not use."""
    cache_free_gb: float = 0.0
    """Where the hub's cache is, or will be."""


def facts_here(run_dir: str, models: Mapping[str, str]) -> NodeFacts:
    """Return what this machine has; nothing is downloaded.

    Args:
        run_dir: The folder of the run.
        models: Setting -> folder, file, shipped name or hub id.
    """
    import psutil
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    memory = psutil.virtual_memory()
    return NodeFacts(
        platform.node(),
        {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()},
        memory.total / 1e9,
        _free_gb(copy_of(run_dir, "working") if is_uri(run_dir) else hub.local_path(run_dir)),
        {setting: presence(place) for setting, place in models.items()},
        memory.available / 1e9,
        gpus_here(),
        _free_gb(Path(HF_HUB_CACHE)),
    )


def versions_here() -> tuple[str, dict[str, str]]:
    """Return this machine's name, and the versions that its processes need to understand others'.

    Of Python the first two numbers, of PyTorch without how it was built (`+cu126`): a head without
    GPUs may have another build.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    torch = _version("torch").partition("+")[0]
    versions = {"python": python, "ray": _version("ray"), "torch": torch}
    own = str(sys.modules[_OWN].__version__)  # of the code that runs here, installed or sent along
    return platform.node(), {**versions, _OWN: own}


def _free_gb(folder: Path) -> float:
    """Return the free space of the disk that a folder is on, or would be."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free / 1e9


def gpus_here() -> tuple[GpuFacts, ...]:
    """Return this machine's GPUs: NVIDIA's as `nvidia-smi` sees them, others as torch does.

    `nvidia-smi` also sees those that Ray hides from a task without GPUs.
    """
    words = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(
            ["nvidia-smi", *words], capture_output=True, text=True, timeout=_ASKED_S, check=True
        )
        return parse_gpus(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return _gpus_of_torch()


def parse_gpus(text: str) -> tuple[GpuFacts, ...]:
    """Return the GPUs of `nvidia-smi`'s lines `NAME, TOTAL, FREE`, in MiB.

    Raises:
        ValueError: A line is something else, such as `[N/A]` of a GPU that shares host memory.
    """
    found: list[GpuFacts] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, total, free = (word.strip() for word in line.rsplit(",", 2))
        found.append(GpuFacts(name, float(total) / 1024, float(free) / 1024))
    return tuple(found)


def _gpus_of_torch() -> tuple[GpuFacts, ...]:
    import torch

    found: list[GpuFacts] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(GpuFacts(name, total / _GIB, free / _GIB))
    return tuple(found)


_WEIGHTS = (".safetensors", ".pth", ".bin", ".pt", ".ckpt")


def presence(place: str) -> Presence:
    """Tell whether a model is on this machine: a shipped name, a file or folder, or a hub id."""
    if local_place(place).exists():
        return "here"
    if place[0] in "/.~" or (name := hub.parse(place)) is None:
        return "missing"
    commit = hub.cached_commit(name)
    files = () if commit is None else (name.cache / "snapshots" / commit).rglob("*")
    # Configurations alone come with a plan, or at the start of a download.
    return "cached" if any(file.suffix in _WEIGHTS for file in files) else "to download"


def local_place(place: str) -> Path:
    """Return where a shipped name, a file or a folder is, or would be."""
    from videorl.policies import checkpoints as policies
    from videorl.rewards import checkpoints as rewards

    shipped = policies.SHIPPED | rewards.SHIPPED
    return shipped.get(place, hub.local_path(place))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
