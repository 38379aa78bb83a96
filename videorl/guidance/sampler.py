"""Sampling guided by a latent reward, with the policy's own pipeline and solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.guidance.config import check_weights
from videorl.guidance.flow_nrg import MAX_FACTOR, guided_prediction
from videorl.guidance.latent_reward import LatentReward
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.settings.bounds import above


class GuidedSampler:
    """Samples from the policy tilted by weighted dimensions of a latent reward.

    sampler = GuidedSampler(policy, reward, {"motion_quality": 1.0, "text_alignment": 0.5})
    latents_BCTHW = sampler.sample(prompt_embeds, negative_prompt_embeds, seeds)
    """

    def __init__(
        self,
        policy: PipelinePolicy,
        reward: LatentReward,
        weights: Mapping[str, float],
        *,
        max_factor: float = MAX_FACTOR,
    ) -> None:
        """Check the request. With all weights 0, latents equal those of the policy.

        Args:
            policy: Must have its transformer; may be aligned.
            reward: Must be trained on the base of this policy.
            weights: Dimension -> weight of any sign; 0 for dimensions left out.
            max_factor: Upper limit (> 0) of t / (1 - t), which is infinite at t = 1, where solvers
                start.

        Raises:
            ConfigError: A dimension is unknown, or a number is out of range.
        """
        check_weights(weights, reward.config)
        if problem := above("max_factor", max_factor, 0):
            raise ConfigError(f"guidance: {problem}")
        self._policy = policy
        self._reward = reward
        self._weights_K = torch.tensor([weights.get(d, 0.0) for d in reward.config.dimensions])
        self._max_factor = max_factor

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return final latents [B, C, T, H, W] in float32; arguments as in `Policy.sample`.

        The reward is conditioned on the prompt alone, and guides the prediction after
        classifier-free guidance.
        """
        process = self._policy.process

        def change(prediction_BCTHW: Tensor, x_t_BCTHW: Tensor, t_B: Tensor) -> Tensor:
            embeds = [prompt_embeds] * len(x_t_BCTHW)
            gradient_BCTHW = self._reward.gradient(x_t_BCTHW, t_B, embeds, self._weights_K)
            return guided_prediction(
                prediction_BCTHW,
                gradient_BCTHW.to(prediction_BCTHW.device),
                process.guidance_factor(t_B),
                max_factor=self._max_factor,
            )

        if not self._weights_K.any():
            return self._policy.sample(prompt_embeds, negative_prompt_embeds, seeds)
        with self._policy.changed_predictions(change):
            return self._policy.sample(prompt_embeds, negative_prompt_embeds, seeds)
