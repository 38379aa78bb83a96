"""Decode a video with gradient without holding the activations of all its frames and pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videorl.errors import ConfigError

HOST = torch.device("cpu")
"""Where what pieces hand on to each other waits."""
_OVERLAP = 4
"""Neighbouring tiles share one part in so many of their side."""


@contextmanager
def tiled(vae: Any, side_px: int, latent_px: int) -> Iterator[None]:
    """Inside the block, let a VAE decode overlapping squares one after the other.

    It is diffusers' own `enable_tiling`. Tiles share a quarter of their side with the next, over
    which the picture fades linearly from one to the other. A tile does not see what is outside of
    it, so pixels differ from those of the whole where the decoder looks far: in group norms
    (CogVideoX) and in its attention.

    Args:
        vae: Of a diffusers pipeline.
        side_px: Of a tile; a frame that is not larger is decoded whole.
        latent_px: Pixels per latent row or column.

    Raises:
        ConfigError: The side is not a whole number of overlaps, or the VAE has no tiles.
    """
    step = _OVERLAP * latent_px
    if side_px < step or side_px % step:
        raise ConfigError(
            f"objective.decode_tile_px must be a multiple of {step} for this model, got {side_px}"
        )
    if hasattr(vae, "tile_sample_stride_height"):
        stride = side_px - side_px // _OVERLAP
        overlap = {f"tile_sample_stride_{side}": stride for side in ("height", "width")}
    elif hasattr(vae, "tile_overlap_factor_height"):
        overlap = {f"tile_overlap_factor_{side}": 1 / _OVERLAP for side in ("height", "width")}
    elif hasattr(vae, "tile_overlap_factor"):  # HunyuanVideo 1.5
        sides = {f"tile_latent_min_{side}": side_px // latent_px for side in ("height", "width")}
        overlap = {**sides, "tile_overlap_factor": 1 / _OVERLAP}
    else:
        raise ConfigError(
            f"objective.decode_tile_px must be 0 for this model: its {type(vae).__name__} decodes "
            "whole frames only"
        )
    before = {
        name: value for name, value in vars(vae).items() if "tile" in name or "tiling" in name
    }
    vae.enable_tiling(tile_sample_min_height=side_px, tile_sample_min_width=side_px, **overlap)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def check_tiles(vae: Any, side_px: int, latent_px: int, latents_BCTHW: Tensor) -> None:
    """Refuse tiles of a single row or column where a VAE mirrors its borders, which takes two.

    Args:
        vae: Of a diffusers pipeline.
        side_px: Of a tile, as `tiled` takes it.
        latent_px: Pixels per latent row or column.
        latents_BCTHW: What is to be decoded.

    Raises:
        ConfigError: The last tile of a row or column of tiles has a single latent.
    """
    if getattr(vae.config, "decoder_spatial_padding_mode", "zeros") != "reflect":
        return
    side = side_px // latent_px
    stride = side - side // _OVERLAP
    for name, size in zip(("height", "width"), latents_BCTHW.shape[-2:], strict=True):
        if size > side and size % stride == 1:
            raise ConfigError(
                f"objective.decode_tile_px={side_px} leaves a tile of {latent_px} pixels of "
                f"sampling.{name}={size * latent_px}, but this model's decoder mirrors its "
                "borders, which takes more: set another size of tiles, or 0"
            )


@contextmanager
def checkpointed(decoder: nn.Module, host: torch.device = HOST) -> Iterator[None]:
    """Inside the block, let each call of a VAE's `decoder` be computed again backwards.

    Causal ones decode a few latent frames per call, and hand on what the next frames need of
    them: Wan in a list that its decoder changes, CogVideoX as a second result. What was handed on
    is all that is kept of a call, in host memory; the activations are those of one call at a time.
    Others decode a whole clip per call, or a tile of it, as LTX-Video. The numbers are the same.

    Args:
        decoder: Of the VAE.
        host: Host memory; the plan counts with another device in its place.
    """
    decode = decoder.forward

    def forward(latents: Tensor, *conditions: Tensor | None, **options: Any) -> Any:
        kept = _moved(options, host)

        def run(latents: Tensor) -> tuple[Any, dict[str, Any]]:
            own = _moved(kept, latents.device)  # lists too: a second run begins as the first did
            return decode(latents, *conditions, **own), own

        result, changed = checkpoint(run, latents, use_reentrant=False)
        for name, value in options.items():
            if isinstance(value, list):
                value[:] = changed[name]
        return result

    decoder.forward = forward
    try:
        yield
    finally:
        decoder.forward = decode


def _moved(value: Any, device: torch.device) -> Any:
    """Return new lists and dicts of the same, their tensors on a device, with gradient."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [_moved(one, device) for one in value]
    if isinstance(value, dict):
        return {name: _moved(one, device) for name, one in value.items()}
    return value
