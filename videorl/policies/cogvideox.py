"""CogVideoX text-to-video models: 2B, 5B and 1.5-5B (arXiv 2408.06072)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn
from transformers import T5EncoderModel

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.cogvideox_shared import PLAN, SharedAttention
from videorl.policies.family import check_multiples
from videorl.policies.plain_family import PlainFamily
from videorl.processes.vp_diffusion import VPDiffusion


class CogVideoX(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    2B has absolute positions, 5B has rotary ones. 1.5 has rotary ones and patches of two latent
    frames, so its pipeline puts a padding frame before the latents: it is sampled and trained like
    the others, and dropped before decoding.
    """

    pipeline_class = CogVideoXPipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": CogVideoXTransformer3DModel,
            "vae": AutoencoderKLCogVideoX,
            "text_encoder": T5EncoderModel,
        }
    )
    attends_to_padding = True
    guides_in_one_call = True
    checkpointed_above = 500_000_000
    """The published ones have 1.7 billion parameters and more."""

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression."""
        temporal = int(vae_config.get("temporal_compression_ratio", 4))
        return temporal, 2 ** (len(vae_config["block_out_channels"]) - 1)

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse settings for which the model would return other videos, or misread the prompt.

        Raises:
            ConfigError: The VAE, which decodes latent frames in pairs, would return more frames;
                or the text length is not the one that the transformer was trained with.
        """
        check_multiples(
            sampling,
            frames_step=2 * pipeline.vae_scale_factor_temporal,
            pixels_step=pipeline.vae_scale_factor_spatial * pipeline.transformer.config.patch_size,
        )
        num_tokens = pipeline.transformer.config.max_text_seq_length
        if sampling.max_sequence_length != num_tokens:
            raise ConfigError(
                f"sampling.max_sequence_length must be {num_tokens} for this model, which attends "
                f"to the padding of its prompts, got {sampling.max_sequence_length}"
            )

    def process(self, scheduler: Any) -> VPDiffusion:
        """Return diffusion with the scheduler's own schedule, including zero terminal SNR.

        Raises:
            ConfigError: The model predicts neither the noise nor the velocity, or was not trained
                by diffusion at all.
        """
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ConfigError(
                "policy.family=cogvideox needs a checkpoint with a diffusion scheduler such as "
                f"CogVideoXDDIMScheduler, got a {type(scheduler).__name__}"
            )
        return VPDiffusion(scheduler.alphas_cumprod, scheduler.config["prediction_type"])

    def step_times(self, pipeline: Any) -> Tensor:
        """Return the times of the timesteps that the scheduler visits."""
        return self.times(pipeline, pipeline.scheduler.timesteps)

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the discrete timesteps, and the rotary embeddings if the model has them."""
        rotary = None
        if pipeline.transformer.config.use_rotary_positional_embeddings:
            stride = pipeline.vae_scale_factor_spatial
            _, _, frames, height, width = x_t_BCTHW.shape
            rotary = pipeline._prepare_rotary_positional_embeddings(
                height * stride, width * stride, frames, x_t_BCTHW.device
            )
        timestep = self.process(pipeline.scheduler).timesteps(t_B)
        return {"timestep": timestep, "image_rotary_emb": rotary}

    def times(self, pipeline: Any, timestep: Tensor) -> Tensor:
        """Return (k + 1) / N for timestep k of N."""
        return (timestep.float() + 1) / len(pipeline.scheduler.alphas_cumprod)

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks; their second output is the text."""
        return transformer.transformer_blocks

    def context_parallel_plan(self, transformer: Any, group: Any) -> dict[str, Any]:
        """Return what to split and gather where a group shares a video; set its attention."""
        transformer.set_attn_processor(SharedAttention(group))
        return PLAN

    def text_width(self, transformer: Any) -> int:
        """Return the width of T5's embeddings."""
        return transformer.config.text_embed_dim

    def packed(self, pipeline: Any, latents_BCTHW: Tensor) -> Tensor:
        """Return latents [B, T, C, H, W]."""
        return latents_BCTHW.transpose(1, 2)

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return latents [B, C, T, H, W]."""
        return latents.transpose(1, 2)

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels, without those of the padding frames of 1.5."""
        num_latent_frames = (num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        x0 = x0_BCTHW.transpose(1, 2)
        return pipeline.decode_latents(x0[:, x0.shape[1] - num_latent_frames :])

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return the scaled latents, without the padding frames that 1.5 would need."""
        latents = pipeline.vae.encode(pixels_B3FHW).latent_dist.mode()
        return latents * pipeline.vae.config.scaling_factor
