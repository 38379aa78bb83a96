"""Diffusion-DPO on squared prediction errors, and Flow-DPO's two ways to weight time.

Flow-DPO: "Improving Video Generation with Human Feedback", arXiv 2501.13918. Errors here are
*means* over the latent numbers of one video, chosen and rejected share noise and t. The same beta
under a sum would be as many times stronger as a latent has numbers (about 10^6 for a real clip).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from videorl.objectives.objective import (
    ACCURACY,
    MARGIN,
    CandidateObjective,
    LearnsFrom,
    LossInputs,
    Surroundings,
)
from videorl.settings.bounds import Problem, above, at_least, one_of

if TYPE_CHECKING:
    from torch import Tensor

BETA_SCHEDULES = ("constant", "squared_signal")


def negative_log_sigmoid(logits: Tensor) -> Tensor:
    """Return -log sigmoid(x) element by element, finite for any finite x."""
    from torch.nn import functional as F  # recipes are read without torch

    return -F.logsigmoid(logits)


def dpo_logits(
    err_chosen: Tensor,
    err_rejected: Tensor,
    ref_err_chosen: Tensor,
    ref_err_rejected: Tensor,
    *,
    beta: float | Tensor,
    rejected_scale: float = 1.0,
) -> Tensor:
    """Return how strongly the policy prefers the chosen video over the rejected one, [N].

    -beta/2 * [(err_chosen - ref_err_chosen) - (err_rejected - ref_err_rejected)]: the difference
    of the two implicit rewards. Zero where the policy equals the reference. `rejected_scale`
    multiplies the rejected video's difference: below 1, pushing it away counts for less.
    """
    rejected = rejected_scale * (err_rejected - ref_err_rejected)
    return -0.5 * beta * ((err_chosen - ref_err_chosen) - rejected)


def dpo_loss(
    err_chosen: Tensor,
    err_rejected: Tensor,
    ref_err_chosen: Tensor,
    ref_err_rejected: Tensor,
    *,
    beta: float | Tensor,
) -> Tensor:
    """Return the mean of -log sigmoid(logits), a scalar; exactly log 2 at initialisation.

    Args:
        err_chosen: [N] mean squared error of the policy on the chosen videos.
        err_rejected: [N] the same on the rejected videos, at the same noise and times.
        ref_err_chosen: [N] mean squared error of the reference on the chosen videos.
        ref_err_rejected: [N] mean squared error of the reference on the rejected videos.
        beta: Strength (> 0), one number or [N].
    """
    logits = dpo_logits(err_chosen, err_rejected, ref_err_chosen, ref_err_rejected, beta=beta)
    return negative_log_sigmoid(logits).mean()


def safe_rejected_scale(err_chosen: Tensor, err_rejected: Tensor) -> Tensor:
    """Return what to multiply the rejected video's gradient by, [N] in [0, 1], without gradient.

    A step along -(g_c - s g_r), with the gradients of both errors, changes the chosen error by
    -|g_c|² + s g_c·g_r to first order: it cannot rise if s <= |g_c|² / g_c·g_r. In terms of the
    model's outputs that is Diffusion-SDPO's scale (arXiv 2511.03317; its authors' code takes it
    over a batch, here it is per pair). Errors do not tell g_c·g_r, but bound it by |g_c| |g_r|:

        s = min(1, |g_c| / |g_r|) = min(1, sqrt(err_chosen / err_rejected))

    which is never above their scale, and as safe. Both rest on output gradients: through the
    weights, safety is exact where all outputs respond alike to them, and an approximation else.
    Adaptive rejection scaling of PG-DPO (arXiv 2511.19049) has the same purpose and another
    formula, which we have at second hand only.

    Args:
        err_chosen: [N] mean squared error of the policy on the chosen videos.
        err_rejected: [N] the same on the rejected videos.
    """
    import torch

    smallest = torch.finfo(err_rejected.dtype).tiny
    ratio = err_chosen.detach() / err_rejected.detach().clamp(min=smallest)
    return ratio.clamp(max=1).sqrt()


def scale_gradient(value: Tensor, scale: Tensor) -> Tensor:
    """Return exactly the same values, with `scale` times the gradient."""
    return value.detach() + scale * (value - value.detach())


@dataclass
class FlowDPO(CandidateObjective):
    """DPO on velocity errors, with constant beta (the paper's choice) or beta (1 - t)^2.

    On the errors of a model that predicts noise or v it is Diffusion-DPO (arXiv 2311.12908).
    Options, off by default: against likelihood displacement, `sft_weight` adds that much of the
    policy's error on the chosen video (Reg-DPO, arXiv 2511.01450), `rejected_scale` is that of
    `dpo_logits`, and `protect_chosen` multiplies the rejected video's gradient by
    `safe_rejected_scale`; against unreliable times, `importance_clip` weighs the preference term by
    `importance_weights`.

    Every option is a function of one item's errors and time: how items are split over
    micro-batches and ranks changes nothing.
    """

    name: str = "flow_dpo"
    beta: float = 500.0
    """Strength, > 0. Stated for *mean* squared errors; the same value under a sum is far
    stronger."""
    beta_schedule: str = "constant"
    """`constant`, or `squared_signal` for beta * (1 - t)^2, of rectified flows only: the literal
    derivation, which hacks more."""
    sft_weight: float = 0.0
    """Adds this much of the policy's error on chosen videos, >= 0."""
    rejected_scale: float = 1.0
    """Multiplies the rejected video's term, > 0 and <= 1."""
    protect_chosen: bool = False
    """Weaken the rejected video's gradient where it could raise the chosen error."""
    importance_clip: float = 0.0
    """Weigh each pair and time by an importance weight clipped to 1 plus or minus this, >= 0 and
    <= 1; 0 = off."""
    importance_steps: int = 1000
    """Denoising steps of the chain that `importance_clip` looks at, >= 1: fewer are longer, and
    weigh less."""

    learns_from: ClassVar[LearnsFrom] = "pairs"
    logs: ClassVar[tuple[str, ...]] = (
        ACCURACY,
        MARGIN,
        "dpo/chosen_reward",
        "dpo/rejected_reward",
        "dpo/winner_error_change",
        "dpo/safe_rejected_scale",
        "dpo/importance_weight",
        "dpo/chosen_error",
    )

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems(around)
        yield above("objective.beta", self.beta, 0)
        yield one_of("objective.beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        yield at_least("objective.sft_weight", self.sft_weight, 0)
        if not 0 < self.rejected_scale <= 1:
            yield f"objective.rejected_scale must be > 0 and <= 1, got {self.rejected_scale}"
        if not 0 <= self.importance_clip <= 1:
            yield f"objective.importance_clip must be >= 0 and <= 1, got {self.importance_clip}"
        yield at_least("objective.importance_steps", self.importance_steps, 1)
        if self.beta_schedule == "squared_signal" and not around.is_rectified_flow:
            yield (
                "objective.beta_schedule=squared_signal is derived for rectified flows, but "
                f"policy.family={around.family} predicts noise or v of a diffusion: use constant"
            )

    def beta_at(self, t_N: Tensor) -> Tensor:
        """Return beta at each time, [N]."""
        if self.beta_schedule == "constant":
            return t_N.new_full(t_N.shape, self.beta)
        return self.beta * (1 - t_N) ** 2

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each item [N] and what is worth logging of it, each [N].

        Roles are (chosen, rejected).
        """
        err_NR, ref_err_NR = inputs.err_NR, inputs.ref_err_NR
        beta_N = self.beta_at(inputs.t_N)
        gain_NR = -0.5 * beta_N[:, None] * (err_NR - ref_err_NR).detach()
        err_chosen_N, err_rejected_N = err_NR.unbind(1)
        metrics: dict[str, Tensor] = {}
        if self.protect_chosen:
            safe_scale_N = safe_rejected_scale(err_chosen_N, err_rejected_N)
            metrics["dpo/safe_rejected_scale"] = safe_scale_N
            err_rejected_N = scale_gradient(err_rejected_N, safe_scale_N)
        logits_N = dpo_logits(
            err_chosen_N,
            err_rejected_N,
            *ref_err_NR.unbind(1),
            beta=beta_N,
            rejected_scale=self.rejected_scale,
        )
        margin_N = logits_N.detach()
        metrics |= {
            ACCURACY: (margin_N > 0).float(),
            MARGIN: margin_N,
            "dpo/chosen_reward": gain_NR[:, 0],
            "dpo/rejected_reward": gain_NR[:, 1],
            # Rises while the margin grows when both likelihoods fall: likelihood displacement.
            "dpo/winner_error_change": (err_NR[:, 0] / ref_err_NR[:, 0] - 1).detach(),
        }
        loss_N = negative_log_sigmoid(logits_N)
        if self.importance_clip:
            from videorl.objectives.importance import importance_weights, step_rate

            rate_N = step_rate(inputs.process, inputs.t_N, self.importance_steps)
            weight_N = importance_weights(err_NR, rate_N, self.importance_clip)
            metrics["dpo/importance_weight"] = weight_N
            loss_N = weight_N * loss_N
        if self.sft_weight:
            metrics["dpo/chosen_error"] = err_NR[:, 0].detach()
            loss_N = loss_N + self.sft_weight * err_NR[:, 0]
        return loss_N, metrics
