"""Plan, resumable state and learning-rate schedule, shared by the two trainings."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and on what to train; the same plan gives the same weights on the same machine."""

    steps: int
    """Optimizer steps in total, including those of an earlier run that was stopped."""
    batch_size: int
    """Clips per step."""
    seed: int
    """Seed of clips, times and noise, which otherwise depend on the step alone."""
    work_dir: Path
    """Folder of the state file."""
    save_every: int = 200
    """Steps between saves."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Saves and restores anything with `state_dict` and `load_state_dict`, in one file."""

    path: Path
    parts: Mapping[str, Any]

    def restore(self) -> int:
        """Load the file if it exists; return the number of steps already done, 0 without."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Replace the file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save(
            {"step": step, **{name: part.state_dict() for name, part in self.parts.items()}},
            temporary,
        )
        os.replace(temporary, self.path)


def warmup_cosine(step: int, steps: int, *, warmup: int, floor: float = 0.03) -> float:
    """Return the learning-rate factor: linear over `warmup` steps, then a cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
