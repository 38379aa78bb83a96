"""Reward feedback learning (ReFL): the reward's own gradient, through the end of a sampling chain.

ImageReward, arXiv 2304.05977, algorithm 1: sample without gradient up to a step drawn at random
from the last ones, predict the clean sample from there with gradient, decode it, and minimise
-reward. OnlineVPO (arXiv 2412.15159) has it as a baseline. More than one step with gradient are
those of VADER (arXiv 2407.08737).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from videorl.objectives.objective import RewardObjective, Surroundings
from videorl.settings.bounds import Problem, finite

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.protocols import Process


def stop_step(seed: int, first: int, num_steps: int) -> int:
    """Draw the sampler's step, counted from 0, at which a chain stops: `first` ... S - 1.

    Args:
        seed: Of the draw.
        first: The earliest one; ImageReward has 30 of 40.
        num_steps: Steps S of the whole chain.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(first, num_steps, (), generator=generator))


def predict_clean(
    process: Process,
    predict: Callable[[Tensor, Tensor], Tensor],
    x_t_BCTHW: Tensor,
    times_BG: Tensor,
) -> Tensor:
    """Walk from x_t with gradient and return the clean latents predicted at the last time.

    In between are deterministic DDIM steps (arXiv 2010.02502, equation 12 without noise): what the
    model takes for the clean latents and the noise is mixed anew for the next time. Of a rectified
    flow these are Euler's.

    Args:
        process: How the model was trained.
        predict: The model at noisy latents [B, C, T, H, W] and times [B].
        x_t_BCTHW: Noisy latents at the first times.
        times_BG: Falling times in [0, 1], G >= 1 per video.
    """
    times = times_BG.unbind(1)
    for here_B, next_B in pairwise(times):
        clean, noise = process.decompose(x_t_BCTHW, predict(x_t_BCTHW, here_B), here_B)
        x_t_BCTHW = process.corrupt(clean, noise, next_B)
    return process.decompose(x_t_BCTHW, predict(x_t_BCTHW, times[-1]), times[-1])[0]


def refl_loss(reward_N: Tensor, enough: float | None) -> Tensor:
    """Return -reward, [N]; or max(0, enough - reward), which stops pushing what is good enough.

    The second is ImageReward's, with `enough` = 2 of its z-scores.
    """
    return -reward_N if enough is None else (enough - reward_N).clamp(min=0)


@dataclass
class ReFL(RewardObjective):
    """The reward, or what is missing to one that is `enough`, is the whole loss."""

    name: str = "refl"
    enough: float | None = None
    """A reward above this is pushed no further; null = no bound."""

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems(around)
        if self.enough is not None:
            yield finite("objective.enough", self.enough)

    def __call__(self, reward_N: Tensor) -> Tensor:
        """Return `refl_loss`."""
        return refl_loss(reward_N, self.enough)
