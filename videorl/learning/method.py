"""What a learner does with the examples of a step, and how it takes steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from videorl.config import OptimizerConfig
from videorl.learning.passes import Pass
from videorl.learning.share import ALONE, Ranks, Update


class Method(Protocol):
    """What a learner does with the examples of a step."""

    def items(
        self, step: int, examples: Sequence[Any], ranks: Ranks = ALONE, num_updates: int = 1, /
    ) -> tuple[Sequence[Update[Any]], int]:
        """Return this rank's items of each update, and how many of all examples are left out.

        Left out are those with numbers that are not finite. The weights of the items of all ranks
        and updates sum to 1. All ranks have equally many of each update; there are as many updates
        as asked for, fewer where there are fewer items, none where no example is left.
        """
        ...

    reference_is_policy: bool
    """Set by the learner: both have the same weights in this step."""

    def shortened(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Return items that take as much memory, but no more time than a rehearsal has."""
        ...

    def passes(self, items: Sequence[Any], /) -> Sequence[Pass]:
        """Return the passes of a micro-batch, whose losses and sums to log are all weighted.

        `NOT_FINITE` among them counts items that turned out to have no finite loss; they have no
        part in the others.
        """
        ...


@dataclass(frozen=True)
class StepSettings:
    """What of a recipe decides how a step is taken."""

    optimizer: OptimizerConfig
    micro_batch_size: int
    """Videos per forward on each rank, >= 1."""
    max_staleness: int = 0
    """Versions before the newest that what is in flight may be sampled with."""
    num_updates: int = 1
    """Optimizer updates of a step, >= 1."""
    planned_prompts: int | None = None
    """Prompts of a step: those without examples make its updates smaller; None = they do not."""
    ranks_per_example: int = 1
    """Consecutive ranks that share every video, see `videorl.policies.parallel`."""
    sharded: bool | str = "auto"
    """`checkpoint.sharded`."""
    drift_interval: int = 0
    """Steps between measurements of the drift from the base; 0 = none."""
