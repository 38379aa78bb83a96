"""Flow-NRG: guide a prediction by the gradient of a reward on noisy latents. Pure functions."""

from __future__ import annotations

from torch import Tensor

from videorl.errors import ConfigError
from videorl.processes.times import as_time

MAX_FACTOR = 10.0
"""Default of `max_factor`: in rectified flow it takes effect above t = 10/11."""


def guided_prediction(
    prediction_BCTHW: Tensor,
    gradient_BCTHW: Tensor,
    factor_B: Tensor,
    *,
    max_factor: float | None = None,
) -> Tensor:
    """Return the prediction of the policy tilted by exp(reward).

    VideoReward (arXiv 2501.13918), Flow-NRG: v - t/(1 - t) ∇ r(x_t, t). Derivation: the score of
    p(x_t) is s = -(x_t + (1 - t) v) / t, so v = -(x_t + t s) / (1 - t), and tilting adds ∇r to s.
    The sign is for v = noise - x_0 with noise at t = 1; `Process.guidance_factor` gives the factors
    of other processes.

    Args:
        prediction_BCTHW: The model's prediction.
        gradient_BCTHW: Gradient of the weighted reward, `Σ w_d ∇ r_d(x_t, t)` over dimensions d.
        factor_B: `Process.guidance_factor(t_B)`, >= 0; infinite where x_t is pure noise.
        max_factor: Upper limit (> 0) of the factors; None = no limit.

    Raises:
        ConfigError: A factor is infinite (t = 1) and there is no limit.
    """
    if max_factor is not None:
        factor_B = factor_B.clamp(max=max_factor)
    elif not bool(factor_B.isfinite().all()):
        raise ConfigError(
            "guidance by a reward is singular at t = 1, where the factor t / (1 - t) is infinite: "
            "give max_factor, or guide only at t < 1"
        )
    pushed = as_time(factor_B, gradient_BCTHW) * gradient_BCTHW
    return (prediction_BCTHW - pushed).to(prediction_BCTHW.dtype)
