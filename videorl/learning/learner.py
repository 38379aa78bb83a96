"""One rank of the learner of a policy: steps, publication, checkpoints, export.

What is learned from, and how, is a `Method`. There is no generator state to save: every random
number derives from `(seed, step, example)`, and a step repeated after a failure, or split over
another number of ranks, is the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.errors import WeightMismatchError
from videorl.learning.drift import MOST_NUMBERS, Drift
from videorl.learning.engines import Engine
from videorl.learning.gradient_step import gradient_step, learning_rate, whole_step
from videorl.learning.items import micro_batches, planned_share
from videorl.learning.method import Method, StepSettings
from videorl.learning.prediction_drift import PredictionDrift
from videorl.learning.rehearsing import rehearse_step
from videorl.learning.saving import Saving
from videorl.learning.share import Groups
from videorl.objectives.objective import EXAMPLES, NOT_FINITE, SKIPPED
from videorl.policies.compiling import num_failures
from videorl.protocols import Policy
from videorl.rehearsal import release
from videorl.run.checkpoints import CheckpointFolder
from videorl.types import LearnerOutput, Media, SampleRequest, WeightVersion
from videorl.weights import digest

logger = logging.getLogger(__name__)


class Learner:
    """Implements `videorl.protocols.Learner` on one rank; all ranks make the same calls.

    Args:
        policy: The trainable policy with its reference.
        method: Turns examples into a loss.
        engine: Optimizer over `policy.trainable_module()`.
        settings: How steps are taken.
        checkpoints: Where to save; shared by all ranks.
        fetch: Opens media handles; the identity where media are passed by value.
    """

    def __init__(
        self,
        policy: Policy,
        method: Method,
        engine: Engine,
        settings: StepSettings,
        checkpoints: CheckpointFolder,
        fetch: Callable[[list[Media]], list[Any]] = list,
    ) -> None:
        self._policy = policy
        self._method = method
        self._engine = engine
        self._shares = Groups(engine, settings.ranks_per_example)
        self._settings = settings
        self._checkpoints = checkpoints
        self._saving = Saving(checkpoints, engine, settings.sharded)
        self._fetch = fetch
        self._published: dict[WeightVersion, dict[str, Tensor]] = {}
        self._is_swapped = False  # since the last step, so that both roles have the same weights
        self._drift: Drift | None = None
        self._predictions = PredictionDrift(policy, settings.drift_interval, fetch)
        self._writer = ThreadPoolExecutor(1, "checkpoint")

    def start(self) -> tuple[WeightVersion, Mapping[str, Any] | None]:
        """Restore the newest checkpoint if there is one; publish the weights that follow."""
        self._drift = self._from_here()
        if (found := self._checkpoints.latest()) is None:
            return self._publish(0), None
        folder, state = found
        self._saving.restore(folder)
        with self._engine.gathered(self._policy.live("reference"), write=True) as is_whole:
            if is_whole:
                self._policy.load_weights(load_file(folder / "reference.safetensors"), "reference")
        self._is_swapped = state.get("is_swapped", False)
        for step, name in state["published"].items():
            is_first, path = self._engine.rank == 0, folder / f"published-{step}.safetensors"
            self._published[WeightVersion(int(step), name)] = load_file(path) if is_first else {}
        self._predictions.load(folder)
        version = self._publish(state["step"])
        if version.digest != state["published"][str(state["step"])]:
            raise WeightMismatchError(f"the weights restored from {folder} are not those it saved")
        self._checkpoints.let_go()
        return version, state["loop"]

    def published(self, version: WeightVersion) -> Mapping[str, Tensor]:
        """Return the weights of a version that is still in use; nothing on ranks other than 0."""
        return self._published[version]

    def in_use(self) -> list[WeightVersion]:
        """Return the versions that candidates in flight may have been sampled with."""
        return list(self._published)

    def step(self, step: int, examples: Sequence[Any]) -> LearnerOutput:
        """Apply the optimizer updates of one step on all ranks and publish version `step + 1`.

        Without examples the weights stay as they are, but the version still counts up.
        """
        started = time.perf_counter()
        rate = learning_rate(self._settings.optimizer, step)
        metrics = {EXAMPLES: float(len(examples)), "optimizer/learning_rate": rate}
        if examples:
            metrics |= self._update(step, examples)
        updated = time.perf_counter()
        version = self._publish(step + 1)
        if failures := num_failures(self._policy.networks()):
            metrics["learn/uncompiled"] = float(failures)
        metrics["time/learn_s"] = updated - started
        metrics["time/publish_s"] = time.perf_counter() - updated
        metrics["weights/bytes"] = float(
            sum(tensor.nbytes for tensor in self._published[version].values())
        )
        if self._drift is not None:
            metrics["weights/drift"] = self._drift(self._published[version])
        metrics |= self._predictions(version.step, examples, self._published[version])
        return LearnerOutput(version, metrics)

    @torch.no_grad()
    def sample(self, request: SampleRequest, embeds: Media, negative_embeds: Media) -> Tensor:
        """Return the latents [B, C, T, H, W] that the live policy samples for a request.

        Raises:
            WeightMismatchError: The request is for another version.
        """
        if request.version.step != self._newest().step:
            raise WeightMismatchError(
                f"asked to sample with step {request.version.step}, but the policy is at step "
                f"{self._newest().step}"
            )
        prompt, negative = self._fetch([embeds, negative_embeds])
        return self._policy.sample(prompt, negative, request.seeds).cpu()

    def update_reference(self, version: WeightVersion) -> None:
        """Make the reference equal to the policy, which must be at `version`."""
        if version.step != self._newest().step:
            raise WeightMismatchError(
                f"asked to make step {version.step} the reference, but the policy is at step "
                f"{self._newest().step}"
            )
        both = [*self._policy.live("policy"), *self._policy.live("reference")]
        with self._engine.gathered(both, write=True) as is_whole:
            if is_whole:
                self._policy.update_reference()
        self._is_swapped = True

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Copy what a checkpoint of the newest version needs, and write it in the background.

        Returns:
            Done when this rank's part is written, on rank 0 when all is. It fails with an OSError
            if it could not be (full disk, for instance); older checkpoints are untouched then.
        """
        write = self._saving.copied(self._newest().step, *self._contents(loop_state))
        return self._writer.submit(write)

    def _contents(
        self, loop_state: Mapping[str, Any]
    ) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """Return tensors beside the optimizer's on rank 0, and the state; every rank calls it."""
        tensors: dict[str, Mapping[str, Tensor]] = {"reference": self._reference_weights()}
        tensors |= self._predictions.tensors()
        for version, weights in self._published.items():
            tensors[f"published-{version.step}"] = weights
        digests = {str(version.step): version.digest for version in self._published}
        state = {"published": digests, "loop": dict(loop_state), "is_swapped": self._is_swapped}
        return tensors, state

    def close(self) -> None:
        """Return when everything begun is written."""
        self._writer.shutdown()

    def export(self, directory: Path) -> None:
        """Write the policy in the format that diffusers pipelines load."""
        with self._engine.gathered(self._policy.trainable_module().parameters(), write=False):
            if self._engine.rank == 0:
                self._policy.export(directory)

    def num_parameters(self) -> int:
        """Return how many weights the policy's transformer has, frozen ones included."""
        parameters: Any = self._policy.trainable_module().parameters()
        return sum(getattr(one, "ds_numel", one.numel()) for one in parameters)  # ZeRO 3 has slices

    def rehearse_step(self, examples: Sequence[Any]) -> float:
        """Go forward and backward on a micro-batch; see `videorl.learning.rehearsing`."""
        self._method.reference_is_policy = False
        size, per_example = self._settings.micro_batch_size, self._settings.ranks_per_example
        rehearse_step(self._method, self._engine, size, examples, per_example)
        return release()

    def rehearse_checkpoint(self) -> float:
        """Write, read and remove a checkpoint; see `Saving.rehearse`."""
        self._saving.rehearse(*self._contents({}))
        return release()

    def _update(self, step: int, examples: Sequence[Any]) -> dict[str, float]:
        updates, num_lost = self._method.items(
            step, examples, self._shares, self._settings.num_updates
        )
        metrics, num_learned = {SKIPPED: 1.0}, len(examples) - num_lost
        if updates:
            planned, share = self._settings.planned_prompts, None
            if planned:
                share = self._settings.num_updates * planned_share(examples, num_learned, planned)
            scales = [share or 1 / update.share for update in updates]
            metrics = whole_step(
                [
                    self._update_once(step, update.items, scale)
                    for update, scale in zip(updates, scales, strict=True)
                ]
            )
            if found := round(metrics.pop(NOT_FINITE, 0)):
                metrics = _without(metrics, num_learned, found)
                num_lost, num_learned = num_lost + found, num_learned - found
        if num_lost:
            logger.warning(
                "step %d: %d of %d examples are not finite and left out",
                step,
                num_lost,
                len(examples),
            )
            metrics[NOT_FINITE] = float(num_lost)
        return {**metrics, EXAMPLES: float(num_learned)}

    def _update_once(self, step: int, items: Sequence[Any], scale: float) -> dict[str, float]:
        """Make one update from some items of a step, whose gradient is multiplied by `scale`."""
        engine, settings = self._engine, self._settings
        batches = micro_batches(items, settings.micro_batch_size)
        self._method.reference_is_policy = self._is_swapped
        passes = (found for batch in batches for found in self._method.passes(batch))
        self._is_swapped = False
        counts = engine.rank % settings.ranks_per_example == 0
        return gradient_step(engine, passes, settings.optimizer, step, scale=scale, counts=counts)

    def _newest(self) -> WeightVersion:
        return max(self._published, key=lambda version: version.step)

    def _reference_weights(self) -> dict[str, Tensor]:
        """Return copies of the reference's tensors on rank 0, nothing on the others."""
        with self._engine.gathered(self._policy.live("reference"), write=False):
            weights = self._policy.reference_weights() if self._engine.rank == 0 else {}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}

    def _from_here(self) -> Drift | None:
        """Return what measures the drift from the live weights, on rank 0, where they are few."""
        live = self._policy.live("policy")
        if sum(getattr(one, "ds_numel", one.numel()) for one in live) > MOST_NUMBERS:
            return None
        with self._engine.gathered(live, write=False):
            return Drift(self._policy.weights()) if self._engine.rank == 0 else None

    def _publish(self, step: int) -> WeightVersion:
        """Take the live weights as version `step`; forget versions that nobody can need.

        Rank 0 alone copies and hashes them; the others are told the digest.
        """
        is_first = self._engine.rank == 0
        with self._engine.gathered(self._policy.live("policy"), write=False):
            weights = self._policy.weights() if is_first else {}
        found = bytes.fromhex(digest(weights)) if is_first else bytes(sha256().digest_size)
        numbers = self._engine.sum_over_ranks(torch.tensor([*found], dtype=torch.float32))
        version = WeightVersion(step, bytes(map(int, numbers.tolist())).hex())
        oldest = step - self._settings.max_staleness
        kept = {known: value for known, value in self._published.items() if known.step >= oldest}
        kept = {known: value for known, value in kept.items() if known.step != step}
        self._published = {**kept, version: weights}
        return version


def _without(metrics: Mapping[str, float], number: int, lost: int) -> dict[str, float]:
    """Make means over `number` items, of which `lost` counted as 0, means over the others."""
    others = {name: value for name, value in metrics.items() if name.startswith("optimizer/")}
    if lost == number:
        return others
    return {name: value * number / (number - lost) for name, value in metrics.items()} | others
