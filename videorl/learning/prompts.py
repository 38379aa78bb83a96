"""Prompts alone, for learners that sample by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from videorl.data.prompts import PromptStream
from videorl.sampling.embeddings import EmbeddingCache
from videorl.types import PromptExample

Embedding = TypeVar("Embedding")


class PromptExamples(Generic[Embedding]):
    """The prompts of a stream, each with its embedding and that of the negative prompt.

    Args:
        prompts: The stream of the run.
        negative_prompt: What guidance steers away from.
        encode: Text -> embedding [L, D], or a handle to it.
    """

    def __init__(
        self, prompts: PromptStream, negative_prompt: str, encode: Callable[[str], Embedding]
    ) -> None:
        self._prompts = prompts
        self._embeddings = EmbeddingCache(encode)
        self._negative_prompt = negative_prompt

    def __getitem__(self, position: int) -> PromptExample:
        """Return the prompt at a position (>= 0), equal on every call and resume."""
        prompt = self._prompts[position]
        negative = self._embeddings[self._negative_prompt]
        return PromptExample(prompt, self._embeddings[prompt.text], negative)
