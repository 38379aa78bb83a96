"""Mochi 1 text-to-video models (Genmo, mochi-1-preview)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_mochi import AutoencoderKLMochi
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from diffusers.pipelines.mochi.pipeline_mochi import MochiPipeline
from torch import Tensor, nn
from transformers import T5EncoderModel

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.family import check_multiples, check_steps
from videorl.policies.plain_family import PlainFamily
from videorl.processes.rectified_flow import RectifiedFlow


class Mochi(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    Its own time runs from noise at 0 to the video at 1, and it predicts x_0 - noise: the negative
    of what a rectified flow does here. In half precision the pipeline rounds times and latents to
    the transformer's type at every step, and so do predictions here.
    """

    pipeline_class = MochiPipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": MochiTransformer3DModel,
            "vae": AutoencoderKLMochi,
            "text_encoder": T5EncoderModel,
        }
    )
    prediction_sign = -1
    masks_padding = True
    guides_in_one_call = True
    fewest_steps = 2
    """Its schedule has a linear and a quadratic part."""
    checkpointed_above = 500_000_000
    """The published one has 10 billion parameters."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return whether an empty prompt has no tokens at all."""
        name = "force_zeros_for_empty_prompt"
        return {name: index.get(name, False)}

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return those that the pipeline has for every VAE."""
        return 6, 8

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse settings for which the pipeline would return other videos, or none.

        Raises:
            ConfigError: See `check_multiples` and `check_steps`.
        """
        pixels_step = pipeline.vae_scale_factor_spatial * pipeline.transformer.config.patch_size
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )
        check_steps(sampling, self.fewest_steps)

    def process(self, scheduler: Any) -> RectifiedFlow:
        """Return rectified flow with uniform training times.

        Raises:
            ConfigError: The scheduler's times do not run from noise at 0.
        """
        if not scheduler.config.get("invert_sigmas"):
            raise ConfigError(
                "policy.family=mochi needs a checkpoint with a FlowMatchEulerDiscreteScheduler of "
                f"invert_sigmas=true, got a {type(scheduler).__name__} without"
            )
        return RectifiedFlow()

    def step_times(self, pipeline: Any) -> Tensor:
        """Return the noise level before every step."""
        return 1 - pipeline.scheduler.sigmas[: len(pipeline.scheduler.timesteps)]

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the times from noise, in units of training timesteps."""
        timestep = (1 - t_B) * pipeline.scheduler.config["num_train_timesteps"]
        return {"timestep": timestep.to(x_t_BCTHW.dtype)}

    def times(self, pipeline: Any, timestep: Tensor) -> Tensor:
        """Return the times to noise."""
        return 1 - timestep.float() / pipeline.scheduler.config["num_train_timesteps"]

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks; their second output is the text."""
        return transformer.transformer_blocks

    def text_width(self, transformer: Any) -> int:
        """Return the width of T5's embeddings."""
        return transformer.config.text_embed_dim

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of latents that have zero mean and unit variance per channel."""
        mean, std = _statistics(pipeline.vae, x0_BCTHW)
        x0 = x0_BCTHW * std / pipeline.vae.config.scaling_factor + mean
        return pipeline.vae.decode(x0, return_dict=False)[0]

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return latents that have zero mean and unit variance per channel."""
        latents = pipeline.vae.encode(pixels_B3FHW).latent_dist.mode()
        mean, std = _statistics(pipeline.vae, latents)
        return (latents - mean) * pipeline.vae.config.scaling_factor / std


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel, [1, C, 1, 1, 1], of the VAE's latents."""
    found = (vae.config.get("latents_mean"), vae.config.get("latents_std"))
    if None in found:  # as the pipeline has it
        return like.new_zeros(()), like.new_ones(())
    mean, std = (
        torch.tensor(one).to(like.device, like.dtype).view(1, -1, 1, 1, 1) for one in found
    )
    return mean, std
