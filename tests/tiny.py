"""Tiny but genuine checkpoints, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.pretraining.checkpoint import build_components, build_tokenizer, save_checkpoint
from videorl.recipes.reading import load_recipe
from videorl.settings.model import LoraConfig, PolicyConfig, SamplingConfig


def save_tiny_wan(folder: Path) -> Path:
    """Write a Wan checkpoint: one block of width 32, latents [12, 3, 4, 4] for 5 frames 16×16."""
    components = build_components(0, width=32, layers=1, vae_width=16, text_width=16)
    save_checkpoint(components, folder, torch.float32)
    return folder


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


def tiny_policy(
    folder: Path, family: str = "wan", *, rank: int = 4, initial: str | None = None
) -> PolicyConfig:
    """Return the configuration of a policy on a tiny checkpoint; rank 0 trains all weights."""
    lora = LoraConfig(rank=rank, alpha=2 * rank, initial=initial)
    if family == "cogvideox":
        lora.target_modules = load_recipe("cogvideox_2b").policy.lora.target_modules
    return PolicyConfig(family=family, path=str(folder), lora=lora)


def tiny_sampling(**changes: object) -> SamplingConfig:
    """Return sampling settings that fit the tiny checkpoints."""
    settings: dict[str, object] = {
        "num_frames": 5,
        "height": 16,
        "width": 16,
        "fps": 8.0,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "max_sequence_length": 16,
    }
    return SamplingConfig(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


BUILDERS = {"wan": save_tiny_wan, "cogvideox": save_tiny_cogvideox}
"""Policy family -> function that writes a tiny checkpoint of it into a folder."""
LATENT_SHAPES = {"wan": (12, 3, 4, 4), "cogvideox": (4, 3, 4, 4)}
"""Policy family -> latents [C, T, H, W] of `tiny_sampling` on it."""
TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "wan": lambda timestep: timestep / 1000,
    "cogvideox": lambda timestep: (timestep + 1) / 1000,
}
"""Policy family -> time in [0, 1] of a timestep of its tiny checkpoint's scheduler, by hand."""
