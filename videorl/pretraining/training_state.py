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
    """Optimizer steps in all, those of an earlier, stopped run included."""
    batch_size: int
    """Clips per step."""
    seed: int
    """Seed of clips, times and noise, each also a function of the step alone."""
    work_dir: Path
    """Where the state is kept."""
    save_every: int = 200
    """Steps between two savings of the state."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Saves and restores anything with `state_dict` and `load_state_dict`, in one file."""

    path: Path
    parts: Mapping[str, Any]

    def restore(self) -> int:
        """Load the file if there is one; returns the number of steps already done (0 without)."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Write the file whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save(
            {"step": step, **{name: part.state_dict() for name, part in self.parts.items()}},
            temporary,
        )
        os.replace(temporary, self.path)


def warmup_cosine(step: int, steps: int, *, warmup: int, floor: float = 0.03) -> float:
    """Learning-rate factor: linear from 0 over `warmup` steps, then a cosine from 1 to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
