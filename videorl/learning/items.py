"""From training examples to the items of an optimizer step, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from videorl.protocols import Process
from videorl.seeds import derive_seed


class Weighted(Protocol):
    """A dataclass with the share that one item has in the loss of its step; 0 = padding."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def weight(self) -> float:
        """Return the share."""
        ...

    @property
    def num_videos(self) -> int:
        """Return how many videos go through the model for it."""
        ...


W = TypeVar("W", bound=Weighted)


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: its roles' clean latents, and the seed of its noise and times."""

    latents_RCTHW: Tensor
    prompt_embeds_LD: Tensor
    seed: int
    weight: float = 1.0
    """Its loss is multiplied by this."""

    @property
    def is_finite(self) -> bool:
        """Return whether latents and embedding hold neither NaN nor infinity."""
        tensors = (self.latents_RCTHW, self.prompt_embeds_LD)
        return all(bool(tensor.isfinite().all()) for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Item:
    """One example at one time. `weight` is its share of the step's loss; 0 = padding."""

    example: Example
    t: float
    noise_seed: int
    weight: float

    @property
    def num_videos(self) -> int:
        """Videos of the example: two of a pair."""
        return len(self.example.latents_RCTHW)


@dataclass(frozen=True, slots=True)
class Batch:
    """Items stacked for one forward; roles share noise and time."""

    x_t_NRCTHW: Tensor
    target_NRCTHW: Tensor
    clean_NRCTHW: Tensor
    noise_NRCTHW: Tensor
    t_N: Tensor
    prompt_embeds: list[Tensor]
    """One [L, D] per item."""
    weight_N: Tensor
    example_weight_N: Tensor


def spread_times(seed: int, num_times: int) -> list[float]:
    """Return `num_times` uniform numbers in [0, 1), one in each of as many equal strata.

    Stratification lowers the variance of the step without changing the uniform marginal.
    """
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.rand(num_times, generator=generator, dtype=torch.float64)
    return ((torch.arange(num_times) + offsets) / num_times).tolist()


def make_items(examples: Sequence[Example], times_per_example: int, process: Process) -> list[Item]:
    """Expand examples over times; the weights of all items of a step sum to 1."""
    weight = 1.0 / max(len(examples) * times_per_example, 1)
    items = []
    for example in examples:
        uniform = spread_times(derive_seed(example.seed, "times"), times_per_example)
        times = process.sample_times(torch.tensor(uniform)).tolist()
        items += [
            Item(example, t, derive_seed(example.seed, "noise", index), weight)
            for index, t in enumerate(times)
        ]
    return items


def micro_batches(items: Sequence[W], rank: int, world_size: int, videos: int) -> list[list[W]]:
    """Split the items of a step over ranks, and each rank's share into micro-batches.

    A micro-batch has as many whole items as `videos` (>= 1) hold, and one at the least.

    All ranks get equally many micro-batches of equal sizes (collectives inside the forward need
    it), filled up with items of weight 0. Empty only if there are no items at all.
    """
    if not items:
        return []
    share = -(-len(items) // world_size)
    mine = list(items[rank * share : (rank + 1) * share])
    filler = replace(items[0], weight=0.0)
    mine += [filler] * (share - len(mine))
    size = max(1, videos // items[0].num_videos)
    return [mine[start : start + size] for start in range(0, share, size)]


def make_batch(items: Sequence[Item], process: Process, device: torch.device) -> Batch:
    """Draw each item's noise (once, shared by its roles) and corrupt the latents, in float32."""
    x0_NRCTHW = torch.stack([item.example.latents_RCTHW for item in items]).float()
    num_items, num_roles = x0_NRCTHW.shape[:2]
    noise_NCTHW = torch.stack(
        [
            torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(item.noise_seed))
            for item, x0 in zip(items, x0_NRCTHW, strict=True)
        ]
    )
    x0 = x0_NRCTHW.flatten(0, 1).to(device)
    noise = noise_NCTHW.repeat_interleave(num_roles, dim=0).to(device)
    t_N = torch.tensor([item.t for item in items], dtype=torch.float32, device=device)
    t_B = t_N.repeat_interleave(num_roles)
    shape = (num_items, num_roles)
    return Batch(
        x_t_NRCTHW=process.corrupt(x0, noise, t_B).unflatten(0, shape),
        target_NRCTHW=process.target(x0, noise, t_B).unflatten(0, shape),
        clean_NRCTHW=x0.unflatten(0, shape),
        noise_NRCTHW=noise.unflatten(0, shape),
        t_N=t_N,
        prompt_embeds=[item.example.prompt_embeds_LD.to(device) for item in items],
        weight_N=torch.tensor([item.weight for item in items], device=device),
        example_weight_N=torch.tensor([item.example.weight for item in items], device=device),
    )
