"""What runs ask of the plan: how many videos fit at once, and what each role needs."""

from __future__ import annotations

import logging
from dataclasses import replace

from videorl.config import Recipe
from videorl.errors import CheckpointError, ConfigError
from videorl.planning.cards import Card
from videorl.planning.models import Configs, read_configs
from videorl.planning.roles import choose_learner, count_needs

logger = logging.getLogger(__name__)


def with_micro_batch(recipe: Recipe, memory_gib: float) -> Recipe:
    """Return the recipe with a number in place of `auto`, if the learner has a GPU.

    What cannot be planned, such as a policy of your own, takes one video at a time.

    Args:
        recipe: The run.
        memory_gib: Of a learner rank's GPU, or of its share of one; 0 = it has none.
    """
    if recipe.learner.micro_batch_size != "auto" or not memory_gib:
        return recipe
    card = Card("the learner's GPU", memory_gib, tflops=1.0)
    try:
        choice = choose_learner(recipe, read_configs(recipe.policy.path), card)
    except (ConfigError, CheckpointError) as error:
        logger.info("learner.micro_batch_size=auto is 1, as the plan cannot say more: %s", error)
        return _with(recipe, 1)
    if choice.micro_batch_size == 0:
        logger.warning(
            "learner.micro_batch_size=auto is 1, but by the plan a video needs %.1f GiB and %.1f "
            "are usable: see `videorl plan` for what to change",
            choice.one_video.peak_gib,
            card.usable_gib,
        )
        return _with(recipe, 1)
    logger.info(
        "learner.micro_batch_size=auto is %d: %.1f of %.1f usable GiB by the plan",
        choice.auto,
        choice.memory.peak_gib,
        card.usable_gib,
    )
    return _with(recipe, choice.auto)


def check_sharing_of(recipe: Recipe, configs: Configs | None = None) -> None:
    """Check that learner ranks and generators can share videos as the recipe says.

    Args:
        recipe: The run.
        configs: Of its policy; None = they are read, if any are shared.

    Raises:
        ConfigError: The family cannot, or a number of processes does not divide heads and tokens.
    """
    if not recipe.shares_videos:
        return
    settings = {
        "learner.context_parallel": recipe.learner.context_parallel,
        "generators.context_parallel": recipe.generators.context_parallel,
    }
    from videorl.policies.parallel import check_sharing

    try:
        parts = (configs or read_configs(recipe.policy.path)).parts
    except CheckpointError as error:  # the workers may have it all the same
        logger.warning("whether processes can share videos is not checked: %s", error)
        return
    for setting, degree in settings.items():
        check_sharing(
            recipe.policy.family,
            parts,
            recipe.sampling,
            degree,
            setting,
            by_ring=recipe.policy.context_parallel == "ring",
        )


def peaks(recipe: Recipe) -> str:
    """Return a sentence with the peak of every role by the plan; empty if it cannot be planned.

    Where the recipe leaves the learner's videos at once open, it is that of one.
    """
    card = Card("any", memory_gib=1e6, tflops=1.0)
    if recipe.learner.micro_batch_size == "auto":
        recipe = _with(recipe, 1)  # so large a card would take as many as there may be
    try:
        roles = count_needs(recipe, read_configs(recipe.policy.path), card).roles
    except (ConfigError, CheckpointError):
        return ""
    named = ", ".join(f"{name} {role.memory.peak_gib:.1f} GiB" for name, role in roles.items())
    return f"By the plan they need, of one GPU each: {named} (`videorl plan` says more)"


def own_memory_gib() -> float:
    """Return the memory of this process's GPU in GiB; 0 = it has none."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.get_device_properties(0).total_memory / 2**30


def _with(recipe: Recipe, number: int) -> Recipe:
    return replace(recipe, learner=replace(recipe.learner, micro_batch_size=number))
