"""Prompts to embeddings, as stock pipelines make and pad them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import ConfigError, PromptError
from videorl.policies.family import Family


def encode_text(family: Family, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Tensor:
    """Return the embedding [L, D] of a prompt, on the CPU; padded if the model reads padding.

    Args:
        family: What its family does differently from others.
        pipeline: The stock pipeline, with tokenizer and text encoder.
        prompt: The text, encoded alone: an embedding never depends on others in its batch.
        sampling: Its `max_sequence_length` and `long_prompts`.

    Raises:
        PromptError: The prompt has more tokens than `max_sequence_length`, and is not to be cut.
    """
    num_tokens, max_length = _num_tokens(family, pipeline, prompt), sampling.max_sequence_length
    if num_tokens > max_length and sampling.long_prompts != "truncate":
        raise PromptError(f"prompt {prompt[:80]!r} {_too_long(num_tokens, max_length)}")
    padded_BLD, _ = pipeline.encode_prompt(
        prompt,
        do_classifier_free_guidance=False,
        max_sequence_length=max_length,
        device=pipeline.text_encoder.device,
    )
    num_rows = max_length if family.attends_to_padding else min(num_tokens, max_length)
    return padded_BLD[0, :num_rows].cpu().clone()


def check_negative_prompt(family: Family, pipeline: Any, sampling: SamplingConfig) -> None:
    """Refuse a negative prompt that is too long: every prompt would be left out because of it.

    Raises:
        ConfigError: It has more tokens than `max_sequence_length`, and is not to be cut.
    """
    num_tokens = _num_tokens(family, pipeline, sampling.negative_prompt)
    if num_tokens > sampling.max_sequence_length and sampling.long_prompts != "truncate":
        raise ConfigError(
            f"sampling.negative_prompt {_too_long(num_tokens, sampling.max_sequence_length)}"
        )


def _num_tokens(family: Family, pipeline: Any, prompt: str) -> int:
    return len(pipeline.tokenizer(family.clean(prompt)).input_ids)


def _too_long(num_tokens: int, max_length: int) -> str:
    return (
        f"has {num_tokens} tokens, but sampling.max_sequence_length is {max_length}: shorten it, "
        "raise the limit, or have it cut off by sampling.long_prompts=truncate"
    )


def pad(
    prompt_embeds: Sequence[Tensor], max_length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Stack embeddings [L, D] to [B, max_length, D], zeros at the end, as `encode_prompt` pads."""
    shape = (len(prompt_embeds), max_length, prompt_embeds[0].shape[1])
    padded_BLD = torch.zeros(shape, dtype=dtype, device=device)
    for row_LD, embed_LD in zip(padded_BLD, prompt_embeds, strict=True):
        row_LD[: len(embed_LD)] = embed_LD
    return padded_BLD
