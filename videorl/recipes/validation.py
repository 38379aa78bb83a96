"""What the types of a recipe cannot say: ranges, known names, settings that contradict others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from videorl.config import (
    ArchiveConfig,
    CheckpointConfig,
    OptimizerConfig,
    PromptsConfig,
    Recipe,
    RewardConfig,
)
from videorl.errors import ConfigError
from videorl.objectives.agreeing import agreeing_problems
from videorl.objectives.objective import Surroundings
from videorl.recipes.policy_problems import (
    DIFFUSION_FAMILIES,
    experts_problems,
    policy_problems,
    sampling_problems,
)
from videorl.recipes.secrets import places_of_passwords
from videorl.recipes.sharing import sharing_problems
from videorl.recipes.worker_problems import (
    generator_problems,
    learner_problems,
    patience_problems,
    worker_problems,
)
from videorl.rewards import DIFFERENTIABLE, MODELS, is_differentiable, problem_of
from videorl.selection import Selection
from videorl.settings.acceleration import acceleration_problems
from videorl.settings.bounds import Problem, above, at_least, finite, one_of
from videorl.settings.evaluation import evaluation_problems, source_problems
from videorl.settings.guard import guard_problems
from videorl.settings.plugins import problem_of_function
from videorl.settings.tracking import fixed_prompts_problems, metrics_problems

REHEARSALS = ("auto", "always", "never")
ARCHIVED_VIDEOS = ("all", "pairs", "none")


def validate(recipe: Recipe) -> None:
    """Check everything that can be checked without a model, a cluster or a file.

    Raises:
        ConfigError: Lists every problem found: the key, what was wanted and what was got.
    """
    if problems := [problem for problem in _problems(recipe) if problem]:
        raise ConfigError("\n".join([f"recipe {recipe.name}:", *problems]))


def validate_rewards(rewards: list[RewardConfig]) -> None:
    """Check reward models as those of a recipe are.

    Raises:
        ConfigError: Lists every problem found.
    """
    if problems := [problem for problem in _rewards(rewards) if problem]:
        raise ConfigError("\n".join(problems))


def _problems(recipe: Recipe) -> Iterator[Problem]:
    for key, text in (("name", recipe.name), ("run_dir", recipe.run_dir)):
        if not text.strip():
            yield f"{key} must not be empty"
    yield at_least("num_steps", recipe.num_steps, 1)
    yield at_least("seed", recipe.seed, 0)
    yield from policy_problems(recipe.policy)
    yield from sampling_problems(recipe.sampling)
    yield from _prompts(recipe.prompts)
    yield from _rewards(recipe.rewards)
    yield from recipe.selection.problems()
    yield from _compared_dimensions(recipe)
    keys = [reward.key for reward in recipe.rewards]
    yield from agreeing_problems(recipe.selection.agree, keys, recipe.objective)
    yield from recipe.objective.problems(_around(recipe))
    yield from _source_of_examples(recipe)
    yield from optimizer_problems(recipe.optimizer)
    yield at_least("reference.interval", recipe.reference.interval, 0)
    yield at_least("rollouts.max_staleness", recipe.rollouts.max_staleness, 0)
    yield at_least("rollouts.canary_interval", recipe.rollouts.canary_interval, 0)
    yield at_least("rollouts.canary_tolerance", recipe.rollouts.canary_tolerance, 0)
    yield from generator_problems(recipe.generators)
    yield from worker_problems("encoder", recipe.encoder)
    yield from patience_problems("encoder", recipe.encoder)
    yield from learner_problems(recipe.learner)
    yield from sharing_problems(recipe)
    yield from experts_problems(recipe)
    yield from acceleration_problems(recipe.policy, recipe.sampling)
    yield from checkpoint_problems(recipe.checkpoint)
    yield from _archive(recipe.archive)
    yield from metrics_problems(recipe.metrics)
    yield from fixed_prompts_problems(
        recipe.fixed_prompts,
        learns_online=recipe.learns_online,
        evaluated=recipe.evaluation.source,
    )
    for index, name in enumerate(recipe.metrics.unseen):
        yield problem_of_function(f"metrics.unseen.{index}", name, "a Video")
    is_offline = bool(recipe.offline.archive)
    yield from evaluation_problems(recipe.evaluation, is_offline=is_offline)
    yield from guard_problems(recipe.guard)
    yield one_of("rehearsal", recipe.rehearsal, REHEARSALS)


def checkpoint_problems(checkpoint: CheckpointConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `checkpoint` section."""
    yield at_least("checkpoint.interval", checkpoint.interval, 0)
    yield at_least("checkpoint.keep", checkpoint.keep, 1)
    yield at_least("checkpoint.keep_every", checkpoint.keep_every, 0)
    yield one_of("checkpoint.sharded", checkpoint.sharded, ("auto", True, False))
    yield above("checkpoint.timeout_s", checkpoint.timeout_s, 0)
    yield at_least("checkpoint.patience_s", checkpoint.patience_s, 0)


def _archive(archive: ArchiveConfig) -> Iterator[Problem]:
    yield one_of("archive.videos", archive.videos, ARCHIVED_VIDEOS)
    yield at_least("archive.every", archive.every, 1)
    yield at_least("archive.keep_gb", archive.keep_gb, 0)
    yield above("archive.timeout_s", archive.timeout_s, 0)


def _prompts(prompts: PromptsConfig) -> Iterator[Problem]:
    yield from source_problems("prompts", prompts.source, prompts.column)
    yield at_least("prompts.per_round", prompts.per_round, 1)
    yield at_least("prompts.candidates_per_prompt", prompts.candidates_per_prompt, 2)


def _rewards(rewards: list[RewardConfig]) -> Iterator[Problem]:
    if not rewards:
        yield f"rewards must list at least one reward model ({', '.join(MODELS)}), got none"
    elif all(reward.weight == 0 for reward in rewards):
        yield "rewards must have a weight other than 0 on one of them, or all candidates tie"
    keys = [reward.key for reward in rewards]
    if len(set(keys)) < len(keys):
        yield f"rewards must have one label (default: the name) each, got {', '.join(keys)}"
    for i, reward in enumerate(rewards):
        yield from _reward(f"rewards.{i}", reward)
        if reward.key in ("generator", "encoder"):  # `videorl scale`, metrics
            yield f"rewards.{i}.label must not be {reward.key}, which is the name of another pool"


def _reward(key: str, reward: RewardConfig) -> Iterator[Problem]:
    yield problem_of(f"{key}.name", reward.name, reward.path, reward.options)
    yield finite(f"{key}.weight", reward.weight)
    for name, weight in reward.dimension_weights.items():
        yield finite(f"{key}.dimension_weights.{name}", weight)
    if reward.dimension_weights and not any(reward.dimension_weights.values()):
        yield (
            f"{key}.dimension_weights must not all be 0, or all candidates tie; to score without "
            f"learning from it, set {key}.weight=0"
        )
    yield from worker_problems(key, reward)
    yield at_least(f"{key}.decode_threads", reward.decode_threads, 0)
    yield at_least(f"{key}.prefetch", reward.prefetch, 0)
    if (reward.decode_threads or reward.prefetch) and reward.name == "moving_shapes":
        yield f"{key}: decode_threads and prefetch must be 0 for moving_shapes, it has no network"
    yield from patience_problems(key, reward)
    yield from _runtime_env(key, reward)


def _runtime_env(key: str, reward: RewardConfig) -> Iterator[Problem]:
    variables = reward.runtime_env.get("env_vars", {})
    if not isinstance(variables, dict) or not all(isinstance(v, str) for v in variables.values()):
        # Without the value, which may be a secret.
        yield f"{key}.runtime_env.env_vars must map names to texts; put numbers in quotes"
    for place in places_of_passwords(dataclasses.asdict(reward), key):
        yield (
            f"{place} must not hold a password in a URL, which logs and run folders would show; "
            "give it to the nodes, in ~/.netrc or pip's own settings"
        )


def _compared_dimensions(recipe: Recipe) -> Iterator[Problem]:
    selection, keys = recipe.selection, [reward.key for reward in recipe.rewards]
    for name in selection.dimensions():
        if name and len(keys) > 1 and not name.startswith(tuple(f"{key}." for key in keys)):
            yield (
                f"selection must rank by model.dimension, as there are several rewards "
                f"({', '.join(keys)}), got {name}"
            )
    for i, reward in enumerate(recipe.rewards):
        least = "> 0" if type(selection).weighing is Selection.weighing else ">= 0"
        is_right = reward.weight > 0 or (reward.weight == 0 and least == ">= 0")
        if selection.compares_every_dimension and not is_right:
            yield (
                f"rewards.{i}.weight must be {least} for selection.rule={selection.rule}, which "
                f"compares every dimension of every reward model, got {reward.weight}"
            )


def _around(recipe: Recipe) -> Surroundings:
    family = recipe.policy.family
    return Surroundings(
        family=family,
        is_rectified_flow=family not in DIFFUSION_FAMILIES,
        selection=recipe.selection,
        num_inference_steps=recipe.sampling.num_inference_steps,
    )


def _source_of_examples(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong between the objective and where its examples come from."""
    objective = recipe.objective
    if recipe.offline.archive and objective.learns_from != "pairs":
        yield (
            "offline.archive holds pairs, but objective.name="
            f"{objective.name} learns from {objective.learns_from}: use flow_dpo"
        )
    if objective.learns_from != "prompts":
        return
    for index, reward in enumerate(recipe.rewards):
        is_known = problem_of("", reward.name, reward.path, reward.options) is None
        if reward.weight and is_known and not is_differentiable(reward.name):
            yield (
                f"rewards.{index}.name must have a gradient for objective.name={objective.name} "
                f"({', '.join(DIFFERENTIABLE)}, or a class of yours with `score_pixels`), got "
                f"{reward.name}"
            )


def optimizer_problems(optimizer: OptimizerConfig) -> Iterator[Problem]:
    """Yield what is wrong with an `optimizer` section."""
    yield above("optimizer.learning_rate", optimizer.learning_rate, 0)
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield f"optimizer.betas must be two numbers in [0, 1), got {optimizer.betas}"
    yield at_least("optimizer.weight_decay", optimizer.weight_decay, 0)
    yield at_least("optimizer.warmup_steps", optimizer.warmup_steps, 0)
    yield at_least("optimizer.decay_steps", optimizer.decay_steps, 0)
    yield from _schedule(optimizer)
    yield above("optimizer.max_grad_norm", optimizer.max_grad_norm, 0)
    yield one_of("optimizer.fused", optimizer.fused, ("auto", True, False))


def _schedule(optimizer: OptimizerConfig) -> Iterator[Problem]:
    schedule, warmup, end = optimizer.schedule, optimizer.warmup_steps, optimizer.decay_steps
    if schedule not in ("", "constant", "linear", "cosine"):
        yield f"optimizer.schedule must be constant, linear or cosine, got {schedule!r}"
    elif schedule in ("linear", "cosine") and not end:
        yield f"optimizer.decay_steps must be set for optimizer.schedule={schedule}, got 0"
    elif schedule == "constant" and end:
        yield f"optimizer.decay_steps must be 0 for optimizer.schedule=constant, got {end}"
    elif 0 < end <= warmup:
        yield (
            f"optimizer.decay_steps must be > optimizer.warmup_steps ({warmup}), as it counts from "
            f"the first step, got {end}"
        )
