"""Text embeddings, computed once per prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Embedding = TypeVar("Embedding")


class EmbeddingCache(Generic[Embedding]):
    """The unpadded embeddings, or handles to them, of the most recently used texts.

    Args:
        encode: Text -> embedding [L, D], or a handle to it; its errors are not cached.
        capacity: Texts kept (>= 1). A Wan embedding has 8 kB per token.
    """

    def __init__(self, encode: Callable[[str], Embedding], capacity: int = 4096) -> None:
        assert capacity >= 1, capacity
        self._encode = encode
        self._capacity = capacity
        self._by_text: OrderedDict[str, Embedding] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of texts held."""
        return len(self._by_text)

    def __getitem__(self, text: str) -> Embedding:
        """Return the embedding of `text`, encoding it if need be."""
        if text not in self._by_text:
            self._by_text[text] = self._encode(text)
            if len(self._by_text) > self._capacity:
                self._by_text.popitem(last=False)
        self._by_text.move_to_end(text)
        return self._by_text[text]

    def discard(self, text: str) -> None:
        """Forget `text`, so that it is encoded anew."""
        self._by_text.pop(text, None)
