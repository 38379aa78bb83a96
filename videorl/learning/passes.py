"""The forward and backward passes of a micro-batch: all at once, or a few videos at a time.

A loss of a pair looks at both videos, and their activations would have to be held together. But it
looks at predictions only: these are taken without gradient first, the loss gives its gradient with
respect to each, and each video then goes forward and backward alone with that gradient (the idea of
GradCache, arXiv 2101.06983). That costs one more forward of the policy, and gives the gradient of
the joint pass up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from videorl.learning.items import Batch
from videorl.objectives.objective import LossInputs
from videorl.protocols import Policy, Role

Measured: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""A scalar to go backward from, and weighted sums to log."""

Pass: TypeAlias = Callable[[], Measured]
"""Runs forward; the caller goes backward before it runs the next pass."""

Loss: TypeAlias = Callable[[LossInputs], Measured]


def make_passes(
    policy: Policy,
    batch: Batch,
    frozen_roles: Sequence[Role],
    loss: Loss,
    num_videos: int,
    *,
    reference_is_policy: bool = False,
) -> list[Pass]:
    """Return the passes of a micro-batch; their gradients add up to that of its loss.

    Args:
        policy: Predicts.
        batch: Items of one or more videos each.
        frozen_roles: Whose predictions the loss looks at beside the policy's.
        loss: Of the micro-batch.
        num_videos: Videos per forward, >= 1; all of the batch = one pass.
        reference_is_policy: Both have the same weights, so one of them need not predict.
    """
    total = batch.x_t_NRCTHW.shape[:2].numel()
    if num_passes(total, num_videos) == 1:
        return [partial(_joint, policy, batch, frozen_roles, loss, reference_is_policy)]
    gradients: list[Tensor] = []

    def first() -> Measured:
        gradient, measured = _without_activations(
            policy, batch, frozen_roles, loss, num_videos, reference_is_policy
        )
        gradients.append(gradient)
        return _part(policy, batch, gradient, 0, num_videos), measured

    def later(start: int) -> Measured:
        return _part(policy, batch, gradients[0], start, num_videos), {}

    return [first, *(partial(later, start) for start in range(num_videos, total, num_videos))]


def num_passes(total: int, num_videos: int) -> int:
    """Return how many passes `total` videos take with `num_videos` (>= 1) per forward."""
    return -(-total // num_videos)


def loss_inputs(policy: Policy, batch: Batch, predictions: Mapping[Role, Tensor]) -> LossInputs:
    """Return what a loss may look at."""
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


def predict(
    policy: Policy, batch: Batch, role: Role, start: int = 0, end: int | None = None
) -> Tensor:
    """Return predictions of some of the batch's videos, [B, C, T, H, W], in float32.

    Videos are counted item by item: those of one item stand beside each other.
    """
    num_roles = batch.x_t_NRCTHW.shape[1]
    embeds = [embeds for embeds in batch.prompt_embeds for _ in range(num_roles)]
    prediction = policy.predict(
        batch.x_t_NRCTHW.flatten(0, 1)[start:end],
        batch.t_N.repeat_interleave(num_roles)[start:end],
        embeds[start:end],
        role,
    ).float()
    # Frames that the model is given, and does not predict, count as predicted without error.
    if given := getattr(policy, "given_frames", 0):
        target = batch.target_NRCTHW.flatten(0, 1)[start:end, :, :given]
        prediction = torch.cat([target, prediction[:, :, given:]], dim=2)
    return prediction


def mean_squared(batch: Batch, prediction_NRCTHW: Tensor) -> Tensor:
    """Return the mean squared error of each prediction, [N, R]."""
    return (batch.target_NRCTHW - prediction_NRCTHW).square().flatten(2).mean(2)


def _joint(
    policy: Policy,
    batch: Batch,
    frozen_roles: Sequence[Role],
    loss: Loss,
    reference_is_policy: bool,
) -> Measured:
    """Predict everything at once; frozen roles first, and without gradient."""
    shape = batch.x_t_NRCTHW.shape[:2]
    known = {"reference"} if reference_is_policy else set[str]()
    predictions: dict[Role, Tensor] = {
        role: predict(policy, batch, role).detach().unflatten(0, shape)
        for role in frozen_roles
        if role not in known
    }
    predictions["policy"] = predict(policy, batch, "policy").unflatten(0, shape)
    if reference_is_policy and "reference" in frozen_roles:
        predictions["reference"] = predictions["policy"].detach()
    return loss(loss_inputs(policy, batch, predictions))


def _without_activations(
    policy: Policy,
    batch: Batch,
    frozen_roles: Sequence[Role],
    loss: Loss,
    num_videos: int,
    reference_is_policy: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the gradient of the loss with respect to the policy's predictions [B, C, T, H, W]."""
    shape = batch.x_t_NRCTHW.shape[:2]
    starts = range(0, shape.numel(), num_videos)

    @torch.no_grad()
    def whole(role: Role) -> Tensor:
        return torch.cat([predict(policy, batch, role, at, at + num_videos) for at in starts])

    predictions: dict[Role, Tensor] = {"policy": whole("policy").requires_grad_()}
    for role in frozen_roles:
        is_known = role == "reference" and reference_is_policy
        predictions[role] = predictions["policy"].detach() if is_known else whole(role)
    by_item: dict[Role, Tensor] = {
        role: value.unflatten(0, shape) for role, value in predictions.items()
    }
    total, measured = loss(loss_inputs(policy, batch, by_item))
    (gradient,) = torch.autograd.grad(total, [predictions["policy"]])
    return gradient, measured


def _part(policy: Policy, batch: Batch, gradient: Tensor, start: int, num_videos: int) -> Tensor:
    """Return a scalar whose gradient is what some videos add to that of the loss."""
    prediction = predict(policy, batch, "policy", start, start + num_videos)
    return (prediction * gradient[start : start + num_videos]).sum()
