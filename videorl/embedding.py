"""What a model reads of a prompt, whatever its family's text encoders make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Embedding:
    """One prompt, encoded: it is opened by the policy of its family alone.

    Everything else (caches, pools, the object store, learners) hands it on as it is.
    """

    tensors: Mapping[str, Tensor]
    """By the name of the stock pipeline's argument, such as `prompt_embeds` [L, D], without the
    axis of the batch, and without the padding that the model does not read."""

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor of an argument."""
        return self.tensors[name]

    @property
    def is_finite(self) -> bool:
        """Return whether nothing in it is NaN or infinite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())

    @property
    def num_tokens(self) -> int:
        """Return the tokens L of the first text encoder."""
        return len(next(iter(self.tensors.values())))

    def map(self, change: Callable[[Tensor], Tensor]) -> Embedding:
        """Return the same of changed tensors."""
        return Embedding({name: change(tensor) for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Embedding:
        """Return it on a device."""
        return self.map(lambda tensor: tensor.to(device))


def plain(prompt_embeds_LD: Tensor) -> Embedding:
    """Return the embedding of a model with one text encoder and nothing else."""
    return Embedding({"prompt_embeds": prompt_embeds_LD})
