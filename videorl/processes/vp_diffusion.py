"""Variance-preserving diffusion on the discrete schedule that a model was trained with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from videorl.errors import ConfigError
from videorl.processes.times import as_time


@dataclass(frozen=True, eq=False)
class VPDiffusion:
    """x_t = alpha x_0 + sigma noise, alpha² + sigma² = 1; the process of CogVideoX.

    The velocity is v = alpha noise - sigma x_0 (Salimans & Ho, arXiv 2202.00512, appendix D), so
    that x_0 = alpha x_t - sigma v and noise = sigma x_t + alpha v. With zero terminal SNR
    (arXiv 2305.08891) alpha is 0 at the last timestep: x_1 is pure noise, and v = -x_0.

    Timestep k of N is time t = (k + 1) / N; other times are rounded to the nearest of these. So
    t = 1 is the last timestep, and t = 0 becomes the first, which is not quite clean.
    """

    alphas_cumprod: Tensor
    """[N] alpha² of every timestep, falling from almost 1 to 0 or almost 0."""
    prediction: str = "v_prediction"
    """What the model predicts: `v_prediction`, or `epsilon` for the noise."""

    def __post_init__(self) -> None:
        """Check `prediction`.

        Raises:
            ConfigError: The model predicts neither velocity nor noise.
        """
        if self.prediction not in ("v_prediction", "epsilon"):
            raise ConfigError(
                "the checkpoint's scheduler must have prediction_type v_prediction or epsilon, "
                f"got {self.prediction!r}"
            )

    def timesteps(self, t_B: Tensor) -> Tensor:
        """Return the timestep [B], in 0 ... N - 1, of each time in [0, 1]."""
        last = len(self.alphas_cumprod) - 1
        return ((t_B * (last + 1)).round().long() - 1).clamp(0, last)

    def corrupt(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return x_t, of the same shape as `x0_BCTHW`."""
        alpha, sigma = self._alpha_sigma(t_B, x0_BCTHW)
        return alpha * x0_BCTHW + sigma * noise_BCTHW

    def target(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the velocity or the noise, whichever the model predicts."""
        if self.prediction == "epsilon":
            return noise_BCTHW
        alpha, sigma = self._alpha_sigma(t_B, x0_BCTHW)
        return alpha * noise_BCTHW - sigma * x0_BCTHW

    def decompose(
        self, x_t_BCTHW: Tensor, prediction_BCTHW: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return x_0 and the noise; where a model predicts noise, x_0 is infinite at alpha = 0."""
        alpha, sigma = self._alpha_sigma(t_B, x_t_BCTHW)
        if self.prediction == "epsilon":
            return (x_t_BCTHW - sigma * prediction_BCTHW) / alpha, prediction_BCTHW
        return (
            alpha * x_t_BCTHW - sigma * prediction_BCTHW,
            sigma * x_t_BCTHW + alpha * prediction_BCTHW,
        )

    def sample_times(self, uniform_B: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to the times of timesteps, all equally likely."""
        num_timesteps = len(self.alphas_cumprod)
        return ((uniform_B * num_timesteps).floor() + 1) / num_timesteps

    def guidance_factor(self, t_B: Tensor) -> Tensor:
        """Return sigma / alpha for a velocity, sigma for noise; see `videorl.guidance.flow_nrg`.

        For the noise is -sigma times the score, and the velocity (noise - sigma x_t) / alpha. The
        factor is infinite where alpha is 0.
        """
        squared_B = self.alphas_cumprod.to(t_B.device).double()[self.timesteps(t_B)]
        sigma_B = (1 - squared_B).sqrt()
        return (sigma_B if self.prediction == "epsilon" else sigma_B / squared_B.sqrt()).to(t_B)

    def _alpha_sigma(self, t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        squared_B = self.alphas_cumprod.to(t_B.device).double()[self.timesteps(t_B)]
        return as_time(squared_B.sqrt(), like), as_time((1 - squared_B).sqrt(), like)
