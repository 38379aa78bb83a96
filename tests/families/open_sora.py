"""A tiny Open-Sora 1.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.pretraining.checkpoint import build_tokenizer
from videorl.settings.model import SamplingConfig

NETWORK: dict[str, Any] = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "caption_channels": 16,
    "model_max_length": 16,
    "input_sq_size": 16,
}
SPATIAL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 16,
}
TEMPORAL: dict[str, Any] = {"filters": 4, "num_res_blocks": 1, "num_groups": 2}


def save_tiny_open_sora(folder: Path) -> Path:
    """Write an Open-Sora checkpoint: latents [4, 5, 4, 4] for 17 frames 16×16."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import T5Config, T5EncoderModel

    from videorl.open_sora.pipeline import OpenSoraPipeline
    from videorl.open_sora.transformer import STDiT3
    from videorl.open_sora.vae import OpenSoraVAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer: Any = build_tokenizer()
        encoder = T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=16, d_ff=32, num_layers=1, num_heads=1
        )
        pipeline = OpenSoraPipeline(
            tokenizer=tokenizer,
            text_encoder=T5EncoderModel(encoder).eval(),
            vae=OpenSoraVAE(SPATIAL, TEMPORAL).eval(),
            transformer=STDiT3(**NETWORK).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )
    pipeline.save_pretrained(str(folder))
    return folder


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return what the pipeline is called with beside prompts and noise."""
    return {**stock_options(sampling), "fps": sampling.fps}


TINY = TinyFamily(
    save_tiny_open_sora,
    (4, 5, 4, 4),
    lambda timestep: timestep / 1000,
    settings={"num_frames": 17},
    options=options,
    reconstructed=lambda vae, pixels: vae.decode(vae.encode(pixels), pixels.shape[2]),
    latent_frames={17: 5, 33: 9}.__getitem__,
    has_tiles=False,
    training_shift=(16 / 512) * 5**0.5,
)
