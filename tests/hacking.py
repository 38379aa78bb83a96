"""A reward that is easily hacked: temporal consistency alone, which a still or black video has.

It has a gradient, and there is a policy that ReFL can follow it with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.tiny_policy import LATENT_SHAPE, TinyPolicy
from videorl.embedding import Embedding
from videorl.types import Score, Video


class TemporalConsistency:
    """Scores how little neighbouring frames differ, as negative mean difference of pixels."""

    dimensions = ("temporal_consistency",)

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Return one score per video, at most 0; 0 is a still."""
        found = [-float(np.abs(np.diff(video.frames / 255.0, axis=0)).mean()) for video in videos]
        return [Score({"temporal_consistency": 100 * value}, 100 * value) for value in found]

    def score_pixels(self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]) -> Tensor:
        """Return the same [B, 1] with gradient, of pixels in [0, 1]."""
        return -100 * videos_BF3HW.diff(dim=1).abs().flatten(1).mean(1, keepdim=True)


class FollowedPolicy(TinyPolicy):
    """The tiny policy, whose sampler takes two steps of Euler's; implements what ReFL asks for."""

    @torch.no_grad()
    def sample_partly(
        self,
        prompt_embeds: Sequence[Embedding],
        negative_prompt_embeds: Sequence[Embedding],
        seeds: Sequence[int],
        steps: Sequence[int],
        longest: int,
    ) -> tuple[Tensor, Tensor]:
        """Return the latents after the first step, the last one without gradient."""
        assert {*steps} == {longest} == {1}
        noise_BCTHW = torch.stack(
            [torch.randn(LATENT_SHAPE, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        t_B = torch.ones(len(seeds))
        x_t_BCTHW = noise_BCTHW - self.predict(noise_BCTHW, t_B, prompt_embeds, "policy") / 2
        return x_t_BCTHW, torch.tensor([1.0, 0.5])

    def pixels(self, latents_BCTHW: Tensor, *, in_pieces: bool = False, tile_px: int = 0) -> Tensor:
        """Paint the first channel in grey, [B, F, 3, H, W]."""
        return latents_BCTHW[:, 0, :, None].sigmoid().expand(-1, -1, 3, -1, -1)
