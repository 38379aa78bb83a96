"""What the configurations of a family of models say of sizes, for plans too: a part of `Family`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from videorl.config import PolicyConfig, SamplingConfig


class HasSizes(Protocol):
    """Sizes of latents, and which parts of a model there are, without a model."""

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return pixel frames per latent frame, and pixels per latent row or column."""
        ...

    def latent_frames(self, num_frames: int, vae_config: Mapping[str, Any]) -> int:
        """Return the latent frames of a video of `num_frames` >= 1 frames."""
        ...

    def added_frames(
        self,
        transformer_config: Mapping[str, Any],
        latents: tuple[int, int, int],
        sampling: SamplingConfig,
    ) -> int:
        """Return the frames of latents behind the video's own, such as of its sound; for plans.

        Args:
            transformer_config: Of the transformer.
            latents: Frames, rows and columns of the video's own.
            sampling: Frames and frame rate of the video.
        """
        ...

    def latent_channels(self, transformer_config: Mapping[str, Any]) -> int:
        """Return the channels C of latents, which are not all that a transformer reads."""
        ...

    def num_blocks(self, transformer_config: Mapping[str, Any]) -> dict[str, int]:
        """Return the number of blocks of each kind, such as `{"num_layers": 30}`.

        Plans count two or three blocks of each kind instead of all. Blocks of a kind must need the
        same; the first and the last may differ from the others.
        """
        ...

    def shortened(
        self, transformer_config: Mapping[str, Any], blocks: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return the configuration of the same transformer with so many blocks of each kind.

        Args:
            transformer_config: Of the whole one.
            blocks: With the keys of `num_blocks`.
        """
        ...

    def encoder_tokens(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig
    ) -> int:
        """Return the most tokens that a text encoder runs on, a template's included, for plans.

        Args:
            encoder: Its name in `model_index.json`, such as `text_encoder_2`.
            config: Its configuration.
            sampling: Its `max_sequence_length`.
        """
        ...

    def encoder_arguments(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Return what a model that encodes texts is called with for the longest prompt, for plans.

        Args:
            encoder: Its name in `model_index.json`, such as `text_encoder_2`.
            config: Its configuration.
            sampling: Its `max_sequence_length`.
            dtype: That it computes in.
        """
        ...

    def forwards_per_step(self, sampling: SamplingConfig) -> int:
        """Return how often a step of the pipeline predicts for a video, for plans."""
        ...

    def trained_transformers(self, names: Sequence[str], config: PolicyConfig) -> Sequence[str]:
        """Return those of a checkpoint's transformers that a learner trains, for plans.

        It holds the others too, frozen.

        Args:
            names: In `model_index.json`: `transformer`, and `transformer_2` where there is one.
            config: Of the policy.
        """
        ...

    def offloads_transformers(self, config: PolicyConfig) -> bool:
        """Tell whether frozen weights of transformers not in use lie in host memory, for plans."""
        ...
