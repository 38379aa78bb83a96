"""One rank's learner from a recipe: policy, engine and method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from videorl.config import Recipe
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.engines import Engine
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.from_rewards import FromRewards
from videorl.learning.items import Batch
from videorl.learning.learner import Learner
from videorl.learning.method import Method, StepSettings
from videorl.learning.prefetching import Ahead, Loader, load_when_needed
from videorl.objectives.objective import CandidateObjective, RewardObjective
from videorl.policies import load_policy
from videorl.policies.experts import models_of
from videorl.policies.full import IN_SHARDS
from videorl.policies.parallel import share_videos
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
    in_shards: bool = False,
) -> tuple[Learner, DifferentiablePolicy]:
    """Load the recipe's policy and build the learner that its objective needs.

    Args:
        recipe: The run.
        run_dir: Its folder, visible to every rank.
        make_engine: The optimizer of a trainable module.
        device: Where the policy lies; None = the GPU if there is one.
        fetch: Opens media handles; the identity where media are passed by value.
        with_text_encoder: Load the policy's text encoder too.
        in_shards: The engine shares weights out over ranks. In full fine-tuning policy and
            reference then come to the device in shards, never whole.

    Returns:
        The learner, not started yet, and its policy.
    """
    # One process alone does the work of all ranks.
    per_example = recipe.learner.context_parallel if torch.distributed.is_initialized() else 1
    parts = {"transformer"} | ({"vae"} if recipe.objective.learns_from == "prompts" else set())
    in_shards = in_shards and recipe.policy.lora.rank == 0 and recipe.policy.frozen_device == "auto"
    policy = load_policy(
        replace(recipe.policy, frozen_device=IN_SHARDS) if in_shards else recipe.policy,
        recipe.sampling,
        parts=frozenset(parts | ({"text_encoder"} if with_text_encoder else set())),
        device=device,
        seed=recipe.seed,
        trainable=True,
        keep_base=_needs_base(recipe),
    )
    share_videos(policy, recipe.policy, per_example)
    engine = make_engine(policy.trainable_module())
    shared = {*models_of(policy.trainable_module()).values()}
    for network in policy.networks()[1:] if in_shards else ():
        for model in models_of(network).values():
            if model not in shared:  # an expert that is not trained is every role's
                engine.share_out(model)
    learner = Learner(
        policy,
        build_method(recipe, policy, fetch),
        engine,
        replace(step_settings(recipe), ranks_per_example=per_example),
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
        pixels, loader = recipe.video_pixels, loader_of(recipe)
        return FromCandidates(policy, objective, recipe.seed, pixels, videos, fetch, loader)
    assert isinstance(objective, RewardObjective)
    reward = load_differentiable(recipe.rewards)
    unseen = UnseenMetrics(tuple(recipe.metrics.unseen))
    return FromRewards(policy, objective, reward, recipe.sampling, recipe.seed, unseen, fetch)


def loader_of(recipe: Recipe) -> Loader[Batch]:
    """Return what brings micro-batches to the device."""
    return Ahead() if recipe.learner.prefetch else load_when_needed


def step_settings(recipe: Recipe) -> StepSettings:
    """Return what of a recipe decides how a step is taken."""
    learner = recipe.learner
    return StepSettings(
        recipe.optimizer,
        learner.videos_at_once,
        recipe.versions_sampled - 1,
        learner.updates_per_round,
        recipe.prompts.per_round if learner.loss_over == "planned" else None,
        sharded=recipe.checkpoint.sharded,
        drift_interval=recipe.drift_interval,
    )
