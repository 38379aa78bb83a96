"""LTX-Video text-to-video models: 0.9 and 0.9.1 (arXiv 2501.00103)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx import LTXPipeline
from torch import Tensor, nn
from transformers import T5EncoderModel

from videorl.config import SamplingConfig
from videorl.policies.family import check_multiples, check_steps, latent_size
from videorl.policies.ltx_shared import PLAN, share_text_attention
from videorl.policies.plain_family import PlainFamily

DECODE_TIMESTEP = 0.05
"""Time at which a VAE with timestep conditioning (0.9.1) decodes, as diffusers documents for it."""
DECODE_NOISE_SCALE = 0.025
"""Share of noise that it is given with the latents, likewise."""


class LTXVideo(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    Sampling spends more of its steps near noise the more tokens a video has; training times are
    uniform all the same. T5 reads a prompt together with its padding, so an embedding depends on
    `sampling.max_sequence_length`; the transformer is given the mask, and reads only the tokens.
    """

    pipeline_class = LTXPipeline
    decodes_float32 = True
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": LTXVideoTransformer3DModel,
            "vae": AutoencoderKLLTXVideo,
            "text_encoder": T5EncoderModel,
        }
    )
    masks_padding = True
    guides_in_one_call = True
    fewest_steps = 2
    """The scheduler stretches the times of its steps to a fixed last one (`shift_terminal`)."""
    checkpointed_above = 500_000_000
    """The published ones have 1.9 billion parameters and more."""

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression."""
        halvings = 2 ** sum(vae_config.get("spatio_temporal_scaling", (True, True, True, False)))
        temporal = vae_config.get("temporal_compression_ratio")
        spatial = vae_config.get("spatial_compression_ratio")
        return (
            temporal or halvings * vae_config.get("patch_size_t", 1),
            spatial or halvings * vae_config.get("patch_size", 4),
        )

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse settings for which the pipeline would return other videos, or none.

        Raises:
            ConfigError: See `check_multiples` and `check_steps`.
        """
        # The pipeline demands multiples of 32 of every model.
        pixels_step = math.lcm(32, pipeline.vae_scale_factor_spatial)
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )
        check_steps(sampling, self.fewest_steps)

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, steps, guidance and the frame rate, which the transformer is told."""
        return {**super().call_options(sampling), "frame_rate": sampling.fps}

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return times in units of training timesteps, and what the tokens' places are made of."""
        temporal, spatial = pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial
        _, _, frames, height, width = x_t_BCTHW.shape
        return {
            "timestep": t_B * pipeline.scheduler.config["num_train_timesteps"],
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (temporal / sampling.fps, spatial, spatial),
        }

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks."""
        return transformer.transformer_blocks

    def context_parallel_plan(self, transformer: Any, group: Any) -> dict[str, Any]:
        """Return what to split and gather where a group shares a video; set its attention."""
        share_text_attention(transformer)
        return PLAN

    def text_width(self, transformer: Any) -> int:
        """Return the width of T5's embeddings."""
        return transformer.config.caption_channels

    def packed(self, pipeline: Any, latents_BCTHW: Tensor) -> Tensor:
        """Return the latents as tokens [B, N, C]."""
        return pipeline._pack_latents(latents_BCTHW)

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return the latents of tokens [B, N, C], in the order of frames, rows and columns."""
        names = ("temporal_compression_ratio", "spatial_compression_ratio")
        strides = {name: getattr(pipeline, f"vae_{name}") for name in names}
        return pipeline._unpack_latents(latents, *latent_size(self, strides, sampling))

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of latents that have zero mean and unit variance per channel.

        A VAE with timestep conditioning is given a little noise with the latents, as
        `DECODE_NOISE_SCALE` says. It is drawn on the CPU, once, from seed 0: the same for every
        video, so that pixels depend on nothing but the latents, and candidates differ in nothing
        else. The stock pipeline draws it from the generator of its samples.
        """
        vae, scaling = pipeline.vae, pipeline.vae.config.scaling_factor
        x0 = pipeline._denormalize_latents(x0_BCTHW, vae.latents_mean, vae.latents_std, scaling)
        x0 = x0.to(vae.dtype)
        if not vae.config.timestep_conditioning:
            return vae.decode(x0, None, return_dict=False)[0]
        generator = torch.Generator().manual_seed(0)
        noise_1CTHW = torch.randn(x0[:1].shape, generator=generator, dtype=x0.dtype).to(x0.device)
        x0 = (1 - DECODE_NOISE_SCALE) * x0 + DECODE_NOISE_SCALE * noise_1CTHW
        timestep_B = torch.full((len(x0),), DECODE_TIMESTEP, device=x0.device, dtype=x0.dtype)
        with _own_noise(x0.device):
            return vae.decode(x0, timestep_B, return_dict=False)[0]

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return latents that have zero mean and unit variance per channel."""
        vae = pipeline.vae
        latents = vae.encode(pixels_B3FHW).latent_dist.mode()
        return pipeline._normalize_latents(
            latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )


@contextmanager
def _own_noise(device: torch.device) -> Iterator[None]:
    """Inside the block, torch draws from seed 0: the layers of some decoders (0.9.1) add noise."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(0)
        yield
