"""Combine reward models that have a gradient with respect to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from videorl.config import RewardConfig
from videorl.protocols import DifferentiableReward
from videorl.rewards import load
from videorl.rewards.scoring import check_dimension_weights, check_rewards


class CombinedReward:
    """The weighted sum of reward models, with gradient, as `videorl.rewards.scoring.combine`.

    Args:
        models: `RewardConfig.key` -> model.
        rewards: Configurations of the models, with the weights of the sum.
    """

    def __init__(
        self, models: Mapping[str, DifferentiableReward], rewards: Sequence[RewardConfig]
    ) -> None:
        check_rewards(rewards)
        for reward in rewards:
            check_dimension_weights(reward, models[reward.key].dimensions)
        self._models = models
        self._rewards = rewards

    def __call__(
        self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the totals [B] with gradient, and the dimensions [B] by name without.

        Args:
            videos_BF3HW: RGB in [0, 1].
            fps: Frames per second of all videos.
            prompts: One per video.
        """
        total_B = torch.zeros(len(prompts), device=videos_BF3HW.device)
        dimensions: dict[str, Tensor] = {}
        for reward in self._rewards:
            model = self._models[reward.key]
            scores_BK = model.score_pixels(videos_BF3HW, fps, prompts).to(total_B.device)
            named = dict(zip(model.dimensions, scores_BK.unbind(1), strict=True))
            weights = reward.dimension_weights or dict.fromkeys(named, 1.0)
            own = [weight * named[name] for name, weight in weights.items()]
            total_B = total_B + reward.weight * torch.stack(own).sum(0)
            prefix = f"{reward.key}." if len(self._rewards) > 1 else ""
            dimensions |= {prefix + name: values.detach() for name, values in named.items()}
        return total_B, dimensions


def load_differentiable(rewards: Sequence[RewardConfig]) -> CombinedReward:
    """Load the reward models of a recipe; all of them must be in `DIFFERENTIABLE`.

    Raises:
        ConfigError: An option or a weighted dimension is unknown.
        CheckpointError: A checkpoint cannot be read.
    """
    models = {r.key: load(r.name, r.path, **r.options) for r in rewards}
    return CombinedReward(models, rewards)  # pyright: ignore[reportArgumentType]
