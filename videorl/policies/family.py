"""What one family of diffusers text-to-video models does differently from the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.protocols import Process

CHECKPOINTED_ABOVE = 500_000_000
"""Parameters of a transformer above which `policy.gradient_checkpointing: auto` is on, unless the
family has a number of its own as `checkpointed_above`."""


class Family(Protocol):
    """What the file of a family provides; `loading` and `PipelinePolicy` do the rest."""

    @property
    def pipeline_class(self) -> Any:
        """The stock text-to-video pipeline; checkpoints must name it in `model_index.json`."""
        ...

    @property
    def vae_dtype(self) -> torch.dtype | None:
        """Compute type of the VAE; None = that of the transformer."""
        ...

    @property
    def frames_first(self) -> bool:
        """Whether the pipeline's latents are [B, T, C, H, W] instead of [B, C, T, H, W]."""
        ...

    @property
    def attends_to_padding(self) -> bool:
        """Whether the transformer reads the padding of a prompt, which embeddings then include."""
        ...

    @property
    def model_classes(self) -> Mapping[str, Any]:
        """The classes of `transformer`, `vae` and `text_encoder`."""
        ...

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the pipeline's constructor takes beside its parts.

        Args:
            folder: Folder of the checkpoint, named in errors.
            index: Content of its `model_index.json`.

        Raises:
            ConfigError: The pipeline is right, but this model cannot be trained.
        """
        ...

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return pixel frames per latent frame, and pixels per latent row or column."""
        ...

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse a video size that the pipeline would change silently; see `check_multiples`.

        Raises:
            ConfigError: Names the setting, its value, and the values it may have.
        """
        ...

    def process(self, scheduler: Any) -> Process:
        """Return the noising process that the checkpoint was trained with."""
        ...

    def clean(self, prompt: str) -> str:
        """Return the text that the pipeline gives to its tokenizer."""
        ...

    def step_times(self, pipeline: Any) -> Tensor:
        """Return the times in [0, 1] at which the scheduler's steps begin, falling from the noise.

        They may differ from `times` of its timesteps, which a scheduler may round.

        Args:
            pipeline: Its scheduler must be as the last call left it.
        """
        ...

    def conditions(self, pipeline: Any, x_t: Tensor, t_B: Tensor) -> dict[str, Any]:
        """Return the transformer's arguments other than latents and text, as the pipeline does.

        Args:
            pipeline: Must have its transformer and scheduler.
            x_t: Noisy latents in the pipeline's order of axes, on the transformer's device.
            t_B: Times in [0, 1], float32, on that device; 1 is pure noise.
        """
        ...

    def times(self, pipeline: Any, timestep: Tensor) -> Tensor:
        """Return the times in [0, 1] of the scheduler's timesteps; `conditions` is the inverse.

        Args:
            pipeline: Must have its scheduler.
            timestep: Any shape, as the pipeline passes it to `scheduler.step`.
        """
        ...

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the transformer's blocks; their first output is the video tokens [B, N, D]."""
        ...

    def text_width(self, transformer: Any) -> int:
        """Return the width D of the prompt embeddings [L, D] that the transformer reads."""
        ...

    def decode(self, pipeline: Any, x0: Tensor, num_frames: int) -> Tensor:
        """Return pixels [B, 3, F, H, W] in [-1, 1], as the pipeline does.

        Args:
            pipeline: Must have its VAE.
            x0: Latents in the pipeline's order of axes, on the VAE's device and in its type.
            num_frames: Number F of pixel frames to return.
        """
        ...

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return the latents of pixels in [-1, 1], in the pipeline's order of axes.

        They are the mean of the VAE's posterior, scaled like the pipeline's samples, so that
        `decode` inverts this.
        """
        ...


def swapped(family: Family, latents: Tensor) -> Tensor:
    """Bring latents [B, C, T, H, W] into the axis order of the family's pipeline, or back."""
    return latents.transpose(1, 2) if family.frames_first else latents


def check_multiples(sampling: SamplingConfig, *, frames_step: int, pixels_step: int) -> None:
    """Check that the video consists of whole latent frames and patches.

    Raises:
        ConfigError: The number of frames is not a multiple of `frames_step` plus 1, or height or
            width is not a multiple of `pixels_step`.
    """
    if sampling.num_frames % frames_step != 1:
        raise ConfigError(
            f"sampling.num_frames must be a multiple of {frames_step} plus 1 for this model, "
            f"got {sampling.num_frames}"
        )
    if sampling.height % pixels_step or sampling.width % pixels_step:
        raise ConfigError(
            f"sampling.height and sampling.width must be multiples of {pixels_step} for this "
            f"model, got {sampling.height} and {sampling.width}"
        )
