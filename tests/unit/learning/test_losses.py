"""Every loss through whole optimizer steps: golden values, and how items are split over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from videorl.config import OptimizerConfig
from videorl.learning.engines.local import LocalEngine
from videorl.objectives import OBJECTIVES
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.objective import Objective
from videorl.processes.vp_diffusion import VPDiffusion
from videorl.settings.plugins import find
from videorl.types import TrainingExample, WeightedCandidate

TIMES = 3
ALL_OPTIONS = {
    "sft_weight": 0.5,
    "rejected_scale": 0.8,
    "protect_chosen": True,
    "importance_clip": 0.3,
    "importance_steps": 10,
}

# Settings -> losses of steps 0, 1 and 2, and the norm of the last gradient. Every step has other
# times and noise. Made by this code when each loss agreed with its hand-computed values: a change
# of any of them is a change of what is learned.
GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({"beta": 20.0}, [0.693147, 0.641917, 0.61061, 0.77307]),
    "squared_signal": (
        {"beta": 20.0, "beta_schedule": "squared_signal"},
        [0.693147, 0.671757, 0.660536, 0.319231],
    ),
    "sft_term": ({"beta": 20.0, "sft_weight": 0.5}, [1.63952, 1.68189, 1.71154, 0.776382]),
    "rejected_scale": (
        {"beta": 20.0, "rejected_scale": 0.5},
        [0.693147, 0.638051, 0.613833, 0.853072],
    ),
    "protect_chosen": (
        {"beta": 20.0, "protect_chosen": True},
        [0.693147, 0.64301, 0.612054, 0.730508],
    ),
    "importance_clip": (
        {"beta": 20.0, "importance_clip": 0.3, "importance_steps": 10},
        [0.539306, 0.525329, 0.493881, 0.612453],
    ),
    "all_options": ({"beta": 20.0, **ALL_OPTIONS}, [1.48568, 1.56511, 1.59796, 0.663114]),
    "sft": ({"name": "sft"}, [1.89274, 2.06867, 2.17745, 0.337225]),
    "flow_rwr": ({"name": "flow_rwr"}, [1.93143, 2.04683, 2.09155, 0.300013]),
}


def examples_of(objective: Objective) -> list[TrainingExample]:
    """Return pairs, or their chosen candidates with the weights 1, or 0.5, 1 and 1.5."""
    pairs = tiny_pairs(0)
    if objective.name == "flow_dpo":
        return list(pairs)
    weights = (0.5, 1.0, 1.5) if objective.name == "flow_rwr" else (1.0, 1.0, 1.0)
    return [
        WeightedCandidate(pair.prompt, pair.prompt_embeds, pair.chosen, weight)
        for pair, weight in zip(pairs, weights, strict=True)
    ]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_losses_of_three_steps(name: str, tmp_path: Path) -> None:
    settings, expected = GOLDEN[name]
    settings = dict(settings)
    objective = find(settings.pop("name", "flow_dpo"), OBJECTIVES, "objective.name")
    recipe = tiny_recipe()
    recipe.objective = objective(timesteps_per_pair=TIMES, **settings)
    learner, _ = tiny_learner(recipe, tmp_path)
    learner.start()
    examples = examples_of(recipe.objective)
    steps = [learner.step(step, examples).metrics for step in range(3)]
    found = [one["learn/loss"] for one in steps] + [steps[-1]["optimizer/grad_norm"]]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("v_prediction", [0.693147, 0.654769, 0.63217, 0.639266]),
        ("epsilon", [0.693147, 0.693803, 0.70119, 0.38387]),
    ],
)
def test_golden_losses_of_diffusion_dpo(
    prediction: str, expected: list[float], tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    recipe.objective = FlowDPO(beta=20.0, timesteps_per_pair=TIMES)
    process = VPDiffusion(torch.linspace(0.999, 0.0, 1000), prediction)
    learner, _ = tiny_learner(recipe, tmp_path, process=process)
    learner.start()
    steps = [learner.step(step, tiny_pairs(0)).metrics for step in range(3)]
    found = [one["learn/loss"] for one in steps] + [steps[-1]["optimizer/grad_norm"]]
    assert found == pytest.approx(expected, rel=1e-4)


class OneOfRanks(LocalEngine):
    """One of several ranks that average their gradients, which it only collects."""

    def __init__(self, module: torch.nn.Module, rank: int, world_size: int) -> None:
        super().__init__(module, OptimizerConfig())
        self.rank, self.world_size = rank, world_size
        self.module = module
        self.gradients: list[Tensor] = []

    def step(self, learning_rate: float) -> float:
        self.gradients = [
            one.grad.clone() for one in self.module.parameters() if one.grad is not None
        ]
        return 0.0


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 2), (1, 9), (2, 2), (3, 1)])
def test_options_of_dpo_do_not_depend_on_how_items_are_split(
    world_size: int, micro_batch_size: int, tmp_path: Path
) -> None:
    def gradient(world_size: int, micro_batch_size: int) -> Tensor:
        ranks: list[OneOfRanks] = []
        for rank in range(world_size):
            recipe = tiny_recipe(micro_batch_size=micro_batch_size)
            recipe.objective = FlowDPO(beta=20.0, timesteps_per_pair=TIMES, **ALL_OPTIONS)

            def make_engine(module: torch.nn.Module, rank: int = rank) -> OneOfRanks:
                ranks.append(OneOfRanks(module, rank, world_size))
                return ranks[-1]

            learner, policy = tiny_learner(recipe, tmp_path / f"{world_size}-{rank}", make_engine)
            # Away from the reference, so that no two errors are alike.
            with torch.no_grad():
                policy.module.last.weight += 0.3
            learner.step(0, tiny_pairs(0))
        means = [
            torch.stack(one).mean(0) for one in zip(*(r.gradients for r in ranks), strict=True)
        ]
        return torch.cat([one.flatten() for one in means])

    whole = gradient(1, 100)
    assert whole.norm() > 0.1
    torch.testing.assert_close(gradient(world_size, micro_batch_size), whole, rtol=1e-4, atol=1e-6)
