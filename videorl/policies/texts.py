"""Prompts as stock pipelines measure and pad them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import ConfigError, PromptError
from videorl.policies.family import Family


def check_length(
    prompt: str,
    num_tokens: int,
    sampling: SamplingConfig,
    limit: int | None = None,
    reader: str = "a text encoder",
) -> None:
    """Refuse a prompt that a text encoder would cut off, unless it is to be cut.

    Args:
        prompt: Quoted in the error.
        num_tokens: Of the prompt.
        sampling: Its `long_prompts`, and its `max_sequence_length` if `limit` is None.
        limit: Tokens that the text encoder reads.
        reader: Which text encoder that is.

    Raises:
        PromptError: It has more tokens.
    """
    max_length = sampling.max_sequence_length if limit is None else limit
    if num_tokens <= max_length or sampling.long_prompts == "truncate":
        return
    where = "sampling.max_sequence_length is" if limit is None else f"{reader} reads"
    remedy = "shorten it, " if limit is not None else "shorten it, raise the limit, "
    raise PromptError(
        f"prompt {prompt[:80]!r} has {num_tokens} tokens, but {where} {max_length}: {remedy}"
        "or have it cut off by sampling.long_prompts=truncate"
    )


def check_negative_prompt(family: Family, pipeline: Any, sampling: SamplingConfig) -> None:
    """Refuse a negative prompt that is too long: every prompt would be left out because of it.

    Raises:
        ConfigError: It has more tokens than are read, and is not to be cut.
    """
    try:
        family.encode_text(pipeline, sampling.negative_prompt, sampling)
    except PromptError as error:
        raise ConfigError(f"sampling.negative_prompt: {error}") from error


def pad(
    prompt_embeds: Sequence[Tensor], max_length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Stack embeddings [L, D] to [B, max_length, D], zeros at the end, as `encode_prompt` pads."""
    shape = (len(prompt_embeds), max_length, prompt_embeds[0].shape[1])
    padded_BLD = torch.zeros(shape, dtype=dtype, device=device)
    for row_LD, embed_LD in zip(padded_BLD, prompt_embeds, strict=True):
        row_LD[: len(embed_LD)] = embed_LD
    return padded_BLD
