"""What one family of diffusers text-to-video models does differently from the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.family_sizes import HasSizes
from videorl.policies.family_texts import ReadsPrompts
from videorl.policies.layouts import TWO_TRANSFORMERS
from videorl.policies.steps import Change
from videorl.protocols import Process

CHECKPOINTED_ABOVE = 500_000_000
"""Parameters of a transformer above which `policy.gradient_checkpointing: auto` is on, unless the
family has a number of its own as `checkpointed_above`."""


class Family(ReadsPrompts, HasSizes, Protocol):
    """What the file of a family provides; `loading` and `PipelinePolicy` do the rest.

    `PlainFamily` has what most have in common. Latents are [B, C, T, H, W] wherever a family is
    given them, but for what `unpacked` takes and `packed` returns.

    One whose pipeline cannot take a single step says by an attribute `fewest_steps` how many.
    For `sampling.guidance_in_one_batch` it says by an attribute `guides_in_one_call` whether its
    pipeline itself calls the transformer once per step of guidance (CogVideoX), or twice (Wan).
    """

    @property
    def pipeline_class(self) -> Any:
        """The stock text-to-video pipeline; checkpoints must name it in `model_index.json`."""
        ...

    @property
    def vae_dtype(self) -> torch.dtype | None:
        """Compute type of the VAE; None = that of the transformer."""
        ...

    @property
    def decodes_float32(self) -> bool:
        """Whether `decode` is given float32, and rounds it where the pipeline does."""
        ...

    @property
    def prediction_sign(self) -> int:
        """1, or -1 if the transformer predicts the negative of `process.target`."""
        ...

    @property
    def negative_guidance(self) -> str:
        """The setting of `sampling` that guides by the negative prompt where it is above 1."""
        ...

    @property
    def model_classes(self) -> Mapping[str, Any]:
        """The class of each model in `model_index.json`, `text_encoder_2` and the like included."""
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

    def prepare(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Tell a new pipeline what `process` and `conditions` must know of the recipe's videos.

        Args:
            pipeline: Has its transformer and scheduler, and fits the recipe.
            sampling: The size and frame rate of videos.
        """
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

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return what every call of the stock pipeline takes beside prompts, noise and callbacks.

        Raises:
            ConfigError: A setting is on that this pipeline lacks.
        """
        ...

    def inputs(
        self,
        pipeline: Any,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Any]:
        """Return all that the transformer is called with at a step, as the pipeline calls it.

        Args:
            pipeline: Must have its transformer and scheduler.
            x_t_BCTHW: Noisy latents, on the transformer's device and in its type.
            t_B: Times in [0, 1], float32, on that device; 1 is pure noise.
            arguments: What `text_arguments` returns.
            sampling: Frame rate and the like, which some transformers are given.
        """
        ...

    def put_out(
        self,
        pipeline: Any,
        outputs: Sequence[Tensor],
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        sampling: SamplingConfig,
    ) -> Tensor:
        """Return what the transformer predicts, as `unpacked` takes it.

        Args:
            pipeline: Must have its transformer.
            outputs: What the transformer returned.
            x_t_BCTHW: Noisy latents in the type in which they came, on the same device.
            t_B: Times in [0, 1], float32.
            sampling: Size and frame rate of the videos.
        """
        ...

    def given_frames(self, pipeline: Any) -> int:
        """Return the latent frames at the beginning that prompts give, and no loss looks at."""
        ...

    def predicted(
        self,
        prediction_BCTHW: Tensor,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
    ) -> Tensor:
        """Return a prediction of the process, completed where the model predicts nothing.

        Args:
            prediction_BCTHW: What the transformer put out, with the sign of the process.
            x_t_BCTHW: Noisy latents in the type in which they came, on the same device.
            t_B: Times in [0, 1], float32.
            arguments: What `text_arguments` returns.
        """
        ...

    def call(self, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        """Return what the stock pipeline's own call returns.

        Args:
            pipeline: Must have its transformer and scheduler.
            arguments: Of the call; those of the prompts are what `text_arguments` returns.
        """
        ...

    def changed_steps(
        self, pipeline: Any, change: Change, sampling: SamplingConfig
    ) -> AbstractContextManager[None]:
        """Inside the block, give the pipeline's solver what `change` makes of predictions.

        Args:
            pipeline: Must have its transformer and scheduler.
            change: Is called with prediction and latents as `packed` returns them, and a timestep.
            sampling: Size and frame rate of the videos.
        """
        ...

    def packed(self, pipeline: Any, latents_BCTHW: Tensor) -> Tensor:
        """Return latents as the pipeline, its transformer and its scheduler have them."""
        ...

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return latents [B, C, T, H, W] of what `packed` returns."""
        ...

    def step_times(self, pipeline: Any) -> Tensor:
        """Return the times in [0, 1] at which the scheduler's steps begin, falling from the noise.

        They may differ from `times` of its timesteps, which a scheduler may round.

        Args:
            pipeline: Its scheduler must be as the last call left it.
        """
        ...

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the transformer's arguments other than latents and text, as the pipeline does.

        Args:
            pipeline: Must have its transformer and scheduler.
            x_t_BCTHW: Noisy latents, on the transformer's device.
            t_B: Times in [0, 1], float32, on that device; 1 is pure noise.
            sampling: Frame rate and the like, which some transformers are given.
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

    def keep_blocks(self, transformer: Any, count: int) -> None:
        """Remove all blocks after the first `count` of `blocks`."""
        ...

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return pixels [B, 3, F, H, W] in [-1, 1], as the pipeline does.

        Args:
            pipeline: Must have its VAE.
            x0_BCTHW: Latents on the VAE's device and in its type.
            num_frames: Number F of pixel frames to return.
        """
        ...

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Return the latents [B, C, T, H, W] of pixels in [-1, 1].

        They are the mean of the VAE's posterior, scaled like the pipeline's samples, so that
        `decode` inverts this.
        """
        ...


def is_guided(family: Family, sampling: SamplingConfig) -> bool:
    """Return whether videos are sampled with guidance by the negative prompt."""
    return getattr(sampling, family.negative_guidance) > 1


def pipeline_kind(family: Family) -> str:
    """Return what `layouts.kind_of` must say of the checkpoints of a family."""
    second = TWO_TRANSFORMERS if "transformer_2" in family.model_classes else ""
    return family.pipeline_class.__name__ + second


def latent_size(
    family: Family, vae_config: Mapping[str, Any], sampling: SamplingConfig
) -> tuple[int, int, int]:
    """Return frames, rows and columns of a video's latents, without frames that fill up a patch."""
    _, spatial = family.strides(vae_config)
    frames = family.latent_frames(sampling.num_frames, vae_config)
    return frames, sampling.height // spatial, sampling.width // spatial


def pixel_frames(family: Family, vae_config: Mapping[str, Any], latent_frames: int) -> int:
    """Return the frames of the shortest video that has so many latent frames, or more."""
    lengths = itertools.count(1)
    return next(n for n in lengths if family.latent_frames(n, vae_config) >= latent_frames)


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


def check_steps(sampling: SamplingConfig, fewest: int) -> None:
    """Check that the pipeline can take so few steps.

    Raises:
        ConfigError: `sampling.num_inference_steps` is less than `fewest`.
    """
    if sampling.num_inference_steps < fewest:
        raise ConfigError(
            f"sampling.num_inference_steps must be {fewest} or more for this model, whose schedule "
            f"has two ends, got {sampling.num_inference_steps}"
        )
