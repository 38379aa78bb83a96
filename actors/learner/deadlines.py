"""How long learner ranks may take for what they do, and who takes longer.

A rank that hangs (a collective that never returns, storage that does not answer) fails nothing by
itself: the command log ends the group's processes then, and Ray Train starts them again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from videorl.config import CheckpointConfig, Recipe
from videorl.settings.workers import LearnerConfig

_VIDEOS, _SOLVER_STEPS = 30, 180
"""So many of a rank may take `learner.worker_timeout_s` more."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds, > 0."""

    start_s: float
    """To load the model and the newest checkpoint."""
    step_s: float
    """To learn from a round."""
    sample_s: float
    """To sample what generators are compared with."""
    save_s: float
    """Until a checkpoint is written, from the moment it was asked for."""
    other_s: float
    """For anything else: an export, a swap of the reference."""

    def of(self, command: object) -> float:
        """Return how long a rank may take for a command."""
        match type(command).__name__:
            case "Step" | "Train" | "RehearseStep":
                return self.step_s
            case "Sample":
                return self.sample_s
            case "Save" | "RehearseCheckpoint":
                return self.save_s
        return self.other_s


def policy_deadlines(recipe: Recipe) -> Deadlines:
    """Return the deadlines of a policy's learner: more for larger rounds and longer sampling.

    A learner that gets prompts alone samples within its steps.
    """
    videos = recipe.prompts.per_round * recipe.prompts.candidates_per_prompt
    steps = recipe.sampling.num_inference_steps
    found = _deadlines(recipe.learner, recipe.checkpoint, videos, steps)
    if recipe.objective.learns_from != "prompts":
        return found
    sampled = recipe.prompts.per_round / recipe.learner.num_workers
    more_s = recipe.learner.worker_timeout_s * sampled * steps / _SOLVER_STEPS
    return replace(found, step_s=found.step_s + more_s)


def reward_deadlines(
    learner: LearnerConfig, checkpoint: CheckpointConfig, batch_size: int
) -> Deadlines:
    """Return the deadlines of a reward model's training, whose steps take `batch_size` videos."""
    return _deadlines(learner, checkpoint, batch_size, 0)


def _deadlines(
    learner: LearnerConfig, checkpoint: CheckpointConfig, videos: int, solver_steps: int
) -> Deadlines:
    base = learner.worker_timeout_s
    return Deadlines(
        start_s=learner.start_timeout_s,
        step_s=base * (1 + videos / learner.num_workers / _VIDEOS),
        sample_s=base * (1 + solver_steps / _SOLVER_STEPS),
        save_s=checkpoint.timeout_s,
        other_s=base,
    )


LOADING = "loading its model"


@dataclass(frozen=True, slots=True)
class Work:
    """What a rank does, since when by this machine's monotonic clock, and for how long it may."""

    rank: int
    what: str
    since: float
    limit_s: float

    def says(self, now: float) -> str:
        """Return e.g. `rank 1: Step 12, for 31 s of at most 1800 s`."""
        seconds = now - self.since
        return f"rank {self.rank}: {self.what}, for {seconds:.0f} s of at most {self.limit_s:.0f} s"


class RankClock:
    """What every rank of a group does now."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._work: dict[int, Work] = {}

    def starts(self, rank: int, num_ranks: int, now: float) -> None:
        """Note that a rank of a new group loads its model."""
        self._work = {number: work for number, work in self._work.items() if number < num_ranks}
        self._work[rank] = Work(rank, LOADING, now, self.deadlines.start_s)

    def begins(self, rank: int, command: Any, now: float) -> None:
        """Note that a rank got a command."""
        step = getattr(command, "step", None)
        what = type(command).__name__ + ("" if step is None else f" {step}")
        self._work[rank] = Work(rank, what, now, self.deadlines.of(command))

    def is_idle(self, rank: int) -> None:
        """Note that a rank waits for its next command."""
        self._work.pop(rank, None)

    def clear(self) -> None:
        """Forget a group that has ended."""
        self._work.clear()

    def longest(self) -> Work | None:
        """Return the work that is nearest to its deadline, or furthest beyond; None = all idle."""
        return min(self._work.values(), key=lambda work: work.since + work.limit_s, default=None)

    def overdue(self, now: float) -> Work | None:
        """Return work beyond its deadline, if there is any."""
        work = self.longest()
        return work if work is not None and now - work.since > work.limit_s else None
