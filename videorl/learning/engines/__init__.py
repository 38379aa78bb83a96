"""Who turns gradients into updates: plain PyTorch in one process, or DeepSpeed on many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from videorl.config import OptimizerConfig
from videorl.learning.engines.slices import Slice

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Engine(Protocol):
    """An optimizer over the trainable parameters, on one or many ranks."""

    rank: int
    world_size: int
    num_cut: int
    """Trained numbers, of whose state each rank has a slice; 0 = every rank has all of it."""

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
    ) -> AbstractContextManager[bool]:
        """Make parameters whole, in host memory and on rank 0 alone where they are sharded.

        Every rank calls it, and is told whether it has them, so that it may read and write them.
        `write` keeps changes to them, on every rank.
        """
        ...

    def share_out(self, module: torch.nn.Module) -> None:
        """Shard a frozen module as the trained one is, if that is; every rank calls it."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimizer state as whole CPU copies on rank 0, nothing elsewhere.

        Every rank calls it. They do not depend on the number of ranks.
        """
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, in place, perhaps on another number of ranks."""
        ...

    def share(self) -> dict[str, Slice]:
        """Return this rank's slices of `state`, as copies on the CPU; moments always.

        Nothing is gathered. Where nothing is cut, every rank has all of it.
        """
        ...

    def load_share(self, share: Mapping[str, Slice]) -> None:
        """Restore slices of the places that `share` gives; every rank calls it."""
        ...

    def cpu_group(self) -> ProcessGroup | None:
        """Return a group of all ranks that sends from the CPU, for a thread beside training.

        Every rank calls it. None = there is one rank.
        """
        ...


def fill_gradients(parameters: Iterable[Tensor]) -> None:
    """Give a gradient of 0 to parameters that no item of an update has needed.

    So AdamW's momentum moves them in every engine, on any number of ranks, and they have moments
    to save.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def is_fused(config: OptimizerConfig, device_type: str) -> bool:
    """Tell whether AdamW updates all of a tensor in one kernel on such a device (cuda, cpu)."""
    return device_type == "cuda" if config.fused == "auto" else bool(config.fused)
