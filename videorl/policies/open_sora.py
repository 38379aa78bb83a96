"""Open-Sora 1.2, the model that OnlineVPO aligned (arXiv 2412.15159)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5EncoderModel

from videorl.config import SamplingConfig
from videorl.embedding import Embedding, plain
from videorl.errors import ConfigError
from videorl.open_sora.flow import NUM_TIMESTEPS, time_ratio
from videorl.open_sora.pipeline import OpenSoraPipeline
from videorl.open_sora.transformer import Blocks, STDiT3
from videorl.open_sora.vae import FRAMES_PER_LATENT, OpenSoraVAE, latent_frames, spatial_stride
from videorl.policies.plain_family import PlainFamily
from videorl.policies.texts import check_length, pad
from videorl.processes.rectified_flow import RectifiedFlow


class OpenSora(PlainFamily):
    """Implements `videorl.policies.family.Family` on a pipeline of our own.

    A row of zeros in an embedding is padding. The empty prompt is one such row: what the model
    learned for no text is read instead, in guidance as much of it as the prompt has tokens.
    """

    pipeline_class = OpenSoraPipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {"transformer": STDiT3, "vae": OpenSoraVAE, "text_encoder": T5EncoderModel}
    )
    guides_in_one_call = True
    checkpointed_above = 500_000_000
    """The published one has 1.2 billion parameters."""
    vae_lengths = (5, 10)
    """Latent frames of one and of two pieces that the VAE decodes, for plans."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scores that prompts end with."""
        names = ("aesthetic_score", "motion_score", "camera_motion")
        return {name: index.get(name) for name in names}

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, rate, steps and guidance."""
        return {**super().call_options(sampling), "fps": sampling.fps}

    def prepare(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Set the shift of times and what the transformer is told of the video."""
        size = (sampling.height, sampling.width, sampling.num_frames)
        pipeline.set_video(*size, sampling.fps)

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression of whole latent frames, rows and columns."""
        return FRAMES_PER_LATENT, spatial_stride(vae_config)

    def latent_frames(self, num_frames: int, vae_config: Mapping[str, Any]) -> int:
        """Return 5 latent frames for each 17 frames, and one for each 4 that are left."""
        return latent_frames(num_frames)

    def num_blocks(self, transformer_config: Mapping[str, Any]) -> dict[str, int]:
        """Return the pairs of a spatial and a temporal block."""
        return {"depth": transformer_config["depth"]}

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse lengths without times, and more tokens than the embedding of no text has.

        Height and width need not be multiples of anything: 240 × 426 is a published size, of which
        the last two columns are not decoded.

        Raises:
            ConfigError: See there.
        """
        time_ratio(sampling.height, sampling.width, sampling.num_frames)
        if min(sampling.height, sampling.width) < pipeline.vae_scale_factor_spatial:
            raise ConfigError(
                "sampling.height and sampling.width must be at least "
                f"{pipeline.vae_scale_factor_spatial} for this model, got {sampling.height} and "
                f"{sampling.width}"
            )
        limit = pipeline.transformer.config["model_max_length"]
        if sampling.max_sequence_length > limit:
            raise ConfigError(
                f"sampling.max_sequence_length must be at most {limit} for this model, whose "
                f"embedding of no text has so many tokens, got {sampling.max_sequence_length}"
            )

    def process(self, scheduler: Any) -> RectifiedFlow:
        """Return rectified flow, its training times moved as `prepare` moved those of sampling.

        Raises:
            ConfigError: The scheduler has no shift that the size of a video could set.
        """
        if not hasattr(scheduler, "set_shift") or scheduler.config.get("use_dynamic_shifting"):
            raise ConfigError(
                "policy.family=open_sora needs a checkpoint with a FlowMatchEulerDiscreteScheduler "
                f"without use_dynamic_shifting, got a {type(scheduler).__name__}"
            )
        return RectifiedFlow(scheduler.shift)

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return T5's embeddings of the tokens that count."""
        num_tokens = len(pipeline.tokenizer(pipeline.full_text(prompt)).input_ids)
        check_length(prompt, num_tokens, sampling)
        embeds_BLD, mask_BL = pipeline.encode_prompt(prompt, sampling.max_sequence_length)
        num_rows = max(1, int(mask_BL.sum()))
        return plain(embeds_BLD[0, :num_rows].cpu().clone())

    def text_width(self, transformer: Any) -> int:
        """Return the width of T5's embeddings."""
        return transformer.config["caption_channels"]

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return embeddings [B, L, D], zeros after the last token, and the mask of tokens."""
        rows = [embedding["prompt_embeds"] for embedding in embeds]
        padded_BLD = pad(rows, sampling.max_sequence_length, dtype, device)
        mask_BL = (padded_BLD != 0).any(-1)
        return {"prompt_embeds": padded_BLD, "prompt_attention_mask": mask_BL}

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return embeddings and mask."""
        return {
            "encoder_hidden_states": arguments["prompt_embeds"],
            "encoder_attention_mask": arguments["prompt_attention_mask"],
        }

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return latents as they are, and of the transformer's output the velocity.

        That is its first half and points to the data; pipeline, solver and process count from the
        data to the noise.
        """
        channels = pipeline.transformer.config["in_channels"]
        is_output = latents.shape[-4] != channels
        return -latents[..., :channels, :, :, :] if is_output else latents

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the times of 0 … 1000, the size in pixels and the frame rate."""
        return {"timestep": t_B * NUM_TIMESTEPS, **pipeline.conditions(t_B.device)}

    def times(self, pipeline: Any, timestep: Tensor) -> Tensor:
        """Return the timesteps divided by 1000."""
        return timestep.float() / NUM_TIMESTEPS

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return spatial and temporal blocks in turn."""
        return Blocks(transformer)

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels, 17 frames at a time."""
        return pipeline.vae.decode(x0_BCTHW, num_frames)

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return latents that have zero mean and unit variance per channel."""
        return pipeline.vae.encode(pixels_B3FHW)
