"""The section of a recipe about a reward model and its workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class RewardConfig:
    """One reward model; several are combined by `weight`."""

    name: str = MISSING
    """One of `videorl.rewards.MODELS`, which docs/rewards.md describes, or `module:attribute`."""
    label: str = ""
    """What its scores are called; empty = `name`. Needed where one model is used twice."""
    path: str | None = None
    """Folder or hub id (`owner/name@revision`) of its checkpoint; null = the published
    model, where there is one."""
    weight: float = 1.0
    """Its factor in the total of a candidate; 0 = scored and logged, but not optimised."""
    dimension_weights: dict[str, float] = field(default_factory=dict[str, float])
    """Weights of single dimensions; empty = the model's own total."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its loader takes besides the path; docs/rewards.md lists it for every model."""
    num_workers: int = 1
    """Kept even when idle."""
    max_workers: int = 0
    """Started while groups queue; 0 = `num_workers`."""
    num_cpus: float = 1.0
    num_gpus: float | None = None
    """Per worker, here and in every section; null = one, or an equal share of the cluster's GPUs
    where that has fewer than all workers together would take, or none where it has none."""
    resources: dict[str, float] = field(default_factory=dict[str, float])
    """Custom Ray resources that each worker takes beside CPUs and GPUs."""
    decode_threads: int = 0
    """Clips of a request that are decoded and resized at once, ahead of the network; 0 = each when
    it is its turn. Same scores."""
    prefetch: int = 0
    """Requests that a worker is given beside the one that its network works on: their videos come
    and are decoded meanwhile. Same scores."""
    runtime_env: dict[str, Any] = field(default_factory=dict[str, Any])
    """Ray's runtime environment of its workers alone: `pip`, `env_vars`, `working_dir`, ..."""
    max_retries: int = 3
    worker_timeout_s: float = 600.0
    idle_release_s: float = 300.0
    """A worker above `num_workers` that idles for longer is released."""
    start_timeout_s: float = 1800.0
    """A worker that has a place and has not loaded its model for longer is replaced."""
    patience_s: float = 1200.0
    """Where workers have worked and no more can be started, the run ends after so long."""

    @property
    def key(self) -> str:
        """What its scores are called; unique within a recipe."""
        return self.label or self.name

    @property
    def most_workers(self) -> int:
        """Workers that it may ever have."""
        return self.max_workers or self.num_workers
