"""What every learner of a policy does on its rank, whatever it learns from.

Weights are published, checkpointed and exported here; a subclass turns the examples of a step into
a gradient. There is no generator state to save: every random number derives from `(seed, step,
example)`, and a step repeated after a failure, or split over another number of ranks, is the same.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.config import OptimizerConfig, Recipe
from videorl.errors import WeightMismatchError
from videorl.futures import completed
from videorl.learning.engines import Engine
from videorl.learning.items import Weighted, micro_batches
from videorl.protocols import Policy
from videorl.run.checkpoints import CheckpointFolder
from videorl.types import LearnerOutput, Media, WeightVersion
from videorl.weights import digest

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=Policy)
E = TypeVar("E")
W = TypeVar("W", bound=Weighted)


class LearnerBase(ABC, Generic[P, E]):
    """Implements `videorl.protocols.Learner` but for the gradient; all ranks make the same calls.

    Args:
        policy: The trainable policy with its reference.
        engine: Optimizer over `policy.trainable_module()`.
        recipe: The run.
        checkpoints: Where to save; shared by all ranks.
        fetch: Opens media handles; the identity where media are passed by value.
        count_name: What the number of a step's examples is called where it is logged.
    """

    def __init__(
        self,
        policy: P,
        engine: Engine,
        recipe: Recipe,
        checkpoints: CheckpointFolder,
        fetch: Callable[[list[Media]], list[Any]],
        count_name: str,
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._fetch = fetch
        self._count_name = count_name
        self._published: dict[WeightVersion, dict[str, Tensor]] = {}
        self._writer = ThreadPoolExecutor(1, "checkpoint")

    @abstractmethod
    def _update(self, step: int, examples: Sequence[E]) -> dict[str, float]:
        """Apply the optimizer step of these examples (>= 1); return what to log."""

    def start(self) -> tuple[WeightVersion, Mapping[str, Any] | None]:
        """Restore the newest checkpoint if there is one; publish the weights that follow."""
        if (found := self._checkpoints.latest()) is None:
            return self._publish(0), None
        folder, state = found
        self._engine.load_state(load_file(folder / "optimizer.safetensors"))
        with self._engine.gathered(self._policy.trainable_module(), write=True):
            self._policy.load_weights(load_file(folder / "reference.safetensors"), "reference")
        for step, name in state["published"].items():
            self._published[WeightVersion(int(step), name)] = load_file(
                folder / f"published-{step}.safetensors"
            )
        version = self._publish(state["step"])
        if version.digest != state["published"][str(state["step"])]:
            raise WeightMismatchError(f"the weights restored from {folder} are not those it saved")
        return version, state["loop"]

    def published(self, version: WeightVersion) -> Mapping[str, Tensor]:
        """Return the weights of a version that is still in use."""
        return self._published[version]

    def in_use(self) -> list[WeightVersion]:
        """Return the versions that candidates in flight may have been sampled with."""
        return list(self._published)

    def step(self, step: int, examples: Sequence[E]) -> LearnerOutput:
        """Apply one optimizer step on all ranks and publish version `step + 1`.

        Without examples the weights stay as they are, but the version still counts up.
        """
        started = time.perf_counter()
        metrics: dict[str, float] = {self._count_name: float(len(examples))}
        if examples:
            metrics |= self._update(step, examples)
        updated = time.perf_counter()
        version = self._publish(step + 1)
        metrics["time/learn_s"] = updated - started
        metrics["time/publish_s"] = time.perf_counter() - updated
        metrics["weights/bytes"] = float(
            sum(tensor.nbytes for tensor in self._published[version].values())
        )
        return LearnerOutput(version, metrics)

    def update_reference(self, version: WeightVersion) -> None:
        """Make the reference equal to the policy, which must be at `version`."""
        if version.step != self._newest().step:
            raise WeightMismatchError(
                f"asked to make step {version.step} the reference, but the policy is at step "
                f"{self._newest().step}"
            )
        with self._engine.gathered(self._policy.trainable_module(), write=True):
            self._policy.update_reference()

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Copy what a checkpoint of the newest version needs, and write it in the background.

        Returns:
            Done when it is written, at once on ranks other than 0. It fails with an OSError if it
            could not be (full disk, for instance); older checkpoints are untouched then.
        """
        optimizer, reference = self._engine.state(), self._reference_weights()
        if self._engine.rank > 0:
            return completed(lambda: None)
        tensors = {"optimizer": optimizer, "reference": reference}
        for version, weights in self._published.items():
            tensors[f"published-{version.step}"] = weights
        digests = {str(version.step): version.digest for version in self._published}
        state = {"published": digests, "loop": dict(loop_state)}
        return self._writer.submit(self._checkpoints.write, self._newest().step, tensors, state)

    def close(self) -> None:
        """Return when everything begun is written."""
        self._writer.shutdown()

    def export(self, directory: Path) -> None:
        """Write the policy in the format that diffusers pipelines load."""
        with self._engine.gathered(self._policy.trainable_module(), write=False):
            if self._engine.rank == 0:
                self._policy.export(directory)

    def _optimize(
        self,
        step: int,
        items: Sequence[W],
        accumulate: Callable[[Sequence[W]], tuple[Tensor, dict[str, Tensor]]],
    ) -> dict[str, float]:
        """Take one optimizer step on this rank's share of the items.

        Args:
            step: Its number.
            items: Of all ranks; their weights sum to 1.
            accumulate: Micro-batch -> its loss with gradient, and sums to log, all weighted.

        Returns:
            The sums over all ranks, and how the step went.
        """
        engine = self._engine
        size = self._recipe.learner.micro_batch_size
        batches = micro_batches(items, engine.rank, engine.world_size, size)
        totals: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            loss, values = accumulate(batch)
            # Ranks average their gradients, while weights already sum to 1 over all ranks.
            engine.backward(loss * engine.world_size, is_last=index == len(batches) - 1)
            totals = {name: totals.get(name, 0) + one.cpu() for name, one in values.items()}
        norm = engine.step(learning_rate(self._recipe.optimizer, step))
        summed = engine.sum_over_ranks(torch.stack(list(totals.values())))
        metrics = dict(zip(totals, summed.tolist(), strict=True))
        is_finite = math.isfinite(norm)
        if not is_finite:
            logger.warning("step %d: the gradient is not finite, no update is made", step)
        metrics["optimizer/skipped"] = float(not is_finite)
        return metrics | ({"optimizer/grad_norm": norm} if is_finite else {})

    def _device(self) -> torch.device:
        return next(self._policy.trainable_module().parameters()).device

    def _newest(self) -> WeightVersion:
        return max(self._published, key=lambda version: version.step)

    def _reference_weights(self) -> dict[str, Tensor]:
        """Return copies of the reference's tensors on rank 0, nothing on the others."""
        with self._engine.gathered(self._policy.trainable_module(), write=False):
            weights = self._policy.reference_weights() if self._engine.rank == 0 else {}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def _publish(self, step: int) -> WeightVersion:
        """Take the live weights as version `step`; forget versions that nobody can need."""
        with self._engine.gathered(self._policy.trainable_module(), write=False):
            weights = self._policy.weights()
        version = WeightVersion(step, digest(weights))
        oldest = step - self._recipe.rollouts.max_staleness
        kept = {one: value for one, value in self._published.items() if one.step >= oldest}
        kept = {one: value for one, value in kept.items() if one.step != step}
        self._published = {**kept, version: weights}
        return version


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the rate of an optimizer step: linear warm-up, times a linear decay to zero."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    decay = max(0.0, 1 - step / config.decay_steps) if config.decay_steps else 1.0
    return config.learning_rate * warmup * decay
