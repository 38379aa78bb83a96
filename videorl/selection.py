"""Who is chosen and who is rejected: pure functions from a scored group to preference pairs.

A rule of a recipe is a dataclass: its fields are the settings of the `selection` section. `RULES`
has the built-in ones; `module:attribute` names one of your own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import ClassVar, TypeAlias

from videorl.errors import ConfigError
from videorl.settings.bounds import Problem, at_least, finite
from videorl.types import PreferencePair, Score, ScoredCandidate, ScoredGroup, in_order

Ranking: TypeAlias = Callable[[Score], float]
"""What makes one score better than another; margins are differences of it."""

WeightOf: TypeAlias = Callable[[str], float]
"""Dimension, as scores name it -> what it counts in the total; 0 = nothing."""


def total(score: Score) -> float:
    """Rank by the total that the recipe's rewards add up to."""
    return score.total


def weighted_sum(score: Score, *, weights: Mapping[str, float]) -> float:
    """Rank by a linear combination of named dimensions.

    Raises:
        ConfigError: A dimension is not among those that were scored.
    """
    if unknown := sorted(set(weights) - set(score.dimensions)):
        raise ConfigError(
            f"selection names dimensions that no reward scores: {', '.join(unknown)}; "
            f"those that are scored: {', '.join(score.dimensions)}"
        )
    return sum(weight * score.dimensions[name] for name, weight in weights.items())


def make_pair(
    group: ScoredGroup, chosen: ScoredCandidate, rejected: ScoredCandidate, rank: Ranking = total
) -> PreferencePair:
    """Pair two candidates of `group`; the caller has checked who is better."""
    return PreferencePair(
        prompt=group.prompt,
        prompt_embeds=group.prompt_embeds,
        chosen=chosen,
        rejected=rejected,
        margin=rank(chosen.score) - rank(rejected.score),
    )


def best_vs_worst(
    group: ScoredGroup, *, rank: Ranking = total, min_margin: float = 0.0
) -> list[PreferencePair]:
    """Pair the highest rank with the lowest (OnlineVPO, arXiv 2412.15159).

    Ties go to the lower candidate index at both ends, so the result does not depend on arrival
    order. Gives no pair where fewer than two candidates are left, all rank equal, or the
    margin is smaller than `min_margin`.
    """
    if len(group.candidates) < 2:
        return []
    best = min(group.candidates, key=lambda scored: (-rank(scored.score), scored.candidate.index))
    worst = min(group.candidates, key=lambda scored: (rank(scored.score), scored.candidate.index))
    pair = make_pair(group, best, worst, rank)
    return [pair] if pair.margin > 0 and pair.margin >= min_margin else []


def all_pairs(
    group: ScoredGroup, *, rank: Ranking = total, min_margin: float = 0.0
) -> list[PreferencePair]:
    """Pair every two candidates whose ranks differ by `min_margin` or more, better one chosen.

    In the order of candidate indices (chosen, then rejected): K candidates without ties give
    K (K - 1) / 2 pairs.
    """
    pairs = (make_pair(group, *two, rank) for two in permutations(in_order(group), 2))
    return [pair for pair in pairs if pair.margin > 0 and pair.margin >= min_margin]


def dominating(
    group: ScoredGroup,
    *,
    rank: Ranking = total,
    min_margin: float = 0.0,
    weight_of: WeightOf = lambda name: 1.0,
) -> list[PreferencePair]:
    """Pair two candidates of which one is at least as good in every dimension.

    Multi-objective preference optimisation (VisionReward, arXiv 2412.21059): the chosen candidate
    dominates the rejected one dimension by dimension, and its total is higher by `min_margin` or
    more. Of several such pairs the one with the largest margin is taken, then that with the lower
    indices. One pair per prompt, as the paper's numbers of prompts and pairs suggest.
    """
    pairs = [
        pair
        for pair in all_pairs(group, rank=rank, min_margin=min_margin)
        if dominates(pair.chosen.score, pair.rejected.score, weight_of)
    ]
    return [max(pairs, key=lambda pair: pair.margin)] if pairs else []


def dominates(better: Score, worse: Score, weight_of: WeightOf = lambda name: 1.0) -> bool:
    """Tell whether `better` is nowhere below `worse`; both have the same dimensions.

    Of a dimension with a negative weight less is better; those of weight 0 do not matter.
    """
    return all(
        weight_of(name) * (value - worse.dimensions[name]) >= 0
        for name, value in better.dimensions.items()
    )


@dataclass
class Selection(ABC):
    """A rule with its settings: from a scored group to preference pairs.

    Your own rule is a dataclass that inherits this one and has `__call__`.
    """

    rule: str = ""
    min_margin: float = 0.0
    """Least difference of a pair in what the rule ranks by, >= 0."""
    agree: list[str] = field(default_factory=list[str])
    """Reward models, by label or name, each of which must rate the chosen video of a pair higher
    than the rejected one; other pairs are not taken. Those with weight 0 may be among them."""

    takes_more_than_rank: ClassVar[bool] = False
    """Who is paired does not follow from ranks alone: nothing that ranks candidates can use it."""
    compares_every_dimension: ClassVar[bool] = False
    """All dimensions of all reward models count, so none of them may have a weight of 0 or less."""

    @abstractmethod
    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return the pairs of a group, possibly none."""

    def rank(self, score: Score) -> float:
        """Return what the rule compares candidates by."""
        return total(score)

    def dimensions(self) -> tuple[str, ...]:
        """Return the names of the dimensions that `rank` reads; none = the total."""
        return ()

    def weighing(self, weight_of: WeightOf) -> Selection:
        """Return the rule for rewards that weigh dimensions so; it matters where totals do not."""
        return self

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield at_least("selection.min_margin", self.min_margin, 0)

    def why_no_pair(self, group: ScoredGroup) -> str:
        """Name the reason why the rule made no pair of a group, for the counters."""
        if len(group.candidates) < 2:
            return "too_few_candidates"
        if len({self.rank(candidate.score) for candidate in group.candidates}) == 1:
            return "all_scores_equal"
        return "margin_too_small"


@dataclass
class BestVsWorst(Selection):
    """`best_vs_worst` by the total."""

    rule: str = "best_vs_worst"

    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return at most one pair."""
        return best_vs_worst(group, rank=self.rank, min_margin=self.min_margin)


@dataclass
class SingleDimension(BestVsWorst):
    """`best_vs_worst` by one dimension."""

    rule: str = "single_dimension"
    dimension: str = ""
    """What to rank by; `model.dimension` where there are several rewards."""

    def rank(self, score: Score) -> float:
        """Return the score on the dimension."""
        return weighted_sum(score, weights={self.dimension: 1.0})

    def dimensions(self) -> tuple[str, ...]:
        """Return the dimension."""
        return (self.dimension,)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems()
        if not self.dimension:
            yield "selection.dimension must be set, as selection.rule is single_dimension"


@dataclass
class Weighted(BestVsWorst):
    """`best_vs_worst` by a linear combination of dimensions."""

    rule: str = "weighted"
    weights: dict[str, float] = field(default_factory=dict[str, float])
    """A weight for each dimension that counts; `model.dimension` where there are several
    rewards."""

    def rank(self, score: Score) -> float:
        """Return the weighted sum."""
        return weighted_sum(score, weights=self.weights)

    def dimensions(self) -> tuple[str, ...]:
        """Return the weighted dimensions."""
        return tuple(self.weights)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield from super().problems()
        if not self.weights:
            yield "selection.weights must be set, as selection.rule is weighted"
        for name, weight in self.weights.items():
            yield finite(f"selection.weights.{name}", weight)
        if self.weights and not any(self.weights.values()):
            yield "selection.weights must not all be 0, or all candidates tie"


@dataclass
class Dominating(Selection):
    """`dominating`: better in total and nowhere worse."""

    rule: str = "dominating"
    takes_more_than_rank: ClassVar[bool] = True
    compares_every_dimension: ClassVar[bool] = True

    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return at most one pair."""
        return dominating(group, min_margin=self.min_margin, weight_of=self._weight_of)

    def weighing(self, weight_of: WeightOf) -> Dominating:
        """Compare only dimensions that count, each in the direction in which it counts."""
        made = replace(self)
        made._weight_of = weight_of
        return made

    def _weight_of(self, name: str, /) -> float:
        return 1.0

    def why_no_pair(self, group: ScoredGroup) -> str:
        """Name the reason; `none_dominates` where candidates differ, but none is nowhere worse."""
        reason = super().why_no_pair(group)
        no_pair_at_all = reason == "margin_too_small" and not dominating(
            group, weight_of=self._weight_of
        )
        return "none_dominates" if no_pair_at_all else reason


@dataclass
class AllPairs(Selection):
    """`all_pairs` by the total."""

    rule: str = "all_pairs"
    takes_more_than_rank: ClassVar[bool] = True

    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return every pair whose totals differ enough."""
        return all_pairs(group, min_margin=self.min_margin)


RULES: dict[str, str] = {
    "best_vs_worst": "videorl.selection:BestVsWorst",
    "single_dimension": "videorl.selection:SingleDimension",
    "weighted": "videorl.selection:Weighted",
    "dominating": "videorl.selection:Dominating",
    "all_pairs": "videorl.selection:AllPairs",
}
"""Name in `selection.rule` -> the rule."""
