"""Which examples of a step a rank works on: it opens these and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from videorl.learning.items import W

E = TypeVar("E")
Element = TypeVar("Element")


class Ranks(Protocol):
    """Those that work on a step together; every `Engine` is one."""

    rank: int
    world_size: int

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return the element-wise sum of `values` over all ranks."""
        ...


class Alone:
    """The only rank."""

    rank = 0
    world_size = 1

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return `values`."""
        return values


class Groups:
    """Groups of consecutive ranks that share every video, each seen as one rank."""

    def __init__(self, ranks: Ranks, size: int) -> None:
        self.rank = ranks.rank // size
        self.world_size = ranks.world_size // size
        self.sum_over_ranks = ranks.sum_over_ranks


ALONE = Alone()


@dataclass(frozen=True, slots=True)
class Update(Generic[Element]):
    """What a rank does of one optimizer update of a step."""

    items: list[Element]
    """Equally many on all ranks, filled up by items of weight 0: collectives inside the forward
    need it."""
    share: float
    """Of the step's items, over all ranks."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A rank's items of one update, counted over the step."""

    start: int
    end: int
    length: int
    """With filler, the same on all ranks."""
    share: float


@dataclass(frozen=True, slots=True)
class Share(Generic[E]):
    """What one rank works on; the items of an example are consecutive."""

    examples: list[E]
    """Opened, those that its items are of; one at the least, for filler."""
    num_usable: int
    """Examples of all ranks; the others are not finite."""
    places: list[list[int]]
    """Of its items, among those of `examples`; a list for each update."""
    parts: list[_Part]

    def filled(self, items: Sequence[W]) -> list[Update[W]]:
        """Choose the rank's items from those of `examples`; those of weight 0 fill up."""
        found: list[Update[W]] = []
        for part, places in zip(self.parts, self.places, strict=True):
            mine = [items[place] for place in places]
            filler = replace(mine[-1] if mine else items[0], weight=0.0)
            found.append(Update(mine + [filler] * (part.length - len(mine)), part.share))
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """How the items of a step are shared out.

    Args:
        items_per_example: Items that each example gives, >= 1.
        ranks: Who shares them.
        num_updates: Optimizer updates that they are cut into, >= 1.
    """

    items_per_example: int
    ranks: Ranks
    num_updates: int = 1

    def parts(self, num_examples: int) -> list[_Part]:
        """Return what the rank has of each update; updates differ by one item at most."""
        total = num_examples * self.items_per_example
        ends = [total * part // self.num_updates for part in range(self.num_updates + 1)]
        found: list[_Part] = []
        for begin, end in pairwise(ends):
            if begin == end:
                continue
            length = -(-(end - begin) // self.ranks.world_size)
            start, stop = (min(begin + (self.ranks.rank + one) * length, end) for one in (0, 1))
            found.append(_Part(start, stop, length, (end - begin) / total))
        return found


def open_share(
    num_examples: int,
    plan: Plan,
    open_examples: Callable[[Sequence[int]], Sequence[E]],
    is_finite: Callable[[E], bool],
) -> Share[E] | None:
    """Open the examples that a rank has items of; every rank calls it. None: no example is finite.

    Ranks tell each other which examples are not finite. These are left out and the others shared
    out anew, which alone makes a rank open more.

    Args:
        num_examples: Of the step.
        plan: How they are shared out.
        open_examples: Positions (ascending) -> examples.
        is_finite: Whether an example can be learned from.
    """
    opened: dict[int, E] = {}
    each = plan.items_per_example

    def open_missing(usable: Sequence[int], parts: Sequence[_Part]) -> list[int]:
        owned = {item // each for part in parts for item in range(part.start, part.end)}
        wanted = [usable[position] for position in sorted(owned or {0})]
        missing = [position for position in wanted if position not in opened]
        opened.update(zip(missing, open_examples(missing) if missing else [], strict=True))
        return wanted

    usable = list(range(num_examples))
    open_missing(usable, plan.parts(num_examples))
    broken = torch.zeros(num_examples)
    for position, example in opened.items():
        broken[position] = float(not is_finite(example))
    broken = plan.ranks.sum_over_ranks(broken)
    usable = [position for position in usable if not broken[position]]
    if not usable:
        return None
    parts = plan.parts(len(usable))
    wanted = open_missing(usable, parts)
    first = {position: number * each for number, position in enumerate(wanted)}
    places = [
        [first[usable[item // each]] + item % each for item in range(part.start, part.end)]
        for part in parts
    ]
    return Share([opened[position] for position in wanted], len(usable), places, parts)
