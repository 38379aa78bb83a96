"""What the recipe says of processes that share videos: which settings contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.config import Recipe
from videorl.settings.bounds import Problem, at_least


def sharing_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with the settings `context_parallel` of learner and generators.

    Whether a model's heads and tokens can be divided is seen when its configuration is read.
    """
    learner, generators = recipe.learner, recipe.generators
    yield at_least("learner.context_parallel", learner.context_parallel, 1)
    yield at_least("generators.context_parallel", generators.context_parallel, 1)
    degree = max(learner.context_parallel, generators.context_parallel)
    if degree > 1 and recipe.sampling.step_cache != "none":
        yield (
            "sampling.step_cache must be none where processes share videos (context_parallel="
            f"{degree}), as each would decide by its own part what to skip, got "
            f"{recipe.sampling.step_cache}"
        )
    if (degree := learner.context_parallel) > 1:
        shared = f"where ranks share videos (learner.context_parallel={degree})"
        if learner.num_workers % degree:
            yield (
                f"learner.num_workers must be a multiple of {degree} {shared}, got "
                f"{learner.num_workers}"
            )
        if learner.max_workers:
            yield (
                f"learner.max_workers must be 0 {shared}, as Ray Train would use any number of "
                f"ranks, got {learner.max_workers}"
            )
        if learner.zero_stage == 3 and not recipe.policy.lora.rank:
            yield (
                "learner.zero_stage must be 0, 1 or 2 where ranks share videos and all weights are "
                f"trained (learner.context_parallel={degree}): stage 3 was not tried there, got 3"
            )
        if recipe.objective.learns_from == "prompts":
            yield (
                f"learner.context_parallel must be 1 for objective.name={recipe.objective.name}: "
                "its gradient passes through the model's input, of which each rank knows only its "
                f"part, got {degree}"
            )
    if (degree := generators.context_parallel) > 1 and generators.num_gpus not in (None, 0, 1):
        yield (
            "generators.num_gpus must be null, 0 or 1 where processes share videos, each on its "
            f"own GPU (generators.context_parallel={degree}), got {generators.num_gpus}"
        )
