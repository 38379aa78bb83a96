"""How much shared memory the videos of a run take while they travel, on a single machine."""

from __future__ import annotations

import logging

from videorl.config import Recipe

logger = logging.getLogger(__name__)

SMALLEST_BYTES = 512 * 2**20
"""Enough for small runs, and for weights and prompts beside the videos of others."""
_BYTES_PER_PIXEL = 4
"""Of a candidate: three of RGB, and at most one of its latents."""
_SPARE = 1.25
"""Objects are freed a little after their last use."""
_LARGEST_SHARE = 0.5
"""Of the memory that is free: the workers need the rest."""


def object_store_bytes(recipe: Recipe, free_bytes: float) -> int:
    """Return the size of the object store that holds all candidates which are alive at once.

    Those are a round that is learned from, a round that is sampled, and `rollouts.max_staleness`
    between them. A share of the free memory is the limit, which is logged where it counts; what
    does not fit then is written to disk and read again.

    Args:
        recipe: The run.
        free_bytes: Free memory and shared memory of the machine, the smaller of both.

    Returns:
        Bytes, at least `SMALLEST_BYTES`.
    """
    rounds = 2 + recipe.rollouts.max_staleness
    candidates = rounds * recipe.prompts.per_round * recipe.prompts.candidates_per_prompt
    wanted = round(candidates * recipe.video_pixels * _BYTES_PER_PIXEL * _SPARE)
    largest = int(free_bytes * _LARGEST_SHARE)
    if wanted > max(largest, SMALLEST_BYTES):
        logger.warning(
            "the candidates of %d rounds take %.1f GB, but the object store gets %.1f GB, half of "
            "the free (shared) memory: the others go to disk and back; a smaller prompts.per_round "
            "or rollouts.max_staleness, or a larger /dev/shm, avoids that",
            rounds,
            wanted / 1e9,
            max(largest, SMALLEST_BYTES) / 1e9,
        )
    return max(SMALLEST_BYTES, min(wanted, largest))


def free_memory_bytes() -> float:
    """Return the bytes that are free in memory and in /dev/shm, the smaller of both."""
    import shutil

    import psutil

    return min(psutil.virtual_memory().available, shutil.disk_usage("/dev/shm").free)
