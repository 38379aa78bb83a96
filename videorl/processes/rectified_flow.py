"""Rectified flow: x_t = (1 - t) x_0 + t noise, velocity target noise - x_0; t = 1 is pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from videorl.processes.times import as_time


@dataclass(frozen=True)
class RectifiedFlow:
    """The process of Wan, Open-Sora and Stable Diffusion 3 (VideoReward, arXiv 2501.13918)."""

    shift: float = 1.0
    """Time shift of *training* times (> 0): s t / (1 + (s - 1) t). 1 = uniform, as in the paper."""
    start: float = 0.0
    """Training times are those of the shift in [start, end),"""
    end: float = 1.0
    """within [0, 1]; for a model that is trained on a part of them."""

    def corrupt(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return x_t, of the same shape as `x0_BCTHW`."""
        t = as_time(t_B, x0_BCTHW)
        return (1 - t) * x0_BCTHW + t * noise_BCTHW

    def target(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the velocity dx_t/dt, which does not depend on `t_B`."""
        return noise_BCTHW - x0_BCTHW

    def decompose(
        self, x_t_BCTHW: Tensor, prediction_BCTHW: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return x_0 = x_t - t v and noise = x_t + (1 - t) v."""
        t = as_time(t_B, x_t_BCTHW)
        return x_t_BCTHW - t * prediction_BCTHW, x_t_BCTHW + (1 - t) * prediction_BCTHW

    def sample_times(self, uniform_B: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to times in [start, end)."""
        if (self.start, self.end) == (0.0, 1.0):
            return self.shift * uniform_B / (1 + (self.shift - 1) * uniform_B)
        first, last = (t / (self.shift - (self.shift - 1) * t) for t in (self.start, self.end))
        uniform_B = first + (last - first) * uniform_B
        times_B = self.shift * uniform_B / (1 + (self.shift - 1) * uniform_B)
        # Rounding must not lead to a time that another model has.
        start, end = times_B.new_tensor([self.start, self.end])
        return times_B.clamp(start, torch.nextafter(end, start))

    def guidance_factor(self, t_B: Tensor) -> Tensor:
        """Return t / (1 - t), see `videorl.guidance.flow_nrg`; infinite at t = 1."""
        return t_B / (1 - t_B)
