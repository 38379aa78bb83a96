"""What one family of models does with prompts: a part of `Family`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.embedding import Embedding

if TYPE_CHECKING:
    from PIL.Image import Image


class ReadsPrompts(Protocol):
    """From texts and pictures to the arguments of pipeline and transformer."""

    @property
    def takes_images(self) -> bool:
        """Whether every prompt carries a picture, which `encode_image` encodes.

        A built-in family that does is also named in `videorl.policies.FROM_IMAGES`.
        """
        ...

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return what the model reads of one prompt, on the CPU; as the pipeline encodes it.

        Args:
            pipeline: Must have its tokenizers and text encoders.
            prompt: Encoded alone: an embedding never depends on others in its batch.
            sampling: Its `max_sequence_length` and `long_prompts`.

        Raises:
            PromptError: The prompt is longer than a text encoder reads, and is not to be cut.
        """
        ...

    def encode_image(
        self, pipeline: Any, image: Image, sampling: SamplingConfig
    ) -> Mapping[str, Tensor]:
        """Return what the model reads of a prompt's picture, on the CPU, without a batch's axis.

        It is added to what `encode_text` returns, and called only if the family `takes_images`.

        Args:
            pipeline: Must have its VAE, and its image encoder if the model has one.
            image: In RGB, of any size.
            sampling: Size of the videos.
        """
        ...

    def example_text(self, transformer: Any, num_tokens: int) -> Embedding:
        """Return an embedding of zeros, of as many tokens, for plans and trials.

        Args:
            transformer: Of the family; may be on the meta device.
            num_tokens: Of the first text encoder.
        """
        ...

    def example_image(self, pipeline: Any, sampling: SamplingConfig) -> Mapping[str, Tensor]:
        """Return zeros in the shapes that `encode_image` returns; empty without pictures."""
        ...

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the pipeline's arguments for some prompts, padded and stacked.

        Those of the negative prompt are given under the same names after `negative_`.
        """
        ...

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the pipeline passes of `text_arguments` to its transformer."""
        ...
