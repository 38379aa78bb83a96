"""How much disk the checkpoints of a run take, for `videorl plan` and `videorl doctor`."""

from __future__ import annotations

from videorl.config import Recipe
from videorl.planning.sizes import Sizes


def checkpoint_bytes(recipe: Recipe, sizes: Sizes, itemsize: int) -> float:
    """Return the bytes of one checkpoint: weights and both moments, reference, versions in use.

    Args:
        recipe: The run.
        sizes: Of its learner.
        itemsize: Bytes of a number of published weights.
    """
    versions = recipe.versions_sampled * itemsize * sizes.trained
    return 3 * 4 * sizes.trained + sizes.reference_bytes + versions


def checkpoints_bytes(recipe: Recipe, sizes: Sizes, itemsize: int) -> float:
    """Return the most that a run's checkpoints take: those that are kept, and the next one.

    A checkpoint is written whole before an older one is removed. Of those that are kept for what
    their evaluation said there are three: the best, the best and the last that break no rule of
    the guard. Arguments as `checkpoint_bytes`.
    """
    config, at_most = recipe.checkpoint, recipe.checkpoint.keep + 1
    at_most += recipe.num_steps // config.keep_every if config.keep_every else 0
    at_most += 3 if recipe.evaluation.interval_in_use else 0
    return at_most * checkpoint_bytes(recipe, sizes, itemsize)
