"""A selection rule of your own: best against median.

    python docs/examples/own_selection.py

A rule is a dataclass: its fields are the settings of the recipe's `selection` section, and
`__call__` turns the scored candidates of one prompt into preference pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import videorl
from videorl.selection import Selection, make_pair
from videorl.types import PreferencePair, ScoredGroup


@dataclass
class BestVsMedian(Selection):
    """The worst candidate is often broken in an uninteresting way: the median says more."""

    def __call__(self, group: ScoredGroup) -> list[PreferencePair]:
        """Return at most one pair; equal scores go to the lower candidate index."""
        if len(group.candidates) < 2:
            return []
        ranked = sorted(
            group.candidates,
            key=lambda scored: (-self.rank(scored.score), scored.candidate.index),
        )
        pair = make_pair(group, ranked[0], ranked[len(ranked) // 2], self.rank)
        return [pair] if pair.margin > 0 and pair.margin >= self.min_margin else []


if __name__ == "__main__":
    summary = videorl.train(
        "moving_shapes",
        run_dir="runs/own_selection",
        num_steps=2,
        prompts={"per_round": 2},
        selection={"rule": "own_selection:BestVsMedian", "min_margin": 0.05},
        evaluation={"source": ""},
    )
    print(f"see {summary['run_dir']}/report.html")
