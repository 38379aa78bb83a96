"""Learning from candidates that were sampled before: predictions, loss, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.errors import ConfigError, VideoError
from videorl.learning.items import Batch, Example, Item, make_batch, make_items
from videorl.objectives.objective import LOSS, CandidateObjective, LossInputs
from videorl.protocols import Policy, Role
from videorl.seeds import derive_seed
from videorl.types import Media, TrainingExample


class FromCandidates:
    """Implements `videorl.learning.learner.Method` for pairs and single candidates.

    Args:
        policy: Of the learner.
        objective: The loss.
        seed: Of noise and times.
        video_pixels: Frames times height times width of a video.
        fetch: Opens media handles; the identity where media are passed by value.
    """

    def __init__(
        self,
        policy: Policy,
        objective: CandidateObjective,
        seed: int,
        video_pixels: int = 0,
        fetch: Callable[[list[Media]], list[Any]] = list,
    ) -> None:
        self._policy = policy
        self._objective = objective
        self._seed = seed
        self._frozen_roles = sorted(objective.frozen_roles(video_pixels))
        self._fetch = fetch

    def items(self, step: int, examples: Sequence[TrainingExample]) -> tuple[list[Item], int]:
        """Open the examples and spread them over times; return how many are left out too.

        Left out are those whose latents or embeddings are not finite: they would void the step.

        Raises:
            VideoError: Two videos of one example differ in shape.
        """
        opened = self._open(step, examples)
        usable = [example for example in opened if example.is_finite]
        times = self._objective.timesteps_per_pair
        items = make_items(usable, times, self._policy.process)
        return items, len(opened) - len(usable)

    def loss(self, items: Sequence[Item]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one micro-batch, and weighted sums of what it measured."""
        device = next(self._policy.trainable_module().parameters()).device
        batch = make_batch(items, self._policy.process, device)
        loss_N, measured = self._objective(loss_inputs(self._policy, batch, self._frozen_roles))
        if loss_N.shape != batch.t_N.shape:
            raise ConfigError(
                f"objective.name={self._objective.name}: the loss must have one value per item, "
                f"{list(batch.t_N.shape)}, got shape {list(loss_N.shape)}"
            )
        loss_N = loss_N * batch.example_weight_N
        measured = {LOSS: loss_N.detach(), **measured}
        sums = {name: (value * batch.weight_N).sum() for name, value in measured.items()}
        return (loss_N * batch.weight_N).sum(), sums

    def _open(self, step: int, examples: Sequence[TrainingExample]) -> list[Example]:
        """Fetch latents and embeddings of all examples at once."""
        handles = [
            media
            for example in examples
            for media in (
                *(scored.candidate.latents for scored in example.candidates),
                example.prompt_embeds,
            )
        ]
        opened = iter(self._fetch(handles))
        return [
            Example(
                latents_RCTHW=_stacked([next(opened) for _ in example.candidates], example),
                prompt_embeds_LD=next(opened),
                seed=derive_seed(self._seed, "example", step, index),
                weight=example.weight,
            )
            for index, example in enumerate(examples)
        ]


def loss_inputs(policy: Policy, batch: Batch, frozen_roles: Sequence[Role]) -> LossInputs:
    """Return what a loss may look at; frozen roles predict first, and without gradient."""
    predictions: dict[Role, Tensor] = {
        role: predict(policy, batch, role).detach() for role in frozen_roles
    }
    predictions["policy"] = predict(policy, batch, "policy")
    return LossInputs(
        process=policy.process,
        t_N=batch.t_N,
        errors={role: mean_squared(batch, value) for role, value in predictions.items()},
        predictions=predictions,
        x_t_NRCTHW=batch.x_t_NRCTHW,
        target_NRCTHW=batch.target_NRCTHW,
        clean_NRCTHW=batch.clean_NRCTHW,
        noise_NRCTHW=batch.noise_NRCTHW,
    )


def predict(policy: Policy, batch: Batch, role: Role) -> Tensor:
    """Return the prediction of each video, [N, R, C, T, H, W], in float32."""
    num_roles = batch.x_t_NRCTHW.shape[1]
    prediction_BCTHW = policy.predict(
        batch.x_t_NRCTHW.flatten(0, 1),
        batch.t_N.repeat_interleave(num_roles),
        [embeds for embeds in batch.prompt_embeds for _ in range(num_roles)],
        role,
    )
    return prediction_BCTHW.float().unflatten(0, batch.x_t_NRCTHW.shape[:2])


def mean_squared(batch: Batch, prediction_NRCTHW: Tensor) -> Tensor:
    """Return the mean squared error of each prediction, [N, R]."""
    return (batch.target_NRCTHW - prediction_NRCTHW).square().flatten(2).mean(2)


def _stacked(latents: Sequence[Tensor], example: TrainingExample) -> Tensor:
    shapes = [list(tensor.shape) for tensor in latents]
    if any(shape != shapes[0] for shape in shapes):
        raise VideoError(
            f"the videos of prompt {example.prompt.index} ({example.prompt.text!r}) have latents "
            f"of different shapes, {', '.join(map(str, shapes))}; one example is one prompt "
            "sampled at one size"
        )
    return torch.stack(list(latents))
