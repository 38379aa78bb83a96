"""Prompts alone, for learners that sample by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from videorl.data.prompts import PromptStream
from videorl.learning.usable import Usable
from videorl.sampling.embeddings import EmbeddingCache
from videorl.types import Condition, Prompt, PromptExample

Encoded = TypeVar("Encoded")


class PromptExamples(Generic[Encoded]):
    """The prompts of a stream, each with its embedding and that of the negative prompt.

    The place of a prompt that cannot be encoded is taken by the next that can.

    Args:
        prompts: The stream of the run.
        negative_prompt: What guidance steers away from.
        encode: Prompt -> `Embedding`, or a handle to it.
    """

    def __init__(
        self, prompts: PromptStream, negative_prompt: str, encode: Callable[[Condition], Encoded]
    ) -> None:
        self._prompts = prompts
        self._embeddings = EmbeddingCache(encode)
        self._negative_prompt = negative_prompt
        self._usable = Usable(self._encoded)

    @property
    def num_skipped(self) -> int:
        """How many prompts could not be encoded so far."""
        return self._usable.num_skipped

    def __getitem__(self, position: int) -> PromptExample:
        """Return the prompt at a position (>= 0), equal on every call and resume.

        Raises:
            PromptError: No prompt can be encoded.
        """
        negative = self._embeddings[self._negative_prompt]
        # Two epochs hold a whole one, wherever in it the position is.
        places = range(position, position + 2 * len(self._prompts))
        prompt, embeds = self._usable.first(places)
        # At its own position, as the seed of its video derives from that.
        return PromptExample(replace(prompt, index=position), embeds, negative)

    def _encoded(self, position: int) -> tuple[Prompt, Encoded]:
        prompt = self._prompts[position]
        return prompt, self._embeddings[prompt.condition]
