"""One rank of a reward model's training: order of examples, loss, update, evaluation, checkpoint.

Order and dropout derive from `(seed, step)`, so a step repeated after a failure is the same step,
and there is no generator state to save.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videorl.learning.engines import Engine
from videorl.learning.gradient_step import gradient_step, learning_rate
from videorl.learning.saving import Saving
from videorl.reward_training.config import TrainingRecipe
from videorl.reward_training.task import RewardTask
from videorl.run.checkpoints import CheckpointFolder
from videorl.seeds import derive_seed


class RewardTrainer:
    """Trains on this rank; all ranks make the same calls.

    Args:
        task: The model with its labelled examples.
        engine: Optimizer over `task.module`.
        recipe: The training.
        checkpoints: Where to save; shared by all ranks.
    """

    def __init__(
        self,
        task: RewardTask,
        engine: Engine,
        recipe: TrainingRecipe,
        checkpoints: CheckpointFolder,
    ) -> None:
        self._task = task
        self._engine = engine
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._saving = Saving(checkpoints, engine, recipe.checkpoint.sharded)
        self._step = 0
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def start(self) -> Mapping[str, Any] | None:
        """Restore the newest checkpoint if there is one; return the loop state saved in it."""
        if (found := self._checkpoints.latest()) is None:
            return None
        folder, state = found
        self._saving.restore(folder)
        self._step = int(state["step"])
        self._checkpoints.let_go()
        return state["loop"]

    def step(self, step: int) -> dict[str, float]:
        """Apply one optimizer step on all ranks; evaluate where that is due."""
        started = time.perf_counter()
        indices = self._batch(step)[self._engine.rank :: self._engine.world_size]
        size = self._recipe.learner.videos_at_once
        micro_batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        self._task.module.train()
        optimizer = self._recipe.optimizer
        passes = [partial(self._loss, step, batch) for batch in micro_batches]
        metrics = gradient_step(self._engine, passes, optimizer, step)
        self._step = step + 1
        metrics["optimizer/learning_rate"] = learning_rate(optimizer, step)
        metrics["time/learn_s"] = time.perf_counter() - started
        return metrics | (self._evaluate() if self._is_due() else {})

    def save(self, loop_state: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        Raises:
            OSError: It could not be written (full disk, for instance); older ones are untouched.
        """
        self._saving.copied(self._step, {}, {"loop": dict(loop_state)})()

    def export(self, folder: Path) -> None:
        """Write the model in its published layout."""
        predictions_NK = self.predictions()
        with self._engine.gathered(self._task.module.parameters(), write=False):
            if self._engine.rank == 0:
                self._task.export(folder, self._step, predictions_NK)

    def predictions(self) -> Tensor | None:
        """Return what the model says of every held-out example, on every rank; None without."""
        count, world_size = self._task.num_examples("held_out"), self._engine.world_size
        if count == 0:
            return None
        self._task.module.eval()
        size = self._recipe.learner.videos_at_once
        # Ranks make equally many forwards of equal sizes, which sharded parameters need.
        share = -(-count // world_size)
        mine = [min(self._engine.rank * share + one, count - 1) for one in range(share)]
        parts = [self._task.predict(mine[at : at + size]) for at in range(0, share, size)]
        found_NK = torch.cat(parts)
        all_NK = torch.zeros(world_size * share, found_NK.shape[1])
        first = self._engine.rank * share
        all_NK[first : first + share] = found_NK
        return self._engine.sum_over_ranks(all_NK)[:count]

    def _evaluate(self) -> dict[str, float]:
        started = time.perf_counter()
        if (predictions_NK := self.predictions()) is None:
            return {}
        metrics = dict(self._task.judge(predictions_NK))
        return {**metrics, "time/evaluate_s": time.perf_counter() - started}

    def _is_due(self) -> bool:
        interval = self._recipe.evaluation.interval
        return self._step == self._recipe.num_steps or (interval > 0 and self._step % interval == 0)

    def _batch(self, step: int) -> list[int]:
        """Return the examples of a step: epoch after epoch, each in an order of its own."""
        size, count = self._recipe.labels.batch_size, self._task.num_examples("train")
        places = range(step * size, (step + 1) * size)
        return [int(self._order(place // count)[place % count]) for place in places]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(derive_seed(self._recipe.seed, "order", epoch))
        return rng.permutation(self._task.num_examples("train"))

    def _loss(self, step: int, indices: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this micro-batch's part of the batch's mean loss, and of what it measured."""
        # One device per rank: its generator draws the dropout.
        torch.manual_seed(derive_seed(self._recipe.seed, "dropout", step, *indices))
        measured = self._task.losses(indices)
        share = 1.0 / self._recipe.labels.batch_size
        means = {"train/loss": measured.loss_N.detach(), **measured.metrics}
        values = {name: (value.float().sum() * share).cpu() for name, value in means.items()}
        values["labels/skipped"] = torch.tensor(float(measured.num_skipped))
        return measured.loss_N.sum() * share, values
