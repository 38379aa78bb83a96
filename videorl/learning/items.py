"""From training examples to the items of an optimizer step, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from videorl.embedding import Embedding
from videorl.learning.prefetching import to_device
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
    prompt_embeds: Embedding
    seed: int
    weight: float = 1.0
    """Its loss is multiplied by this."""

    @property
    def is_finite(self) -> bool:
        """Return whether latents and embedding hold neither NaN nor infinity."""
        return self.prompt_embeds.is_finite and bool(self.latents_RCTHW.isfinite().all())


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
    prompt_embeds: list[Embedding]
    """One per item."""
    weight_N: Tensor
    example_weight_N: Tensor


def spread_times(seed: int, num_times: int) -> list[float]:
    """Return `num_times` uniform numbers in [0, 1), one in each of as many equal strata.

    Stratification lowers the variance of the step without changing the uniform marginal.
    """
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.rand(num_times, generator=generator, dtype=torch.float64)
    return ((torch.arange(num_times) + offsets) / num_times).tolist()


def make_items(
    examples: Sequence[Example], times_per_example: int, process: Process, num_examples: int
) -> list[Item]:
    """Expand examples over times; the weights of the items of all `num_examples` sum to 1."""
    weight = 1.0 / max(num_examples * times_per_example, 1)
    items = []
    for example in examples:
        uniform = spread_times(derive_seed(example.seed, "times"), times_per_example)
        times = process.sample_times(torch.tensor(uniform)).tolist()
        items += [
            Item(example, t, derive_seed(example.seed, "noise", index), weight)
            for index, t in enumerate(times)
        ]
    return items


def planned_share(examples: Sequence[Any], num_usable: int, num_prompts: int) -> float:
    """Return how many of a step's planned examples (>= 1) are there, in (0, 1].

    Planned are as many of each of `num_prompts` as those prompts gave that gave any.
    """
    given = len({example.prompt.index for example in examples})
    return given / num_prompts * num_usable / len(examples)


def micro_batches(items: Sequence[W], videos: int) -> list[list[W]]:
    """Split a rank's items into micro-batches.

    Each has as many whole items as `videos` (>= 1) hold, and one at the least. Empty only if there
    are no items.
    """
    size = max(1, videos // items[0].num_videos) if items else 1
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


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
    x0 = to_device(x0_NRCTHW.flatten(0, 1), device)
    noise = to_device(noise_NCTHW, device).repeat_interleave(num_roles, dim=0)
    t_N = torch.tensor([item.t for item in items], dtype=torch.float32, device=device)
    t_B = t_N.repeat_interleave(num_roles)
    shape = (num_items, num_roles)
    return Batch(
        x_t_NRCTHW=process.corrupt(x0, noise, t_B).unflatten(0, shape),
        target_NRCTHW=process.target(x0, noise, t_B).unflatten(0, shape),
        clean_NRCTHW=x0.unflatten(0, shape),
        noise_NRCTHW=noise.unflatten(0, shape),
        t_N=t_N,
        prompt_embeds=[
            item.example.prompt_embeds.map(lambda tensor: to_device(tensor, device))
            for item in items
        ],
        weight_N=torch.tensor([item.weight for item in items], device=device),
        example_weight_N=torch.tensor([item.example.weight for item in items], device=device),
    )
