"""One rank of the learner on scored candidates: squared errors, loss, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.config import Recipe
from videorl.errors import VideoError, WeightMismatchError
from videorl.learning.engines import Engine
from videorl.learning.items import Batch, Example, Item, make_batch, make_items
from videorl.learning.learner import LearnerBase
from videorl.protocols import Objective, Policy, Role
from videorl.run.checkpoints import CheckpointFolder
from videorl.seeds import derive_seed
from videorl.types import Media, SampleRequest, TrainingExample


def squared_errors(policy: Policy, batch: Batch, role: Role) -> Tensor:
    """Return the mean squared prediction error of each video, [N, R], in float32."""
    num_roles = batch.x_t_NRCTHW.shape[1]
    prediction = policy.predict(
        batch.x_t_NRCTHW.flatten(0, 1),
        batch.t_N.repeat_interleave(num_roles),
        [embeds for embeds in batch.prompt_embeds for _ in range(num_roles)],
        role,
    )
    target = batch.target_NRCTHW.flatten(0, 1)
    err_B = (target - prediction.float()).square().flatten(1).mean(1)
    return err_B.unflatten(0, batch.x_t_NRCTHW.shape[:2])


class PolicyLearner(LearnerBase[Policy, TrainingExample]):
    """Implements `videorl.protocols.Learner` on this rank; all ranks make the same calls.

    Args:
        policy: The trainable policy with its reference.
        objective: Loss on squared errors.
        engine: Optimizer over `policy.trainable_module()`.
        recipe: The run.
        checkpoints: Where to save; shared by all ranks.
        fetch: Opens media handles; the identity where media are passed by value.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        engine: Engine,
        recipe: Recipe,
        checkpoints: CheckpointFolder,
        fetch: Callable[[list[Media]], list[Any]] = list,
    ) -> None:
        super().__init__(policy, engine, recipe, checkpoints, fetch, objective.count_name)
        self._objective = objective

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
        embeds_LD, negative_LD = self._fetch([embeds, negative_embeds])
        return self._policy.sample(embeds_LD, negative_LD, request.seeds).cpu()

    def _update(self, step: int, examples: Sequence[TrainingExample]) -> dict[str, float]:
        items = make_items(
            self._open(step, examples),
            self._recipe.objective.timesteps_per_pair,
            self._policy.process,
        )
        return self._optimize(step, items, self._loss)

    def _open(self, step: int, examples: Sequence[TrainingExample]) -> list[Example]:
        """Fetch latents and embeddings of all examples at once.

        Raises:
            VideoError: Two videos of one example differ in shape.
        """
        roles = self._objective.num_roles
        handles = [
            media
            for one in examples
            for media in (*(each.candidate.latents for each in one.candidates), one.prompt_embeds)
        ]
        opened = iter(self._fetch(handles))
        return [
            Example(
                latents_RCTHW=_stacked([next(opened) for _ in range(roles)], one),
                prompt_embeds_LD=next(opened),
                seed=derive_seed(self._recipe.seed, "example", step, index),
                weight=one.weight,
            )
            for index, one in enumerate(examples)
        ]

    def _loss(self, items: Sequence[Item]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one micro-batch, and weighted sums of what it measured."""
        batch = make_batch(items, self._policy.process, self._device())
        ref_err_NR = squared_errors(self._policy, batch, "reference").detach()
        err_NR = squared_errors(self._policy, batch, "policy")
        loss_N, measured = self._objective(err_NR, ref_err_NR, batch.t_N)
        loss_N = loss_N * batch.example_weight_N
        measured = {self._objective.loss_name: loss_N.detach(), **measured}
        sums = {name: (value * batch.weight_N).sum() for name, value in measured.items()}
        return (loss_N * batch.weight_N).sum(), sums


def _stacked(latents: Sequence[Tensor], example: TrainingExample) -> Tensor:
    shapes = [list(one.shape) for one in latents]
    if any(one != shapes[0] for one in shapes):
        raise VideoError(
            f"the videos of prompt {example.prompt.index} ({example.prompt.text!r}) have latents "
            f"of different shapes, {', '.join(map(str, shapes))}; one example is one prompt "
            "sampled at one size"
        )
    return torch.stack(list(latents))
