"""Training a reward model on a group of Ray Train ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actors.learner.commands import Command, Export, Restored, Train
from actors.learner.deadlines import reward_deadlines
from actors.learner.rank_group import LearnerResources, RankGroup
from actors.naming import run_name
from actors.store.folders import write_on
from videorl.futures import completed
from videorl.learning.engines.deepspeed import DeepSpeedEngine
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.tasks import load_task
from videorl.reward_training.trainer import RewardTrainer
from videorl.run.checkpoints import open_checkpoints
from videorl.storage.access import access, taking


def make_reward_rank(recipe: RewardRecipe, run_dir: Path, device: torch.device) -> RewardRank:
    """Build this rank's trainer on its device; torch.distributed is up already."""
    task = load_task(recipe, device)
    engine = DeepSpeedEngine(
        task.module,
        recipe.optimizer,
        zero_stage=recipe.learner.zero_stage,
        micro_batch_size=recipe.learner.videos_at_once,
    )
    checkpoints = open_checkpoints(recipe.checkpoint, run_dir)
    return RewardRank(RewardTrainer(task, engine, recipe, checkpoints))


class RewardRank:
    """Implements `rank_worker.Rank`; every rank reads its own examples."""

    def __init__(self, trainer: RewardTrainer) -> None:
        self._trainer = trainer

    def start(self) -> Restored:
        """Restore the newest checkpoint, if there is any; return where the trainer stands."""
        if (state := self._trainer.start()) is None:
            return Restored(0, (), None)
        return Restored(int(state["command"]) + 1, (), state["loop"])

    def apply(self, command: Command) -> Any:
        """Apply a command on this rank; the result of rank 0 is the driver's answer."""
        match command:
            case Train(step):
                return self._trainer.step(step)
            case Export(directory, node):
                return write_on(node, Path(directory), self._trainer.export)
        raise AssertionError(f"unknown command {command!r}")

    def save(self, index: int, loop_state: dict[str, Any]) -> Future[None]:
        """Write a checkpoint that covers the commands up to `index`."""
        return completed(lambda: self._trainer.save({"command": index, "loop": loop_state}))

    def close(self) -> None:
        """Do nothing: nothing is written in the background."""


class RayRewardTrainer:
    """Implements `videorl.reward_training.fit.Trainer` on a group of Ray Train ranks.

    Args:
        recipe: What to train, on which labels.
        run_dir: The run's folder, visible to every rank.
        resources: How many ranks there are, and what each gets.
        places: Says who has what of the cluster, while the ranks wait for a place.
    """

    def __init__(
        self,
        recipe: RewardRecipe,
        run_dir: Path,
        resources: LearnerResources,
        places: Callable[[], str],
    ) -> None:
        make = partial(make_reward_rank, recipe, run_dir)
        make = taking(access(run_dir, recipe.checkpoint.location), make)
        deadlines = reward_deadlines(recipe.learner, recipe.checkpoint, recipe.labels.batch_size)
        failures, run = recipe.learner.max_failures, run_name(recipe)
        self._ranks = RankGroup(make, run_dir, resources, failures, deadlines, places, run)

    def start(self) -> Mapping[str, Any] | None:
        """Wait until the ranks are up; return the loop state of the checkpoint they restored."""
        self._ranks.begin()
        return self._ranks.restored().loop_state

    def step(self, step: int) -> Mapping[str, float]:
        """Apply an optimizer step on all ranks; return its metrics."""
        return self._ranks.call(Train(step))

    def save(self, loop_state: Mapping[str, Any]) -> None:
        """Write a checkpoint; raise the rank's OSError if it could not be written."""
        self._ranks.save(loop_state).result()

    def export(self, folder: Path) -> None:
        """Write the model in its published layout."""
        self._ranks.export(folder)

    def close(self) -> None:
        """Let the ranks end."""
        self._ranks.close()
