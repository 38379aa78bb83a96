"""Prompts to embeddings, as stock pipelines make and pad them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videorl.errors import PromptError
from videorl.policies.family import Family


def encode_text(family: Family, pipeline: Any, prompt: str, max_length: int) -> Tensor:
    """Return the embedding [L, D] of a prompt, on the CPU; padded if the model reads padding.

    Args:
        family: What its family does differently from others.
        pipeline: The stock pipeline, with tokenizer and text encoder.
        prompt: The text, encoded alone: an embedding never depends on others in its batch.
        max_length: `sampling.max_sequence_length`.

    Raises:
        PromptError: The prompt has more tokens than `max_length`.
    """
    num_tokens = len(pipeline.tokenizer(family.clean(prompt)).input_ids)
    if num_tokens > max_length:
        raise PromptError(
            f"prompt {prompt[:80]!r} has {num_tokens} tokens, but "
            f"sampling.max_sequence_length is {max_length}: shorten it or raise the limit"
        )
    padded_BLD, _ = pipeline.encode_prompt(
        prompt,
        do_classifier_free_guidance=False,
        max_sequence_length=max_length,
        device=pipeline.text_encoder.device,
    )
    num_rows = max_length if family.attends_to_padding else num_tokens
    return padded_BLD[0, :num_rows].cpu().clone()


def pad(
    prompt_embeds: Sequence[Tensor], max_length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Stack embeddings [L, D] to [B, max_length, D], zeros at the end, as `encode_prompt` pads."""
    shape = (len(prompt_embeds), max_length, prompt_embeds[0].shape[1])
    padded_BLD = torch.zeros(shape, dtype=dtype, device=device)
    for row_LD, embed_LD in zip(padded_BLD, prompt_embeds, strict=True):
        row_LD[: len(embed_LD)] = embed_LD
    return padded_BLD
