"""What sampling ahead gains: time per step against the slowest stage, on stand-ins."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run
from jobs.bench.stand_ins import Pace
from videorl.loop import train
from videorl.run.folder import open_run

PER_ROUND = 4
_WARM_UP = 2

MIXES = {
    "generation-bound": Pace(0.25, 0.05, 0.2),
    "reward-bound": Pace(0.05, 0.25, 0.2),
    "learner-bound": Pace(0.05, 0.05, 1.0),
    "balanced": Pace(0.2, 0.2, 0.8),
    "balanced, uneven requests": Pace(0.2, 0.2, 0.8, spread=0.9),
    "all on one core": Pace(0.1, 0.05, 0.4, computes=True),
}
"""Name -> seconds of generation per prompt, of scoring per group, of learning per step."""


@dataclass
class Clock:
    """A metric sink that notes when steps end."""

    times: list[float] = field(default_factory=list[float])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note the time."""
        self.times.append(time.monotonic())


def overlap(pace: Pace, max_staleness: int, num_steps: int) -> dict[str, Any]:
    """Run with one generator and one reward worker; return seconds per step and per stage.

    The first steps warm up, and in the last ones nothing is left to sample ahead: neither counts.
    Seconds per step are a median, so that other work on the machine for a while counts little.
    """
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        recipe = stand_in_recipe(
            folder,
            num_steps=_WARM_UP + num_steps + max_staleness,
            prompts__per_round=PER_ROUND,
            rollouts__max_staleness=max_staleness,
        )
        with open_run(recipe) as run, stand_in_run(recipe, run, clock, pace) as parts:
            train(recipe, parts.parts, parts.progress, lambda: False)
    measured = clock.times[_WARM_UP - 1 : _WARM_UP + num_steps]
    step_s = median(after - before for before, after in pairwise(measured))
    stages = {
        "generate": PER_ROUND * pace.generate_s,
        "score": PER_ROUND * pace.score_s,
        "learn": pace.learn_s,
    }
    # Stages that share one core cannot overlap: their best is the sum.
    best = sum(stages.values()) if pace.computes else max(stages.values())
    return {"stages, s": stages, "best, s": best, "step, s": step_s, "step / best": step_s / best}
