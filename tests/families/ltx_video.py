"""A tiny LTX-Video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.pretraining.checkpoint import build_tokenizer
from videorl.settings.model import SamplingConfig


def save_tiny_ltx_video(folder: Path, *, heads: int = 2, num_layers: int = 1, **vae: Any) -> Path:
    """Write an LTX-Video checkpoint of width 32, latents [8, 3, 8, 8] for 5 frames 32×32.

    Args:
        folder: Where to.
        heads: Of width 32 / heads.
        num_layers: Of the transformer.
        vae: Settings of the VAE that differ, such as `timestep_conditioning`.
    """
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    settings: dict[str, Any] = {
        "latent_channels": 8,
        "block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1),
        "spatio_temporal_scaling": (True, False),
        "decoder_spatio_temporal_scaling": (True, False),
        "decoder_inject_noise": (False, False, False),
        "upsample_residual": (False, False),
        "upsample_factor": (1, 1),
        "down_block_types": ("LTXVideoDownBlock3D",) * 2,
        "downsample_type": ("conv", "conv"),
        "patch_size": 2,
        "scaling_factor": 0.7,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer: Any = build_tokenizer()
        encoder = T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=16, d_ff=32, num_layers=1, num_heads=1
        )
        autoencoder: Any = AutoencoderKLLTXVideo(**{**settings, **vae}).eval()
        autoencoder.latents_mean.normal_()
        autoencoder.latents_std.uniform_(0.5, 1.5)
        pipeline = LTXPipeline(
            tokenizer=tokenizer,
            text_encoder=T5EncoderModel(encoder).eval(),
            vae=autoencoder,
            transformer=LTXVideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=heads,
                attention_head_dim=32 // heads,
                cross_attention_dim=32,
                caption_channels=16,
                num_layers=num_layers,
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


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return the arguments of the stock pipeline's call."""
    return {**stock_options(sampling), "frame_rate": sampling.fps}


TINY = TinyFamily(
    save_tiny_ltx_video,
    (8, 3, 8, 8),
    lambda timestep: timestep / 1000,
    settings={"height": 32, "width": 32},
    options=options,
    fewest_steps=2,
    decodes_by_frames=False,
)
