"""A tiny CogVideoX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily
from videorl.pretraining.checkpoint import build_tokenizer


def save_tiny_cogvideox(folder: Path, *, is_5b: bool = False, **transformer: Any) -> Path:
    """Write a CogVideoX checkpoint: two heads of 16, latents [4, 3, 4, 4] for 5 frames 16×16.

    Args:
        folder: Where to.
        is_5b: With rotary positions and the 5B's schedule, instead of the 2B's.
        transformer: Settings of the transformer that differ, such as `patch_size_t` of 1.5.
    """
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
        "num_layers": 1,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 5,
        "temporal_compression_ratio": 2,
        "max_text_seq_length": 16,
        "use_rotary_positional_embeddings": is_5b,
    }
    vae: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 3,
        "up_block_types": ("CogVideoXUpBlock3D",) * 3,
        "block_out_channels": (8, 8, 8),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "temporal_compression_ratio": 2,
        "scaling_factor": 0.7,
        "sample_height": 16,
        "sample_width": 16,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer: Any = build_tokenizer()
        encoder = T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=16, d_ff=32, num_layers=1, num_heads=1
        )
        pipeline = CogVideoXPipeline(
            tokenizer=tokenizer,
            text_encoder=T5EncoderModel(encoder).eval(),
            vae=AutoencoderKLCogVideoX(**vae).eval(),
            transformer=CogVideoXTransformer3DModel(**{**settings, **transformer}).eval(),
            # As published, but for the shape of the models.
            scheduler=CogVideoXDDIMScheduler(
                clip_sample=False,
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                snr_shift_scale=1.0 if is_5b else 3.0,
                timestep_spacing="trailing",
            ),
        )
    pipeline.save_pretrained(str(folder))
    return folder


TINY = TinyFamily(save_tiny_cogvideox, (4, 3, 4, 4), lambda timestep: (timestep + 1) / 1000)
