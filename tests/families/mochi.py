"""A tiny Mochi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily
from videorl.pretraining.checkpoint import build_tokenizer


def save_tiny_mochi(folder: Path, *, num_layers: int = 1) -> Path:
    """Write a Mochi checkpoint: two heads of 16, latents [12, 3, 4, 4] for 13 frames 32×32.

    Strides and latent channels are the published ones, which the pipeline has fixed.
    """
    from diffusers import (
        AutoencoderKLMochi,
        FlowMatchEulerDiscreteScheduler,
        MochiPipeline,
        MochiTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    vae: dict[str, Any] = {
        "encoder_block_out_channels": (32, 32, 32, 32),
        "decoder_block_out_channels": (32, 32, 32, 32),
        "layers_per_block": (1, 1, 1, 1, 1),
        "scaling_factor": 0.7,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer: Any = build_tokenizer()
        encoder = T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=16, d_ff=32, num_layers=1, num_heads=1
        )
        transformer: Any = MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=num_layers,
            pooled_projection_dim=16,
            text_embed_dim=16,
            time_embed_dim=16,
            max_sequence_length=16,
        ).eval()
        transformer.pos_frequencies.data.normal_()  # 0 in a new model
        pipeline = MochiPipeline(
            tokenizer=tokenizer,
            text_encoder=T5EncoderModel(encoder).eval(),
            vae=AutoencoderKLMochi(**vae).eval(),
            transformer=transformer,
            # As published.
            scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
            force_zeros_for_empty_prompt=True,
        )
    pipeline.save_pretrained(str(folder))
    return folder


TINY = TinyFamily(
    save_tiny_mochi,
    (12, 3, 4, 4),
    lambda timestep: 1 - timestep / 1000,
    settings={"num_frames": 13, "height": 32, "width": 32},
    fewest_steps=2,
    decodes_by_frames=False,
)
