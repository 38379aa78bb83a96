"""What is allowed in a recipe and yet is hardly meant: said once, before a run starts."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.config import Recipe


def advice(recipe: Recipe) -> list[str]:
    """Return sentences about settings that waste work; each says what to change."""
    return [*_rate_falls_to_zero(recipe), *_idle_generators(recipe)]


def _rate_falls_to_zero(recipe: Recipe) -> Iterator[str]:
    end = recipe.optimizer.decay_steps
    if 0 < end < recipe.num_steps:
        yield (
            f"the learning rate is 0 from step {end} on, {recipe.num_steps - end} steps before the "
            f"end: set optimizer.decay_steps to num_steps ({recipe.num_steps}), or leave it out"
        )


def _idle_generators(recipe: Recipe) -> Iterator[str]:
    """A request is a prompt or a part of it, of no more rounds than staleness allows."""
    if not recipe.learns_online:
        return
    parts = recipe.parts_per_prompt()
    requests = recipe.prompts_in_flight * parts
    if (workers := recipe.generators.max_workers) <= requests:
        return
    can_split = parts < recipe.prompts.candidates_per_prompt
    split = "set generators.candidates_per_request=auto, " if can_split else ""
    yield (
        f"{workers} generators have at most {requests} requests at a time (prompts.per_round x "
        f"(rollouts.max_staleness + 1) x parts of a prompt, {parts}): {split}raise "
        "prompts.per_round, or lower generators.max_workers"
    )
