"""RFLOW, the rectified flow of Open-Sora 1.2: its times and its sampler."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from videorl.errors import ConfigError
from videorl.open_sora.vae import CHUNK_FRAMES

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Noisy latents [B, C, T, H, W], times [B] of 0 … 1000 -> velocity towards the data."""

NUM_TIMESTEPS = 1000


def time_ratio(height: float, width: float, num_frames: int) -> float:
    """Return how much more noise a video of this size needs than an image of 512 × 512.

    Raises:
        ConfigError: Videos of 2 … 16 frames, for which the published formula gives 0.
    """
    chunks = 1 if num_frames == 1 else num_frames // CHUNK_FRAMES * 5
    if chunks == 0:
        raise ConfigError(
            f"sampling.num_frames must be 1, or at least {CHUNK_FRAMES} and best a multiple of it, "
            f"for Open-Sora 1.2, got {num_frames}: its times are not defined there"
        )
    return math.sqrt(height * width / 512**2) * math.sqrt(chunks)


def shifted(t: Tensor, ratio: float) -> Tensor:
    """Return times of 0 … 1000 moved towards the noise: r s / (1 + (r - 1) s) with s = t / 1000."""
    share = t / NUM_TIMESTEPS
    return NUM_TIMESTEPS * (ratio * share / (1 + (ratio - 1) * share))


def step_times(num_steps: int, ratio: float) -> Tensor:
    """Return the times at which steps begin, [num_steps] in float32, falling from 1000."""
    starts = [(1 - step / num_steps) * NUM_TIMESTEPS for step in range(num_steps)]
    return shifted(torch.tensor(starts, dtype=torch.float64), ratio).float()


def sample(
    velocity: Velocity, noise_BCTHW: Tensor, times_N: Tensor, frame_mask_BT: Tensor | None = None
) -> Tensor:
    """Go from noise to data by Euler's method; return the latents.

    Args:
        velocity: Of the network, with guidance.
        noise_BCTHW: Where to begin; frames that the mask keeps are data already.
        times_N: Of `step_times`.
        frame_mask_BT: 1 = a frame to sample, 0 = one to keep.
    """
    z = noise_BCTHW
    for number, time in enumerate(times_N):
        after = times_N[number + 1] if number + 1 < len(times_N) else torch.zeros(())
        moved = z + velocity(z, time.expand(len(z))) * ((time - after) / NUM_TIMESTEPS)
        if frame_mask_BT is not None:
            moved = torch.where(frame_mask_BT[:, None, :, None, None] > 0, moved, z)
        z = moved
    return z
