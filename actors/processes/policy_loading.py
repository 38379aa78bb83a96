"""How workers load a policy: a module of its own, as a worker imports what it is sent from."""

from __future__ import annotations

from functools import partial
from typing import Any

from videorl.config import Recipe
from videorl.policies import load_policy


def loader(recipe: Recipe, *names: str) -> Any:
    """Return a function of a device that loads these parts of the recipe's policy."""
    return partial(_load, recipe, frozenset(names))


def sharing_loader(recipe: Recipe, *names: str) -> Any:
    """Return the same for the processes of a generator, which may share every video."""
    return partial(_load_shared, recipe, frozenset(names))


def _load_shared(recipe: Recipe, names: frozenset[str], device: Any) -> Any:
    policy = _load(recipe, names, device)
    if recipe.generators.context_parallel > 1:
        from videorl.policies.parallel import share_videos

        share_videos(policy, recipe.policy, recipe.generators.context_parallel)
    return policy


def _load(recipe: Recipe, names: frozenset[str], device: Any) -> Any:
    return load_policy(recipe.policy, recipe.sampling, parts=names, device=device, seed=recipe.seed)
