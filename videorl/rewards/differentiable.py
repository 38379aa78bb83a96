"""Reward models whose gradient a policy can follow, combined as scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from videorl.config import RewardConfig
from videorl.errors import RewardError
from videorl.protocols import DifferentiableReward
from videorl.rewards import is_differentiable, load
from videorl.rewards.scoring import check_dimension_weights, check_rewards
from videorl.settings.plugins import lacks


class CombinedReward:
    """The weighted sum of reward models, with gradient; see `videorl.rewards.scoring.combine`.

    Args:
        models: By the key of their configuration. Without one is a reward that only watches
            (`weight: 0`) and has no gradient: it has no part in this.
        rewards: How their scores are combined.
    """

    def __init__(
        self, models: Mapping[str, DifferentiableReward], rewards: Sequence[RewardConfig]
    ) -> None:
        check_rewards(rewards)
        self._used = [reward for reward in rewards if reward.weight or reward.key in models]
        for reward in self._used:
            check_dimension_weights(reward, models[reward.key].dimensions)
        self._models = models
        self._has_prefix = len(rewards) > 1

    def __call__(
        self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the totals [B] with gradient, and every dimension [B] without, by name.

        Args:
            videos_BF3HW: RGB in [0, 1].
            fps: Frames per second.
            prompts: One per video.
        """
        total_B = torch.zeros(len(prompts), device=videos_BF3HW.device)
        dimensions: dict[str, Tensor] = {}
        for reward in self._used:
            model = self._models[reward.key]
            scores_BK = model.score_pixels(videos_BF3HW, fps, prompts).to(total_B.device)
            named = dict(zip(model.dimensions, scores_BK.unbind(1), strict=True))
            weights = reward.dimension_weights or dict.fromkeys(named, 1.0)
            own = [weight * named[name] for name, weight in weights.items()]
            total_B = total_B + reward.weight * torch.stack(own).sum(0)
            prefix = f"{reward.key}." if self._has_prefix else ""
            dimensions |= {prefix + name: one.detach() for name, one in named.items()}
        return total_B, dimensions


def is_followed(reward: RewardConfig) -> bool:
    """Tell whether a learner loads a reward: all but those that only watch and have no gradient."""
    return bool(reward.weight) or is_differentiable(reward.name)


def load_differentiable(rewards: Sequence[RewardConfig]) -> CombinedReward:
    """Load the reward models of a recipe, but for those that only watch and have no gradient.

    Raises:
        ConfigError: An option or a weighted dimension is unknown.
        CheckpointError: A checkpoint cannot be read.
        RewardError: What is to be followed has no gradient.
    """
    loaded = [reward for reward in rewards if is_followed(reward)]
    models = {one.key: load(one.name, one.path, **one.options) for one in loaded}
    for reward in loaded:
        if missing := lacks(models[reward.key], DifferentiableReward):
            if not reward.weight:
                del models[reward.key]  # made by a function, of whose result only this tells
                continue
            raise RewardError(f"reward {reward.name} has no gradient: {', '.join(missing)}")
    return CombinedReward(models, rewards)  # pyright: ignore[reportArgumentType]
