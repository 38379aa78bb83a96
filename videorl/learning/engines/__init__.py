"""Who turns gradients into updates: plain PyTorch in one process, or DeepSpeed on many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class Engine(Protocol):
    """An optimizer over the trainable parameters, on one or many ranks."""

    rank: int
    world_size: int

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Accumulate gradients; `is_last` marks the last micro-batch of the step."""
        ...

    def step(self, learning_rate: float) -> float:
        """Clip, update, clear the gradients; return the gradient norm before clipping.

        If that is not finite, the update is left out: one bad batch must not end a long run.
        """
        ...

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return the element-wise sum of `values` over all ranks."""
        ...

    def gathered(
        self, parameters: Iterable[Tensor], *, write: bool
    ) -> AbstractContextManager[None]:
        """Make parameters whole where they are sharded; `write` keeps changes to them.

        Every rank calls it, and holds them all at once: name no more than are needed.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimizer state as whole CPU copies on rank 0, nothing elsewhere.

        Every rank calls it. They do not depend on the number of ranks.
        """
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, in place, perhaps on another number of ranks."""
        ...
