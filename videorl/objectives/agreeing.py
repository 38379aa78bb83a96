"""Pairs on which several reward models agree, of whatever rule makes the pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from videorl.objectives.objective import Objective
from videorl.selection import BestVsWorst, Selection
from videorl.settings.bounds import Problem, one_of
from videorl.types import PreferencePair, Score, ScoredGroup

DISAGREE = "models_disagree"
"""Why there is no pair where all were taken away by `agreeing`."""


def agreeing(pairs: Sequence[PreferencePair], models: Sequence[str]) -> list[PreferencePair]:
    """Return the pairs on which all models agree: each rates the chosen video higher."""
    return [
        pair
        for pair in pairs
        if all(
            pair.chosen.score.by_model[name] > pair.rejected.score.by_model[name] for name in models
        )
    ]


@dataclass
class Agreeing(Selection):
    """Takes only those pairs of another rule on which all models of its `agree` do."""

    inner: Selection = field(default_factory=BestVsWorst)

    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return the pairs that are left."""
        return agreeing(self.inner(group), self.inner.agree)

    def rank(self, score: Score) -> float:
        """Return what the other rule compares candidates by."""
        return self.inner.rank(score)

    def why_no_pair(self, group: ScoredGroup) -> str:
        """Name the reason; `models_disagree` where the other rule made pairs."""
        return DISAGREE if self.inner(group) else self.inner.why_no_pair(group)


def agreeing_problems(
    agree: Sequence[str], keys: Sequence[str], objective: Objective
) -> Iterator[Problem]:
    """Yield what is wrong with `selection.agree`.

    Args:
        agree: The setting.
        keys: What the recipe's reward models are called.
        objective: What learns from the pairs.
    """
    for index, name in enumerate(agree):
        yield one_of(f"selection.agree.{index}", name, keys)
    if agree and len(keys) < 2:
        yield "selection.agree needs several rewards: with one, every pair agrees with it"
    if agree and objective.learns_from != "pairs":
        yield (
            f"selection.agree must be empty for objective.name={objective.name}, which learns "
            f"from {objective.learns_from}, not from pairs"
        )
