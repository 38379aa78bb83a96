"""ReFL: a learner that samples by itself and follows the reward's own gradient.

No generator and no reward worker: each rank holds the policy with its VAE, and the reward models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from videorl.config import Recipe
from videorl.data.prompts import PromptStream, load_prompts
from videorl.sampling.embeddings import EmbeddingCache
from videorl.types import PromptExample

Embedding = TypeVar("Embedding")


class PromptExamples(Generic[Embedding]):
    """The prompts of a stream, each with its embedding and that of the negative prompt.

    Args:
        recipe: Names the prompts.
        encode: Text -> embedding [L, D], or a handle to it.
    """

    def __init__(self, recipe: Recipe, encode: Callable[[str], Embedding]) -> None:
        self._prompts = PromptStream(load_prompts(recipe.prompts.source, "train"), recipe.seed)
        self._embeddings = EmbeddingCache(encode)
        self._negative_prompt = recipe.sampling.negative_prompt

    def __getitem__(self, position: int) -> PromptExample:
        """Return the prompt at a position (>= 0), equal on every call and resume."""
        prompt = self._prompts[position]
        negative = self._embeddings[self._negative_prompt]
        return PromptExample(prompt, self._embeddings[prompt.text], negative)
