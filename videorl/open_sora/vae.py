"""Open-Sora's VAE: an image VAE for each frame, and a second one over the frames of its latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from videorl.open_sora.temporal_vae import TemporalVAE

SPATIAL_SCALE = 0.18215
"""What the image VAE's latents are multiplied by; not the `scaling_factor` of its config."""
CHUNK_FRAMES = 17
"""Pixel frames that are compressed together, without a look at others (`micro_frame_size`)."""
FRAMES_PER_LATENT = 4
_AT_ONCE = 4
"""Frames that the image VAE takes at once; they do not see each other."""


class _Spatial(nn.Module):
    """The image VAE under the published name."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = AutoencoderKL(**config)


class OpenSoraVAE(ModelMixin, ConfigMixin):
    """Compresses pixels in [-1, 1] by 4 × 8 × 8 (frames, rows, columns), 17 frames at a time.

    Args:
        spatial: Configuration of the image VAE, a diffusers `AutoencoderKL`.
        temporal: Arguments of `TemporalVAE`.
        means: Of the four latent channels.
        deviations: Their standard deviations.
    """

    shift: Tensor
    scale: Tensor

    @register_to_config
    def __init__(
        self,
        spatial: Mapping[str, Any],
        temporal: Mapping[str, Any],
        means: Sequence[float] = (-0.10, 0.34, 0.27, 0.98),
        deviations: Sequence[float] = (3.85, 2.32, 2.33, 3.06),
    ) -> None:
        super().__init__()
        self.spatial_vae = _Spatial(spatial)
        self.temporal_vae = TemporalVAE(**temporal)
        for name, values in (("shift", means), ("scale", deviations)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1))

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent row or column."""
        return spatial_stride(self.config)

    @property
    def decoder(self) -> nn.Module:
        """What most of decoding is done by: the image VAE's decoder, called for a few frames."""
        return self.spatial_vae.module.decoder

    def encode(self, pixels_B3FHW: Tensor) -> Tensor:
        """Return the mean of the posterior as latents [B, 4, T, H, W] of unit scale."""
        frames = pixels_B3FHW.transpose(1, 2)
        images = frames.flatten(0, 1).split(_AT_ONCE)
        vae: Any = self.spatial_vae.module
        means = [vae.encode(part).latent_dist.mode() for part in images]
        latents = torch.cat(means).unflatten(0, frames.shape[:2]).transpose(1, 2) * SPATIAL_SCALE
        parts = [self.temporal_vae.encode(part)[0] for part in latents.split(CHUNK_FRAMES, dim=2)]
        return (torch.cat(parts, dim=2) - self.shift) / self.scale

    def decode(self, latents_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return pixels [B, 3, num_frames, 8 H, 8 W], in [-1, 1] but not cut off there."""
        latents = latents_BCTHW * self.scale.to(latents_BCTHW) + self.shift.to(latents_BCTHW)
        parts: list[Tensor] = []
        for part in latents.split(latent_frames(CHUNK_FRAMES), dim=2):
            frames = min(CHUNK_FRAMES, num_frames - CHUNK_FRAMES * len(parts))
            parts.append(self.temporal_vae.decode(part, frames))
        frames_BTCHW = (torch.cat(parts, dim=2) / SPATIAL_SCALE).transpose(1, 2)
        vae: Any = self.spatial_vae.module
        images = frames_BTCHW.flatten(0, 1).split(_AT_ONCE)
        pixels = torch.cat([vae.decode(part).sample for part in images])
        return pixels.unflatten(0, frames_BTCHW.shape[:2]).transpose(1, 2)


def spatial_stride(config: Mapping[str, Any]) -> int:
    """Return pixels per latent row or column, by the configuration of the VAE."""
    return 2 ** (len(config["spatial"]["block_out_channels"]) - 1)


def latent_frames(num_frames: int) -> int:
    """Return the latent frames of a number of pixel frames: 17 -> 5, 34 -> 10, 51 -> 15, 1 -> 1."""
    chunks, rest = divmod(num_frames, CHUNK_FRAMES)
    return chunks * -(-CHUNK_FRAMES // FRAMES_PER_LATENT) + -(-rest // FRAMES_PER_LATENT)
