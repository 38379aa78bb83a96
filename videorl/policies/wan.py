"""Wan text-to-video models: Wan 2.1 of every size and Wan 2.2 TI2V-5B (arXiv 2503.20314)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline, prompt_clean
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.family import check_multiples
from videorl.policies.plain_family import PlainFamily


class Wan(PlainFamily):
    """Implements `videorl.policies.family.Family`."""

    pipeline_class = WanPipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": WanTransformer3DModel,
            "vae": AutoencoderKLWan,
            "text_encoder": UMT5EncoderModel,
        }
    )
    vae_dtype = torch.float32
    """As diffusers advises for Wan."""
    guides_in_one_call = False
    shares_by_ring = True
    checkpointed_above = 500_000_000
    """The published ones have 1.3 billion parameters and more."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return an empty dict: the pipeline takes only its parts.

        Wan 2.2 TI2V's `expand_timesteps` is left out. It gives every token its own time, for an
        input image's sake; without such an image all are equal, and a time per video makes the
        same video with gigabytes less in each block.

        Raises:
            ConfigError: The model has two transformers.
        """
        if index.get("boundary_ratio") is not None or index.get("transformer_2", [None])[0]:
            raise ConfigError(
                f"policy.path: {folder} has two transformers (Wan 2.2 A14B): set "
                "policy.family=wan_2_2"
            )
        return {}

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's scale factors."""
        return vae_config.get("scale_factor_temporal", 4), vae_config.get("scale_factor_spatial", 8)

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse video sizes that the pipeline would round.

        Raises:
            ConfigError: See `check_multiples`.
        """
        patch_sizes = pipeline.transformer.config.patch_size[1:]
        # The pipeline demands multiples of 16 of every model.
        pixels_step = math.lcm(16, *(pipeline.vae_scale_factor_spatial * n for n in patch_sizes))
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )

    def clean(self, prompt: str) -> str:
        """Return the prompt without HTML entities and repeated spaces."""
        return prompt_clean(prompt)

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the times, in units of training timesteps."""
        return {"timestep": t_B * pipeline.scheduler.config["num_train_timesteps"]}

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks."""
        return transformer.blocks

    def text_width(self, transformer: Any) -> int:
        """Return the width of UMT5's embeddings."""
        return transformer.config.text_dim

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of latents that have zero mean and unit variance per channel."""
        mean, std = _statistics(pipeline.vae, x0_BCTHW)
        return pipeline.vae.decode(x0_BCTHW * std + mean, return_dict=False)[0]

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return latents that have zero mean and unit variance per channel."""
        latents = pipeline.vae.encode(pixels_B3FHW).latent_dist.mode()
        mean, std = _statistics(pipeline.vae, latents)
        return (latents - mean) / std


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel, [1, C, 1, 1, 1], of the VAE's latents."""
    mean, std = (
        torch.tensor(numbers, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1)
        for numbers in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std
