"""What the recipe says of processes that share videos: which settings contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.config import Recipe
from videorl.settings.bounds import Problem, at_least, one_of

CONTEXT_PARALLEL = ("ulysses", "ring")
"""Of `policy.context_parallel`."""
RING_BACKENDS = ("_flash_3_hub", "_native_cudnn", "_native_flash", "flash", "flash_hub")
"""Back ends of attention that hand out the logarithm of the softmax's normaliser, by which partial
results are put together, and have a gradient; by diffusers' names, compared in a test. PyTorch's
own choice (`auto`) does not hand it out, SageAttention has no gradient."""


def sharing_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with the settings `context_parallel` of learner and generators.

    Whether a model's heads and tokens can be divided is seen when its configuration is read.
    """
    learner, generators = recipe.learner, recipe.generators
    yield at_least("learner.context_parallel", learner.context_parallel, 1)
    yield at_least("generators.context_parallel", generators.context_parallel, 1)
    degree = max(learner.context_parallel, generators.context_parallel)
    policy = recipe.policy
    yield one_of("policy.context_parallel", policy.context_parallel, CONTEXT_PARALLEL)
    is_ring = degree > 1 and policy.context_parallel == "ring"
    if is_ring and policy.attention_backend not in RING_BACKENDS:
        yield (
            f"policy.attention_backend must be one of {', '.join(RING_BACKENDS)} where processes "
            "share videos by policy.context_parallel=ring, which needs the normaliser of each "
            f"part's softmax, got {policy.attention_backend}; or set policy.context_parallel="
            "ulysses"
        )
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
