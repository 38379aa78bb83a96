"""A tiny Wan 2.2 with two transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.pretraining.checkpoint import build_components
from videorl.settings.model import SamplingConfig

BOUNDARY = 0.75
"""Between the second and the third of three steps."""


def save_tiny_wan_2_2(folder: Path, layers: int = 1) -> Path:
    """Write a checkpoint like `save_tiny_wan`'s, with a second transformer of other weights."""
    from diffusers import WanPipeline

    first, second = (
        build_components(seed, width=32, layers=layers, vae_width=16, text_width=16)
        for seed in (0, 1)
    )
    parts: Any = {**first, "transformer_2": second["transformer"]}
    WanPipeline(**parts, boundary_ratio=BOUNDARY).save_pretrained(str(folder))
    return folder


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return the arguments of the stock pipeline's call."""
    return {**stock_options(sampling), "guidance_scale_2": sampling.guidance_scale_2}


TINY = TinyFamily(
    save_tiny_wan_2_2,
    (12, 3, 4, 4),
    lambda timestep: timestep / 1000,
    settings={"guidance_scale_2": 2.0},
    options=options,
    transformers=("transformer", "transformer_2"),
)
