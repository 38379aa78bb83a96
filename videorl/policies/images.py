"""Prompts with pictures: how they are encoded, and which policies take them."""

from __future__ import annotations

from typing import Any

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import PromptError
from videorl.files.images import read_image
from videorl.policies.family import Family
from videorl.types import BLANK, Condition


def encode_condition(
    family: Family, pipeline: Any, sampling: SamplingConfig, prompt: Condition
) -> Embedding:
    """Return the embedding of a text, and of its picture if it has one.

    A text alone is encoded by any family: the negative prompt has no picture. Models that take one
    refuse to sample from it, or to learn.

    Raises:
        PromptError: See `Family.encode_text`; or the picture cannot be read, or the model takes
            none.
    """
    if isinstance(prompt, str):
        return family.encode_text(pipeline, prompt, sampling)
    embedding = family.encode_text(pipeline, prompt.text, sampling)
    if not family.takes_images:
        if prompt.image == BLANK:
            return embedding
        raise PromptError(
            f"prompt {prompt.text[:80]!r} has an image, but {type(family).__name__} makes videos "
            "from text alone: use an image-to-video model, or prompts without images"
        )
    image = read_image(prompt.image, sampling.width, sampling.height)
    return Embedding({**embedding.tensors, **family.encode_image(pipeline, image, sampling)})


def example(family: Family, pipeline: Any, sampling: SamplingConfig) -> Embedding:
    """Return an embedding of zeros of the largest size, for plans and trials.

    Args:
        family: Of the model.
        pipeline: Must have its transformer, which may be on the meta device.
        sampling: Of the recipe.
    """
    text = family.example_text(pipeline.transformer, sampling.max_sequence_length)
    return Embedding({**text.tensors, **family.example_image(pipeline, sampling)})
