"""A `Learner` on the tiny policy, and the pairs it learns from, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.groups import random_pair
from tests.tiny_policy import EMBED_WIDTH, LATENT_SHAPE, TinyPolicy
from videorl.config import OptimizerConfig, Recipe
from videorl.learning.build import loader_of, step_settings
from videorl.learning.engines import Engine
from videorl.learning.engines.local import LocalEngine
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.learner import Learner
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.objective import CandidateObjective
from videorl.protocols import Process
from videorl.run.checkpoints import CheckpointFolder
from videorl.types import LearnerOutput, PreferencePair


def tiny_recipe(*, micro_batch_size: int = 3, max_staleness: int = 0, **optimizer: Any) -> Recipe:
    """Return a recipe whose steps move the tiny policy visibly, with gradients clipped."""
    recipe = Recipe(name="tiny", num_steps=6)
    recipe.objective = FlowDPO(beta=20.0, timesteps_per_pair=3)
    settings = {"learning_rate": 1e-2, "max_grad_norm": 0.5, "weight_decay": 0.01, **optimizer}
    recipe.optimizer = OptimizerConfig(**settings)
    recipe.learner.micro_batch_size = micro_batch_size
    recipe.rollouts.max_staleness = max_staleness
    return recipe


def tiny_learner(
    recipe: Recipe,
    folder: Path,
    make_engine: Callable[[nn.Module], Engine] | None = None,
    process: Process | None = None,
) -> tuple[Learner, TinyPolicy]:
    """Return a learner that saves to `folder`, and its policy, a rectified flow unless told."""
    policy = TinyPolicy()
    if process is not None:
        policy.process = process
    module = policy.trainable_module()
    engine = make_engine(module) if make_engine else LocalEngine(module, recipe.optimizer)
    engine.share_out(policy.reference)
    checkpoints = CheckpointFolder(folder, recipe.checkpoint.keep)
    assert isinstance(recipe.objective, CandidateObjective)
    videos = recipe.learner.videos_at_once
    method = FromCandidates(
        policy,
        recipe.objective,
        recipe.seed,
        videos_per_forward=videos,
        loader=loader_of(recipe),
    )
    return Learner(policy, method, engine, step_settings(recipe), checkpoints), policy


def tiny_pairs(step: int, count: int = 3) -> list[PreferencePair]:
    """Return the pairs of optimizer step `step`."""
    return [random_pair(100 * step + index, LATENT_SHAPE, EMBED_WIDTH) for index in range(count)]


def run_steps(learner: Learner, first: int, end: int) -> list[LearnerOutput]:
    """Apply steps `first` to `end - 1`; the reference becomes the policy after every second."""
    outputs: list[LearnerOutput] = []
    for step in range(first, end):
        outputs.append(learner.step(step, tiny_pairs(step)))
        if (step + 1) % 2 == 0:
            learner.update_reference(outputs[-1].version)
    return outputs


class PlainDescent(LocalEngine):
    """Takes steps of length 1 along the negative gradient."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module, OptimizerConfig(max_grad_norm=1e9))
        self._weights = list(module.parameters())

    def step(self, learning_rate: float) -> float:
        moved = [(weight, weight.grad) for weight in self._weights if weight.grad is not None]
        gradients = [gradient for _, gradient in moved]
        with torch.no_grad():
            for weight, gradient in moved:
                weight -= gradient
        norm = torch.nn.utils.get_total_norm(gradients)
        for weight in self._weights:
            weight.grad = None
        return float(norm)
