"""Supervised fine-tuning on candidates that were chosen, or on all of them.

A baseline of VideoReward (arXiv 2501.13918) and OnlineVPO (arXiv 2412.15159).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from videorl.objectives.objective import (
    CandidateObjective,
    Examples,
    FrozenRole,
    LearnsFrom,
    LossInputs,
    Surroundings,
)
from videorl.objectives.regression import LOGS, compared_roles, regression_loss
from videorl.selection import Selection
from videorl.settings.bounds import Problem, one_of
from videorl.types import ScoredGroup, WeightedCandidate, in_order, weigh

if TYPE_CHECKING:
    from torch import Tensor


def chosen_alone(group: ScoredGroup, *, rule: Selection) -> list[WeightedCandidate]:
    """Take the chosen candidates of a rule's pairs, each once: what SFT on winners learns from."""
    chosen = {pair.chosen.candidate.id: pair.chosen for pair in rule(group)}
    return [weigh(group, candidate) for candidate in chosen.values()]


def every_candidate(group: ScoredGroup) -> list[WeightedCandidate]:
    """Take all candidates alike; no reward plays a part."""
    return [weigh(group, candidate) for candidate in in_order(group)]


@dataclass
class SFT(CandidateObjective):
    """The policy's error on single candidates, all with the weight 1."""

    name: str = "sft"
    sft_on: str = "chosen"
    """Learn from the `chosen` of the pairs that `selection` makes, or from `all`."""
    compare_with_reference: bool | None = None
    """Log `regression/error_change`, for one more forward per item, a fifth of the step; null =
    only for videos of fewer than two million pixels."""

    learns_from: ClassVar[LearnsFrom] = "candidates"
    logs: ClassVar[tuple[str, ...]] = LOGS

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems(around)
        yield one_of("objective.sft_on", self.sft_on, ("chosen", "all"))

    def frozen_roles(self, video_pixels: int) -> frozenset[FrozenRole]:
        """Return the reference where errors are compared."""
        return compared_roles(self.compare_with_reference, video_pixels)

    def examples(self, selection: Selection) -> Examples:
        """Return what takes the chosen candidates, or all."""
        return every_candidate if self.sft_on == "all" else partial(chosen_alone, rule=selection)

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the error of each item."""
        return regression_loss(inputs)
