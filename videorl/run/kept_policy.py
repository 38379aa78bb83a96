"""The policy of a run as it was at one of its steps, from a checkpoint that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from videorl.config import PolicyConfig, Recipe
from videorl.policies import load_policy
from videorl.protocols import Policy
from videorl.recipes.reading import load_recipe
from videorl.run.compute_type import as_in_run_of
from videorl.run.inputs import check_unchanged
from videorl.run.published_weights import newest_weights
from videorl.types import WeightVersion


def load_kept_policy(
    recipe: Recipe,
    root: Path,
    step: int | None,
    parts: frozenset[str],
    device: torch.device | None = None,
) -> tuple[Policy, WeightVersion]:
    """Return the policy with the weights of a checkpoint, for sampling and export.

    Args:
        recipe: Of the run, perhaps with other settings of sampling.
        root: The run folder.
        step: Of the checkpoint; None = the newest.
        parts: Of the policy, that are loaded.
        device: Where to; None = the GPU if there is one.

    Raises:
        CheckpointError: There is none of this step.
        WeightMismatchError: Its weights are of another model than the recipe names.
    """
    version, weights = newest_weights(recipe.checkpoint, root, step)
    policy = load_policy(
        recipe.policy, recipe.sampling, parts=parts, device=device, seed=recipe.seed
    )
    policy.load_weights(weights)
    return policy, version


def export_kept(root: Path, step: int, directory: Path) -> None:
    """Write the weights of a kept step as a finished run writes its last ones, on the CPU.

    Raises:
        RunFolderError: What the run was trained on top of has changed.
        CheckpointError: There is no checkpoint of this step.
    """
    recipe = as_in_run_of(load_recipe(str(root / "config.yaml")), [root / "config.yaml"])
    check_unchanged(root, recipe)
    # It computes next to nothing here: what GPUs compute with is not asked for.
    plain = PolicyConfig()
    changed = replace(
        recipe.policy, attention_backend=plain.attention_backend, compile=plain.compile
    )
    recipe = replace(recipe, policy=changed)
    parts = frozenset({"transformer"})
    policy, _ = load_kept_policy(recipe, root, step, parts, torch.device("cpu"))
    directory.mkdir(parents=True, exist_ok=True)
    policy.export(directory)
