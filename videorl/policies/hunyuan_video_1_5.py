"""HunyuanVideo 1.5, a text-to-video model of 8.3 billion parameters (2511.18870)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
    HunyuanVideo15AttnBlock,
)
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from diffusers.pipelines.hunyuan_video1_5 import pipeline_hunyuan_video1_5 as stock
from torch import Tensor, nn
from transformers import T5EncoderModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.family import check_multiples
from videorl.policies.plain_family import PlainFamily
from videorl.policies.steps import after_steps
from videorl.policies.texts import check_length, pad

GLYPH_TOKENS = 256
"""What the second text encoder reads of the words in quotes, in the pipeline's own code."""
TEMPLATE_TOKENS = 108
"""What the pipeline drops of the first one's output, because it comes before the prompt."""


class _NoVAE:
    """What the stock pipeline reads of a VAE when it is made."""

    temporal_compression_ratio, spatial_compression_ratio = 4, 16

    def __init__(self, latent_channels: int) -> None:
        self.config = SimpleNamespace(latent_channels=latent_channels)


class HunyuanVideo15Pipeline(CogVideoXLoraLoaderMixin, stock.HunyuanVideo15Pipeline):
    """The stock pipeline, which opens without a VAE too, and reads and writes adapters.

    Stock diffusers reads an adapter of this model only by its transformer's `load_lora_adapter`,
    which is what CogVideoX's pipeline calls, and nothing else.
    """

    @functools.wraps(stock.HunyuanVideo15Pipeline.__init__)
    def __init__(self, **parts: Any) -> None:
        vae, transformer = parts["vae"], parts["transformer"]
        if vae is None:  # the stock one reads its sizes all the same
            parts["vae"] = _NoVAE(32 if transformer is None else transformer.config.out_channels)
        super().__init__(**parts)
        self.register_modules(vae=vae)


class HunyuanVideo15(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    Beside the latents the transformer reads those of a first frame and a mask, and the features of
    a picture: all zeros, as the pipeline has them for videos from text.
    """

    pipeline_class = HunyuanVideo15Pipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": HunyuanVideo15Transformer3DModel,
            "vae": AutoencoderKLHunyuanVideo15,
            "text_encoder": Qwen2_5_VLTextModel,
            "text_encoder_2": T5EncoderModel,
        }
    )
    guides_in_one_call = False
    vae_lengths = (33, 35)
    """Whole in one piece, as the published length is: tiles attend over all frames at once."""
    glyph_tokens = GLYPH_TOKENS
    checkpointed_above = 500_000_000
    """The published ones have 8.3 billion parameters."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return an empty dict.

        Raises:
            ConfigError: The checkpoint has another kind of guidance than `sampling` can set.
        """
        found = (index.get("guider") or [None])[-1]
        if found != "ClassifierFreeGuidance":
            raise ConfigError(
                f"policy.path: {folder} guides by {found}, but sampling.guidance_scale is that of "
                "a ClassifierFreeGuidance: give a checkpoint with this guider"
            )
        return {}

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression."""
        temporal = vae_config.get("temporal_compression_ratio", 4)
        return temporal, vae_config.get("spatial_compression_ratio", 16)

    def latent_channels(self, transformer_config: Mapping[str, Any]) -> int:
        """Return the output channels: the input has those of a first frame and a mask too."""
        return transformer_config["out_channels"]

    def prepare(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Tell engines that weights may get no gradient: nothing reads the last block's text."""
        pipeline.transformer.may_skip_weights = True

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse sizes that the pipeline would round.

        Raises:
            ConfigError: See `check_multiples`.
        """
        pixels_step = pipeline.vae_scale_factor_spatial * pipeline.transformer.config.patch_size
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return Qwen's embeddings of the prompt inside its template, ByT5's of words in quotes.

        Raises:
            CheckpointError: The tokenizer is not that which the template was made for.
        """
        num_tokens = len(_tokens(pipeline, prompt)) - TEMPLATE_TOKENS
        check_length(prompt, num_tokens, sampling)
        if (glyphs := stock.extract_glyph_texts(prompt)) is not None:
            num_glyphs = len(pipeline.tokenizer_2(glyphs).input_ids)
            check_length(
                prompt, num_glyphs, sampling, self.glyph_tokens, "the encoder of quoted words"
            )
        pipeline.tokenizer_max_length = sampling.max_sequence_length
        pipeline.tokenizer_2_max_length = self.glyph_tokens
        encoded = pipeline.encode_prompt(prompt, device=pipeline.text_encoder.device)
        embeds_BLD, mask_BL, embeds_2_BLD, mask_2_BL = encoded
        return Embedding(
            {
                "prompt_embeds": embeds_BLD[0, mask_BL[0].bool()].cpu(),
                "prompt_embeds_2": embeds_2_BLD[0, mask_2_BL[0].bool()].cpu(),
            }
        )

    def example_text(self, transformer: Any, num_tokens: int) -> Embedding:
        """Return zeros [L, D] of both text encoders."""
        config = transformer.config
        return Embedding(
            {
                "prompt_embeds": torch.zeros(num_tokens, config.text_embed_dim),
                "prompt_embeds_2": torch.zeros(self.glyph_tokens, config.text_embed_2_dim),
            }
        )

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the embeddings [B, L, D] and masks [B, L] of both text encoders."""
        arguments = dict[str, Tensor]()
        for number, length in (("", sampling.max_sequence_length), ("_2", self.glyph_tokens)):
            rows = [embedding[f"prompt_embeds{number}"] for embedding in embeds]
            places_L = torch.arange(length, device=device)
            masks = torch.stack([places_L < len(row) for row in rows])
            arguments[f"prompt_embeds{number}"] = pad(rows, length, dtype, device)
            arguments[f"prompt_embeds_mask{number}"] = masks.to(dtype)
        return arguments

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same under the transformer's names."""
        return {
            "encoder_hidden_states": arguments["prompt_embeds"],
            "encoder_attention_mask": arguments["prompt_embeds_mask"],
            "encoder_hidden_states_2": arguments["prompt_embeds_2"],
            "encoder_attention_mask_2": arguments["prompt_embeds_mask_2"],
        }

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return timesteps, rounded as by the pipeline, and the features of no picture.

        It passes a timestep in the type of the transformer: in bfloat16, 954.5 is 956.
        """
        timesteps = t_B * pipeline.scheduler.config["num_train_timesteps"]
        shape = (len(x_t_BCTHW), pipeline.vision_num_semantic_tokens, pipeline.vision_states_dim)
        return {
            "timestep": timesteps.to(x_t_BCTHW.dtype),
            # Not of the latents: plans must know these values, which the transformer looks at.
            "image_embeds": torch.zeros(shape, dtype=x_t_BCTHW.dtype, device=x_t_BCTHW.device),
        }

    def inputs(
        self,
        pipeline: Any,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Any]:
        """Return latents with those of no first frame and an empty mask, text and `conditions`."""
        batch, channels, *size = x_t_BCTHW.shape
        nothing = x_t_BCTHW.new_zeros(batch, channels + 1, *size)
        return {
            **super().inputs(pipeline, x_t_BCTHW, t_B, arguments, sampling),
            "hidden_states": torch.cat([x_t_BCTHW, nothing], dim=1),
        }

    def call(self, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        """Call the pipeline, which has its guidance in a part and knows no callbacks."""
        given = dict(arguments)
        scale, callback = given.pop("guidance_scale"), given.pop("callback_on_step_end", None)
        pipeline.guider.guidance_scale = scale if scale > 1 else 1.0  # 1 = none
        with after_steps(pipeline, callback):
            return pipeline(**given)

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks, all of two streams; their second output is the text."""
        return transformer.transformer_blocks

    def keep_blocks(self, transformer: Any, count: int) -> None:
        """Remove what makes the text for a block that is gone, too."""
        super().keep_blocks(transformer, count)
        last = transformer.transformer_blocks[-1]
        last.attn.to_add_out, last.ff_context = nn.Identity(), nn.Identity()

    def encoder_tokens(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig
    ) -> int:
        """Return what each encoder reads: Qwen the template too."""
        is_glyphs = encoder == "text_encoder_2"
        return self.glyph_tokens if is_glyphs else TEMPLATE_TOKENS + sampling.max_sequence_length

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of scaled latents, of one video at a time: the VAE fails with two."""
        make_masks_by_frames(pipeline.vae)
        videos = (x0_BCTHW / pipeline.vae.config.scaling_factor).split(1)
        return torch.cat([pipeline.vae.decode(video, return_dict=False)[0] for video in videos])

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return scaled latents."""
        make_masks_by_frames(pipeline.vae)
        videos = pixels_B3FHW.split(1)  # as in `decode`
        latents = torch.cat([pipeline.vae.encode(video).latent_dist.mode() for video in videos])
        return latents * pipeline.vae.config.scaling_factor


def make_masks_by_frames(vae: nn.Module) -> None:
    """Let a VAE make the masks of its attention in a few writes instead of one for each token."""
    for block in vae.modules():
        if isinstance(block, HunyuanVideo15AttnBlock):
            vars(block)["prepare_causal_attention_mask"] = causal_mask


def causal_mask(
    n_frame: int,
    n_hw: int,
    dtype: torch.dtype,
    device: torch.device,
    batch_size: int | None = None,
) -> Tensor:
    """Return the very mask [S, S] or [B, S, S] of diffusers: 0 up to a token's own frame."""
    length = n_frame * n_hw
    mask = torch.full((length, length), float("-inf"), dtype=dtype, device=device)
    for start in range(0, length, n_hw):
        mask[start : start + n_hw, : start + n_hw] = 0
    return mask if batch_size is None else mask.unsqueeze(0).expand(batch_size, -1, -1)


def _tokens(pipeline: Any, prompt: str) -> list[int]:
    """Return the tokens of a prompt inside its template.

    Raises:
        CheckpointError: The tokenizer makes more or fewer of the template's beginning than the
            pipeline drops, or pads on the left: other tokens than the prompt's would be read.
    """
    tokenizer, options = pipeline.tokenizer, {"add_generation_prompt": True, "tokenize": False}
    asked = stock.format_text_input([prompt, "{}"], pipeline.system_message)
    text, empty = tokenizer.apply_chat_template(asked, **options)
    found = len(tokenizer(empty.split("{}")[0]).input_ids)
    if found != TEMPLATE_TOKENS or tokenizer.padding_side != "right":
        raise CheckpointError(
            f"policy.path: its tokenizer (a {type(tokenizer).__name__}) makes {found} tokens of "
            f"what HunyuanVideo 1.5's template puts before a prompt and pads on the "
            f"{tokenizer.padding_side}, but the pipeline counts on {TEMPLATE_TOKENS} and on the "
            "right: download the tokenizer again, or try another version of transformers"
        )
    return tokenizer(text).input_ids
