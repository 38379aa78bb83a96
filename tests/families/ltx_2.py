"""A tiny LTX-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.pretraining.checkpoint import build_tokenizer
from videorl.settings.model import SamplingConfig

SOUND_TOKENS = 25
"""Of 5 frames at 8 per second: 40 a second, 8 numbers each, in two frames of 16 places."""

_GEMMA: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "sliding_window": 8,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_TRANSFORMER: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "vae_scale_factors": (2, 8, 8),
    "audio_in_channels": 8,
    "audio_out_channels": 8,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "audio_hop_length": 100,
    "caption_channels": 16,
    "rope_type": "split",
}
_VAE: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8,),
    "down_block_types": ("LTX2VideoDownBlock3D",),
    "decoder_block_out_channels": (16,),
    "layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
    "spatio_temporal_scaling": (True,),
    "decoder_spatio_temporal_scaling": (True,),
    "decoder_inject_noise": (False, False),
    "downsample_type": ("spatiotemporal",),
    "upsample_type": ("spatiotemporal",),
    "upsample_residual": (True,),
    "upsample_factor": (2,),
    "patch_size": 4,
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 2,
    "scaling_factor": 0.7,
}
_AUDIO_VAE: dict[str, Any] = {
    "base_channels": 8,
    "ch_mult": (1, 1, 1),
    "num_res_blocks": 1,
    "resolution": 16,
    "latent_channels": 2,
    "mel_hop_length": 100,
    "mel_bins": 16,
}
_CONNECTORS: dict[str, Any] = {
    "caption_channels": 16,
    "text_proj_in_factor": 3,
    **{
        f"{half}_connector_{name}": value
        for half in ("video", "audio")
        for name, value in (
            ("num_attention_heads", 2),
            ("attention_head_dim", 8),
            ("num_layers", 1),
        )
    },
    "rope_type": "split",
}


def save_tiny_ltx_2(
    folder: Path,
    *,
    registers: int = 1,
    transformer: Mapping[str, Any] | None = None,
    connectors: Mapping[str, Any] | None = None,
) -> Path:
    """Write an LTX-2 checkpoint, latents [8, 3 + 2, 4, 4] for 5 frames 32×32 at 8 per second.

    Args:
        folder: Where to.
        registers: Of the connectors, which must divide the tokens of a prompt.
        transformer: Settings of the transformer that differ.
        connectors: Likewise.
    """
    from diffusers import (
        AutoencoderKLLTX2Audio,
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        LTX2Pipeline,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    own = {f"{half}_connector_num_learnable_registers": registers for half in ("video", "audio")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer: Any = build_tokenizer()
        gemma = Gemma3Config(
            text_config={**_GEMMA, "vocab_size": len(tokenizer)},
            vision_config=_VISION,
            mm_tokens_per_image=4,
        )
        vae: Any = AutoencoderKLLTX2Video(**_VAE).eval()
        audio_vae: Any = AutoencoderKLLTX2Audio(**_AUDIO_VAE).eval()
        for each in (vae, audio_vae):
            each.latents_mean.normal_()
            each.latents_std.uniform_(0.5, 1.5)
        pipeline = LTX2Pipeline(
            tokenizer=tokenizer,
            text_encoder=Gemma3ForConditionalGeneration(gemma).eval(),
            connectors=LTX2TextConnectors(**{**_CONNECTORS, **own, **(connectors or {})}).eval(),
            vae=vae,
            audio_vae=audio_vae,
            vocoder=LTX2Vocoder(
                in_channels=32,
                hidden_channels=8,
                upsample_kernel_sizes=[4],
                upsample_factors=[2],
                resnet_kernel_sizes=[3],
                resnet_dilations=[[1]],
            ).eval(),
            transformer=LTX2VideoTransformer3DModel(
                **{"num_layers": 1, **_TRANSFORMER, **(transformer or {})}
            ).eval(),
            # As published.
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.95,
                max_shift=2.05,
                base_image_seq_len=1024,
                max_image_seq_len=4096,
                shift_terminal=0.1,
            ),
        )
    pipeline.save_pretrained(str(folder))
    return folder


GUIDANCE: Mapping[str, Any] = {
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_rescale": 0.0,
}
"""Off, which is not the pipeline's default."""


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return the arguments of the stock pipeline's call."""
    return {
        **stock_options(sampling),
        **GUIDANCE,
        "frame_rate": sampling.fps,
        "audio_guidance_scale": sampling.guidance_scale,
    }


def both(picture_BNC: Tensor, sound_BLD: Tensor) -> Tensor:
    """Return tokens of both: what is left of the last frame is 0."""
    left = torch.zeros(len(picture_BNC), 7, 8)
    return torch.cat([picture_BNC, sound_BLD, left], dim=1)


class _Tiny(TinyFamily):
    def call(
        self,
        pipeline: Any,
        sampling: SamplingConfig,
        prompt: str,
        negative: str,
        seeds: Sequence[int],
        output_type: str = "latent",
    ) -> Any:
        """Keep the latents of both after the last step, before the pipeline scales them back."""
        kept: dict[str, Tensor] = {}

        def keep(_: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            kept.update(tensors)
            return {}

        names = ["latents", "audio_latents"]
        pipeline._callback_tensor_inputs = [*pipeline._callback_tensor_inputs, *names]
        found = pipeline(
            prompt=[prompt] * len(seeds),
            negative_prompt=[negative] * len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=output_type,
            return_dict=False,
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=names,
            **self.options(sampling),
        )[0]
        return both(*(kept[name] for name in names)) if output_type == "latent" else found

    def noisy(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the tokens of both."""
        return both(inputs["hidden_states"], inputs["audio_hidden_states"])

    def predicted(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the tokens of both."""
        return both(outputs[0], outputs[1])


TINY = _Tiny(
    save_tiny_ltx_2,
    (8, 5, 4, 4),
    lambda timestep: timestep / 1000,
    settings={"height": 32, "width": 32},
    options=options,
    fewest_steps=2,
    decodes_by_frames=False,
    has_files=False,
)
