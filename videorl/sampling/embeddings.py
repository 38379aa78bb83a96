"""Embeddings, computed once per prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from videorl.types import Condition

Encoded = TypeVar("Encoded")
_WITH_PICTURE = 16
"""A prompt with a picture counts as so many."""


class EmbeddingCache(Generic[Encoded]):
    """The unpadded embeddings, or handles to them, of the most recently used prompts.

    Args:
        encode: Prompt -> `Embedding`, or a handle to it; its errors are not cached.
        capacity: Prompts kept (>= 1). A Wan embedding has 8 kB per token, with a picture megabytes:
            of such, one is kept in place of 16.
    """

    def __init__(self, encode: Callable[[Condition], Encoded], capacity: int = 4096) -> None:
        assert capacity >= 1, capacity
        self._encode = encode
        self._capacity = capacity
        self._size = 0
        self._by_prompt: OrderedDict[Condition, Encoded] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of prompts held."""
        return len(self._by_prompt)

    def __getitem__(self, prompt: Condition) -> Encoded:
        """Return the embedding of `prompt`, encoding it if need be."""
        if prompt not in self._by_prompt:
            self._by_prompt[prompt] = self._encode(prompt)
            self._size += _size(prompt)
            while self._size > self._capacity and len(self._by_prompt) > 1:
                oldest, _ = self._by_prompt.popitem(last=False)
                self._size -= _size(oldest)
        self._by_prompt.move_to_end(prompt)
        return self._by_prompt[prompt]

    def discard(self, prompt: Condition) -> None:
        """Forget `prompt`, so that it is encoded anew."""
        if prompt in self._by_prompt:
            del self._by_prompt[prompt]
            self._size -= _size(prompt)


def _size(prompt: Condition) -> int:
    return 1 if isinstance(prompt, str) else _WITH_PICTURE
