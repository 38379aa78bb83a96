"""One rank's learner from a recipe: policy, engine and method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch

from videorl.config import Recipe
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.engines import Engine
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.from_rewards import FromRewards
from videorl.learning.learner import Learner, Method, StepSettings
from videorl.objectives.objective import CandidateObjective, RewardObjective
from videorl.policies import load_policy
from videorl.protocols import DifferentiablePolicy
from videorl.rewards.differentiable import load_differentiable
from videorl.run.checkpoints import open_checkpoints
from videorl.types import Media

Fetch: TypeAlias = Callable[[list[Media]], list[Any]]
"""Opens media handles."""


def build_learner(
    recipe: Recipe,
    run_dir: Path,
    make_engine: Callable[[torch.nn.Module], Engine],
    *,
    device: torch.device | None = None,
    fetch: Fetch = list,
    with_text_encoder: bool = False,
) -> tuple[Learner, DifferentiablePolicy]:
    """Load the recipe's policy and build the learner that its objective needs.

    Args:
        recipe: The run.
        run_dir: Its folder, visible to every rank.
        make_engine: The optimizer of a trainable module.
        device: Where the policy lies; None = the GPU if there is one.
        fetch: Opens media handles; the identity where media are passed by value.
        with_text_encoder: Load the policy's text encoder too.

    Returns:
        The learner, not started yet, and its policy.
    """
    parts = {"transformer"} | ({"vae"} if recipe.objective.learns_from == "prompts" else set())
    policy = load_policy(
        recipe.policy,
        recipe.sampling,
        parts=frozenset(parts | ({"text_encoder"} if with_text_encoder else set())),
        device=device,
        seed=recipe.seed,
        trainable=True,
        keep_base=_needs_base(recipe),
    )
    learner = Learner(
        policy,
        build_method(recipe, policy, fetch),
        make_engine(policy.trainable_module()),
        step_settings(recipe),
        open_checkpoints(recipe.checkpoint, run_dir),
        fetch,
    )
    return learner, policy


def _needs_base(recipe: Recipe) -> bool:
    objective = recipe.objective
    is_loss = isinstance(objective, CandidateObjective)
    return is_loss and "base" in objective.frozen_roles(recipe.video_pixels)


def build_method(recipe: Recipe, policy: DifferentiablePolicy, fetch: Fetch = list) -> Method:
    """Return what turns the examples of the recipe's objective into a loss."""
    objective = recipe.objective
    if isinstance(objective, CandidateObjective):
        videos = recipe.learner.videos_at_once
        return FromCandidates(policy, objective, recipe.seed, recipe.video_pixels, videos, fetch)
    assert isinstance(objective, RewardObjective)
    reward = load_differentiable(recipe.rewards)
    unseen = UnseenMetrics(tuple(recipe.metrics.unseen))
    return FromRewards(policy, objective, reward, recipe.sampling, recipe.seed, unseen, fetch)


def step_settings(recipe: Recipe) -> StepSettings:
    """Return what of a recipe decides how a step is taken."""
    return StepSettings(
        recipe.optimizer, recipe.learner.videos_at_once, recipe.rollouts.max_staleness
    )
