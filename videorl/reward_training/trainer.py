"""A rank of a reward model's training: order of examples, loss, update, evaluation, checkpoint.

Order and dropout depend on `(seed, step)` alone: a step that is repeated after a failure is the
same, and there is no generator state to save.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.learning.engines import Engine
from videorl.learning.learner import learning_rate
from videorl.reward_training.config import TrainingRecipe
from videorl.reward_training.task import RewardTask
from videorl.run.checkpoints import CheckpointFolder
from videorl.seeds import derive_seed


class RewardTrainer:
    """Trains on this rank; all ranks must make the same calls.

    Args:
        task: The model with its labelled examples.
        engine: Optimizer of `task.module`.
        recipe: Batch sizes, learning rate, and when to evaluate.
        checkpoints: Where to save; the same folder on all ranks.
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
        self._step = 0
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def start(self) -> Mapping[str, Any] | None:
        """Restore the newest checkpoint and return its loop state; None if there is none."""
        if (found := self._checkpoints.latest()) is None:
            return None
        folder, state = found
        self._engine.load_state(load_file(folder / "optimizer.safetensors"))
        self._step = int(state["step"])
        return state["loop"]

    def step(self, step: int) -> dict[str, float]:
        """Apply an optimizer step on all ranks, and evaluate where that is due; return metrics."""
        started = time.perf_counter()
        indices = self._batch(step)[self._engine.rank :: self._engine.world_size]
        size = self._recipe.learner.micro_batch_size
        micro_batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        self._task.module.train()
        totals: dict[str, Tensor] = {}
        for number, micro_batch in enumerate(micro_batches):
            # Dropout is drawn from the global generators; there is one device per rank.
            torch.manual_seed(derive_seed(self._recipe.seed, "dropout", step, *micro_batch))
            values = self._accumulate(micro_batch, is_last=number == len(micro_batches) - 1)
            totals = {name: totals.get(name, 0) + value for name, value in values.items()}
        rate = learning_rate(self._recipe.optimizer, step)
        norm = self._engine.step(rate)
        self._step = step + 1
        summed = self._engine.sum_over_ranks(torch.stack(list(totals.values())))
        metrics = dict(zip(totals, summed.tolist(), strict=True))
        metrics["optimizer/learning_rate"] = rate
        metrics["optimizer/skipped"] = float(not math.isfinite(norm))
        if math.isfinite(norm):
            metrics["optimizer/grad_norm"] = norm
        metrics["time/learn_s"] = time.perf_counter() - started
        return metrics | (self._evaluate() if self._is_due() else {})

    def save(self, loop_state: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        Raises:
            OSError: It could not be written, such as for a full disk; older ones are not changed.
        """
        optimizer = self._engine.state()
        if self._engine.rank == 0:
            self._checkpoints.write(
                self._step, {"optimizer": optimizer}, {"loop": dict(loop_state)}
            )

    def export(self, folder: Path) -> None:
        """Write the model in its published layout."""
        predictions_NK = self.predictions()
        with self._engine.gathered(self._task.module, write=False):
            if self._engine.rank == 0:
                self._task.export(folder, self._step, predictions_NK)

    def predictions(self) -> Tensor | None:
        """Return predictions for all held-out examples, on every rank; None if there are none."""
        count, world_size = self._task.num_examples("held_out"), self._engine.world_size
        if count == 0:
            return None
        self._task.module.eval()
        size = self._recipe.learner.micro_batch_size
        # Sharded parameters need equally many forwards of equal sizes on all ranks.
        share = -(-count // world_size)
        mine = [min(self._engine.rank * share + k, count - 1) for k in range(share)]
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
        """Return the examples of a step; every epoch has an order of its own."""
        size, count = self._recipe.labels.batch_size, self._task.num_examples("train")
        places = range(step * size, (step + 1) * size)
        return [int(self._order(place // count)[place % count]) for place in places]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(derive_seed(self._recipe.seed, "order", epoch))
        return rng.permutation(self._task.num_examples("train"))

    def _accumulate(self, indices: list[int], *, is_last: bool) -> dict[str, Tensor]:
        """Add one micro-batch to the gradient; return this rank's part of the batch's means."""
        measured = self._task.losses(indices)
        share = 1.0 / self._recipe.labels.batch_size
        # Ranks average their gradients, but `share` is that of the whole batch on all ranks.
        loss = measured.loss_N.sum() * share * self._engine.world_size
        self._engine.backward(loss, is_last=is_last)
        means = {"train/loss": measured.loss_N.detach(), **measured.metrics}
        values = {name: (value.float().sum() * share).cpu() for name, value in means.items()}
        return {**values, "labels/skipped": torch.tensor(float(measured.num_skipped))}
