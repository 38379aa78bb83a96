"""Flow-RWR: regression on all candidates, weighted by their rewards.

"Improving Video Generation with Human Feedback" (VideoReward), arXiv 2501.13918.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
from videorl.settings.bounds import Problem, above, at_least
from videorl.types import Score, ScoredGroup, WeightedCandidate, in_order, weigh

if TYPE_CHECKING:
    from torch import Tensor


def reward_weights(ranks: Sequence[float], *, temperature: float, max_weight: float) -> list[float]:
    """Return min(exp(r / temperature) / Z, max_weight) for each reward r of one prompt.

    Flow-RWR weights by exp(r) (VideoReward, arXiv 2501.13918). Z is the mean of the exponentials
    over the prompt's candidates: an estimate of the partition function of the optimal policy, so
    that every prompt weighs the same and a shift of r changes nothing.

    Args:
        ranks: Rewards of a prompt's candidates, finite.
        temperature: > 0; small ones favour the best candidate alone.
        max_weight: >= 1; without it the largest weight could be the number of candidates.
    """
    highest = max(ranks)
    powers = [math.exp((rank - highest) / temperature) for rank in ranks]
    mean = sum(powers) / len(powers)
    return [min(power / mean, max_weight) for power in powers]


def weighted_by_reward(
    group: ScoredGroup, *, rank: Callable[[Score], float], temperature: float, max_weight: float
) -> list[WeightedCandidate]:
    """Take all candidates by `reward_weights`; none of a group with nothing to compare."""
    if len(group.candidates) < 2:
        return []
    candidates = in_order(group)
    ranks = [rank(candidate.score) for candidate in candidates]
    weights = reward_weights(ranks, temperature=temperature, max_weight=max_weight)
    return [weigh(group, *both) for both in zip(candidates, weights, strict=True)]


@dataclass
class FlowRWR(CandidateObjective):
    """The policy's error on all candidates, weighted by exp(reward / temperature)."""

    name: str = "flow_rwr"
    temperature: float = 1.0
    """Candidates weigh exp(reward / temperature) over the mean of their prompt, > 0."""
    max_weight: float = 5.0
    """Weights, whose mean over a prompt is 1, are clipped to this, >= 1."""
    compare_with_reference: bool | None = None
    """Log `regression/error_change`, for one more forward per item, a fifth of the step; null =
    only for videos of fewer than two million pixels."""

    learns_from: ClassVar[LearnsFrom] = "candidates"
    logs: ClassVar[tuple[str, ...]] = LOGS

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems(around)
        yield above("objective.temperature", self.temperature, 0)
        yield at_least("objective.max_weight", self.max_weight, 1)
        if around.selection.takes_more_than_rank:
            yield (
                f"selection.rule={around.selection.rule} makes pairs, but objective.name="
                f"{self.name} weighs single candidates: use best_vs_worst, single_dimension or "
                "weighted"
            )

    def frozen_roles(self, video_pixels: int) -> frozenset[FrozenRole]:
        """Return the reference where errors are compared."""
        return compared_roles(self.compare_with_reference, video_pixels)

    def examples(self, selection: Selection) -> Examples:
        """Return what weighs all candidates by what the rule ranks by."""
        return partial(
            weighted_by_reward,
            rank=selection.rank,
            temperature=self.temperature,
            max_weight=self.max_weight,
        )

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the error of each item."""
        return regression_loss(inputs)
