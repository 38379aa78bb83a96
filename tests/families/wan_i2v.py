"""Tiny Wan image-to-video models: one like Wan 2.1 I2V, one like Wan 2.2 TI2V."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.pretraining.checkpoint import LATENT_CHANNELS, build_components
from videorl.settings.model import SamplingConfig

PICTURE = Path(__file__).with_name("picture.png")
"""Of 24×20 pixels, so that it is resized for every video."""

_TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 1,
    "attention_head_dim": 32,
    "out_channels": LATENT_CHANNELS,
    "text_dim": 16,
    "freq_dim": 64,
    "ffn_dim": 64,
    "num_layers": 1,
    "cross_attn_norm": True,
}


def save_tiny_wan_i2v(folder: Path, *, is_ti2v: bool = False) -> Path:
    """Write a Wan image-to-video checkpoint, with latents [12, 3, 4, 4] for 5 frames 16×16.

    Args:
        folder: Where to.
        is_ti2v: With a time per token instead of a CLIP, under the name of the text-to-video
            pipeline, as Wan 2.2 TI2V-5B is published.
    """
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    parts: dict[str, Any] = dict(build_components(0, width=32, layers=1, text_width=16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if is_ti2v:
            parts["transformer"] = WanTransformer3DModel(
                in_channels=LATENT_CHANNELS, **_TRANSFORMER
            )
            WanPipeline(**parts, expand_timesteps=True).save_pretrained(str(folder))
            return folder
        # Noisy latents, as many mask channels as frames in a latent frame, latents of the picture.
        parts["transformer"] = WanTransformer3DModel(
            in_channels=2 * LATENT_CHANNELS + 2,
            image_dim=32,
            added_kv_proj_dim=32,
            **_TRANSFORMER,
        )
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        parts["image_encoder"] = CLIPVisionModel(vision).eval()
    size = {"height": 16, "width": 16}
    parts["image_processor"] = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    WanImageToVideoPipeline(**parts).save_pretrained(str(folder))
    return folder


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return what the stock pipeline is called with, the picture included."""
    return {**stock_options(sampling), "image": Image.open(PICTURE).convert("RGB")}


TINY = TinyFamily(
    save_tiny_wan_i2v,
    (LATENT_CHANNELS, 3, 4, 4),
    lambda timestep: timestep / 1000,
    settings={"max_sequence_length": 512},
    options=options,
    image=str(PICTURE),
)
