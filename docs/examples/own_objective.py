"""An objective of your own: a hinge on the margin.

    python docs/examples/own_objective.py

An objective is a dataclass: its fields are the settings of the recipe's `objective` section, and
`__call__` is the loss, a pure function of what the models predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import videorl
from videorl.objectives.objective import MARGIN, CandidateObjective, LossInputs, Surroundings
from videorl.settings.bounds import Problem, above

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Hinge(CandidateObjective):
    """max(0, wanted_margin - margin), where DPO has -log sigmoid(margin)."""

    beta: float = 150.0
    wanted_margin: float = 1.0

    learns_from = "pairs"
    logs = (MARGIN, "hinge/satisfied")

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings, when the recipe is read."""
        yield from super().problems(around)
        yield above("objective.wanted_margin", self.wanted_margin, 0)

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each pair and time [N], and what to log of it."""
        gain_NR = -0.5 * self.beta * (inputs.err_NR - inputs.ref_err_NR)
        margin_N = gain_NR[:, 0] - gain_NR[:, 1]  # roles are chosen, rejected
        loss_N = (self.wanted_margin - margin_N).clamp(min=0)
        done_N = (loss_N == 0).float()
        return loss_N, {MARGIN: margin_N.detach(), "hinge/satisfied": done_N}


if __name__ == "__main__":
    summary = videorl.train(
        "moving_shapes",
        run_dir="runs/own_objective",
        num_steps=2,
        prompts={"per_round": 2},
        objective={"name": "own_objective:Hinge", "wanted_margin": 2.0},
        evaluation={"source": ""},
    )
    print(f"see {summary['run_dir']}/report.html")
