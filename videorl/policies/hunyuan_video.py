"""HunyuanVideo, a guidance-distilled text-to-video model of 13 billion parameters (2412.03603)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import (
    DEFAULT_PROMPT_TEMPLATE,
    HunyuanVideoPipeline,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, LlamaModel

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.family import check_multiples
from videorl.policies.plain_family import PlainFamily
from videorl.policies.texts import check_length

CLIP_TOKENS = 77
"""What the second text encoder reads of a prompt, in the pipeline's own code."""


class HunyuanVideo(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    `sampling.guidance_scale` is an input of the transformer, which it was distilled with: learners
    predict with the same. `sampling.true_guidance_scale` is guidance by the negative prompt.
    """

    pipeline_class = HunyuanVideoPipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": HunyuanVideoTransformer3DModel,
            "vae": AutoencoderKLHunyuanVideo,
            "text_encoder": LlamaModel,
            "text_encoder_2": CLIPTextModel,
        }
    )
    masks_padding = True
    negative_guidance = "true_guidance_scale"
    guides_in_one_call = False
    checkpointed_above = 500_000_000
    """The published one has 12.8 billion parameters."""

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, steps and both kinds of guidance.

        Raises:
            ConfigError: There is a negative prompt, but no guidance by it.
        """
        if sampling.negative_prompt and sampling.true_guidance_scale <= 1:
            raise ConfigError(
                "sampling.negative_prompt must be empty for this model unless "
                "sampling.true_guidance_scale is above 1 (without it the negative prompt is not "
                f"read), got {sampling.negative_prompt[:80]!r}"
            )
        return super().call_options(sampling)

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression."""
        temporal = vae_config.get("temporal_compression_ratio", 4)
        return temporal, vae_config.get("spatial_compression_ratio", 8)

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse sizes that the pipeline would round, and guidance that the model does not read.

        Raises:
            ConfigError: See `check_multiples`; or guidance is set, but is no input of this model.
        """
        config = pipeline.transformer.config
        # The pipeline demands multiples of 16 of every model.
        pixels_step = math.lcm(16, pipeline.vae_scale_factor_spatial * config.patch_size)
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )
        if not config.guidance_embeds and sampling.guidance_scale != 1:
            raise ConfigError(
                "sampling.guidance_scale must be 1 for this checkpoint, whose transformer does not "
                f"read it (guidance_embeds is false), got {sampling.guidance_scale:g}; guidance by "
                "the negative prompt is sampling.true_guidance_scale"
            )

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return Llama's embeddings of the prompt inside its template, and CLIP's pooled one.

        Raises:
            CheckpointError: The tokenizer is not that which the template was made for.
        """
        template = DEFAULT_PROMPT_TEMPLATE["template"]
        start = _template_tokens(pipeline.tokenizer)
        num_tokens = len(pipeline.tokenizer(template.format(prompt)).input_ids) - start
        check_length(prompt, num_tokens, sampling)
        pooled_tokens = len(pipeline.tokenizer_2(prompt).input_ids)
        check_length(prompt, pooled_tokens, sampling, CLIP_TOKENS, "the CLIP text encoder")
        embeds_BLD, pooled_BD, mask_BL = pipeline.encode_prompt(
            prompt,
            device=pipeline.text_encoder.device,
            max_sequence_length=sampling.max_sequence_length,
        )
        return Embedding(
            {
                "prompt_embeds": embeds_BLD[0, mask_BL[0].bool()].cpu().clone(),
                "pooled_prompt_embeds": pooled_BD[0].cpu().clone(),
            }
        )

    def text_width(self, transformer: Any) -> int:
        """Return the width of Llama's embeddings."""
        return transformer.config.text_embed_dim

    def example_text(self, transformer: Any, num_tokens: int) -> Embedding:
        """Return zeros: embeddings [L, D] and a pooled one [P]."""
        pooled = torch.zeros(transformer.config.pooled_projection_dim)
        tokens = torch.zeros(num_tokens, self.text_width(transformer))
        return Embedding({"prompt_embeds": tokens, "pooled_prompt_embeds": pooled})

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the embeddings [B, L, D], the mask [B, L] and the pooled ones [B, P]."""
        pooled = torch.stack([embedding["pooled_prompt_embeds"] for embedding in embeds])
        arguments = super().text_arguments(embeds, sampling, dtype, device)
        return {**arguments, "pooled_prompt_embeds": pooled.to(device, dtype)}

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same under the transformer's names."""
        text = super().transformer_text(arguments)
        return {**text, "pooled_projections": arguments["pooled_prompt_embeds"]}

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return timesteps and a thousand times the guidance, rounded as by the pipeline.

        It passes both in the type of the transformer: in bfloat16, a timestep of 954.5 is 956.
        """
        scale = torch.full_like(t_B, sampling.guidance_scale, dtype=x_t_BCTHW.dtype)
        timesteps = t_B * pipeline.scheduler.config["num_train_timesteps"]
        return {"timestep": timesteps.to(x_t_BCTHW.dtype), "guidance": scale * 1000}

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks of two streams; those of one stream come after them."""
        return transformer.transformer_blocks

    def keep_blocks(self, transformer: Any, count: int) -> None:
        """Remove the blocks of one stream too, and what makes the text for a block that is gone."""
        super().keep_blocks(transformer, count)
        transformer.single_transformer_blocks = nn.ModuleList()
        last = transformer.transformer_blocks[-1]
        last.attn.to_add_out, last.ff_context = nn.Identity(), nn.Identity()

    def num_blocks(self, transformer_config: Mapping[str, Any]) -> dict[str, int]:
        """Return the numbers of blocks of two streams and of one."""
        kinds = ("num_layers", "num_single_layers")
        return {kind: transformer_config[kind] for kind in kinds}

    def encoder_tokens(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig
    ) -> int:
        """Return what each encoder reads: Llama the template too."""
        template: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]
        is_clip = encoder == "text_encoder_2"
        return CLIP_TOKENS if is_clip else template + sampling.max_sequence_length

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of scaled latents."""
        x0_BCTHW = x0_BCTHW / pipeline.vae.config.scaling_factor
        return pipeline.vae.decode(x0_BCTHW, return_dict=False)[0]

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return scaled latents."""
        latents = pipeline.vae.encode(pixels_B3FHW).latent_dist.mode()
        return latents * pipeline.vae.config.scaling_factor


def _template_tokens(tokenizer: Any) -> int:
    """Return how many tokens come before the prompt, of which the pipeline drops a fixed number.

    Raises:
        CheckpointError: The tokenizer makes more or fewer of the template's beginning (some
            versions of transformers lose spaces and line breaks), or pads on the left: other tokens
            than the prompt's would be read, without a word.
    """
    dropped: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]
    before = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")[0]
    found = len(tokenizer(before).input_ids)
    if found != dropped or tokenizer.padding_side != "right":
        raise CheckpointError(
            f"policy.path: its tokenizer (a {type(tokenizer).__name__}) makes {found} tokens of "
            f"what HunyuanVideo's template puts before a prompt and pads on the "
            f"{tokenizer.padding_side}, but the pipeline counts on {dropped} and on the right: "
            "download the tokenizer again, or try another version of transformers"
        )
    return dropped
