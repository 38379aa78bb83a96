"""The VAE of a stock pipeline: latents to pixels and back, as the pipeline does it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import ConfigError, VideoError
from videorl.policies.decoding import HOST, check_tiles, checkpointed, tiled
from videorl.policies.family import Family
from videorl.types import Video

_PIXELS_AT_ONCE = 2**22
"""Decoding small clips together is twice as fast; a single 480p clip already has this many."""

_TILED_ABOVE = 2**20
"""Pixels of a frame above which it is decoded in tiles: more than any published size has."""


@dataclass(frozen=True)
class VideoCodec:
    """Decodes and encodes with a policy's VAE."""

    family: Family
    pipeline: Any
    """Must have its VAE."""
    sampling: SamplingConfig
    """Gives the size and frame rate of videos."""
    host: torch.device = HOST
    """Where `pixels` in pieces keeps what it hands on."""

    @torch.no_grad()
    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Decode latents as the stock pipeline does, in small batches if the videos are large.

        Raises:
            VideoError: Pixels are NaN: in 8 bits they would pass for a black picture.
        """
        sampling = self.sampling
        num_pixels = sampling.num_frames * sampling.height * sampling.width
        videos: list[Video] = []
        for some_BCTHW in latents_BCTHW.split(max(1, _PIXELS_AT_ONCE // num_pixels)):
            pixels_BF3HW = self.pixels(some_BCTHW)
            if not bool(pixels_BF3HW.isfinite().all()):
                raise VideoError("the decoded pixels hold NaN: there is no video to look at")
            videos += as_videos(pixels_BF3HW, sampling.fps)
        return videos

    def pixels(self, latents_BCTHW: Tensor, *, in_pieces: bool = False, tile_px: int = 0) -> Tensor:
        """Decode latents to pixels [B, F, 3, H, W] in [0, 1], differentiably, in float32.

        Args:
            latents_BCTHW: Of the policy.
            in_pieces: Keep no activations for the gradient, see `decoding.checkpointed`.
            tile_px: Side of the tiles that are decoded one by one, see `decoding.tiled`; 0 = whole
                frames.

        Raises:
            ConfigError: The VAE cannot decode such tiles.
        """
        vae, latent_px = self.pipeline.vae, self.pipeline.vae_scale_factor_spatial
        # Some pipelines undo the latents' scale in float32, before they round.
        dtype = torch.float32 if self.family.decodes_float32 else vae.dtype
        x0_BCTHW = latents_BCTHW.to(vae.device, dtype)
        if tile_px:
            check_tiles(vae, tile_px, latent_px, x0_BCTHW)
        with (
            checkpointed(vae.decoder, self.host) if in_pieces else nullcontext(),
            tiled(vae, tile_px, latent_px) if tile_px else nullcontext(),
        ):
            pixels = self.family.decode(self.pipeline, x0_BCTHW, self.sampling.num_frames)
        return self.pipeline.video_processor.postprocess_video(pixels, "pt").float()

    @torch.no_grad()
    def encode(self, video: Video) -> Tensor:
        """Return the latents [C, T, H, W] of a video in float32, on the CPU.

        Raises:
            VideoError: The video has another size than `sampling` says.
        """
        sampling, vae = self.sampling, self.pipeline.vae
        wanted = (sampling.num_frames, sampling.height, sampling.width)
        if video.frames.shape[:3] != wanted:
            raise VideoError(
                "has {} frames of {}×{} (height × width), ".format(*video.frames.shape[:3])
                + "but sampling asks for {} of {}×{}: cut and resize it first".format(*wanted)
            )
        pixels_3FHW = torch.from_numpy(video.frames).permute(3, 0, 1, 2) / 127.5 - 1
        latents = self.family.encode(self.pipeline, pixels_3FHW[None].to(vae.device, vae.dtype))
        return latents[0].float().cpu().contiguous()


def tile_large_frames(vae: Any, sampling: SamplingConfig) -> None:
    """Let a VAE work in tiles, as `sampling.vae_tiling` asks.

    Slices, which decode one video after the other, are not needed: `decode` takes few at once.

    Raises:
        ConfigError: This VAE has no tiles.
    """
    is_large = sampling.height * sampling.width > _TILED_ABOVE
    wanted = is_large if sampling.vae_tiling == "auto" else sampling.vae_tiling
    if wanted and not hasattr(vae, "enable_tiling"):
        raise ConfigError(
            f"sampling.vae_tiling must be false for this model: a {type(vae).__name__} has no tiles"
        )
    if wanted:
        vae.enable_tiling()
    elif hasattr(vae, "disable_tiling"):  # a server samples another size before
        vae.disable_tiling()


def put_channels_last(vae: torch.nn.Module) -> None:
    """Change only how the weights of convolutions lie in memory; what they are given follows."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in vae.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def as_videos(pixels_BF3HW: Tensor, fps: float) -> list[Video]:
    """Round pixels in [0, 1] to 8 bits."""
    frames_BFHW3 = (pixels_BF3HW * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    return [Video(frames.contiguous().cpu().numpy(), fps) for frames in frames_BFHW3]
