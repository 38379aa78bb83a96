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

    A checkpoint is written whole before an older one is removed. Arguments as `checkpoint_bytes`.
    """
    return (recipe.checkpoint.keep + 1) * checkpoint_bytes(recipe, sizes, itemsize)
