"""Shipped recipes made small: their own settings, on tiny models of their family, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from videorl.config import Recipe
from videorl.recipes.reading import load_recipe

SHIPPED_REWARD = "moving_shapes_reward"

SETTINGS: dict[str, object] = {
    "num_steps": 2,
    "policy.lora.rank": 4,
    "sampling.num_frames": 9,
    "sampling.height": 32,
    "sampling.width": 32,
    "sampling.num_inference_steps": 2,
    "sampling.max_sequence_length": 16,
    "prompts.source": "moving_shapes",
    "prompts.per_round": 2,
    "prompts.candidates_per_prompt": 3,
    "rewards": "[{name: moving_shapes}]",
    "selection.min_margin": 0,
    "generators.min_workers": 1,
    "generators.max_workers": 1,
    "generators.num_gpus": "null",
    "encoder.num_gpus": "null",
    "learner.num_workers": 1,
    "learner.num_gpus": "null",
    "evaluation.source": "",
}


def small_recipe(name: str, checkpoints: Mapping[str, Path], run_dir: Path) -> Recipe:
    """Return a shipped recipe for two steps on the CPU, with its own rewards if these are shipped.

    Otherwise Moving Shapes rewards it.

    Args:
        name: Of the recipe.
        checkpoints: Policy family -> folder.
        run_dir: Where it runs.
    """
    shipped = load_recipe(name)
    settings = {
        **SETTINGS,
        "policy.path": checkpoints[shipped.policy.family],
        "run_dir": run_dir,
    }
    if all(reward.path in (None, SHIPPED_REWARD) for reward in shipped.rewards):
        del settings["rewards"]
    return load_recipe(name, [f"{key}={value}" for key, value in settings.items()])


def ablation_changes(checkpoint: Path) -> list[str]:
    """Return settings that make every arm of an ablation as small, for a tiny Wan checkpoint."""
    settings = {
        **SETTINGS,
        "policy.path": checkpoint,
        "checkpoint.interval": 1,
        # One step shows in the scores.
        "optimizer.learning_rate": 1e-1,
        "evaluation.source": "moving_shapes",
        "evaluation.num_prompts": 2,
    }
    del settings["num_steps"]
    return [f"{key}={value}" for key, value in settings.items()]
