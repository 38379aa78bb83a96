"""Shipped recipes made small: their own settings, on tiny models of their family, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.families import TINY
from tests.families.wan_i2v import PICTURE, save_tiny_wan_i2v
from videorl.config import Recipe
from videorl.policies import takes_images
from videorl.recipes.reading import load_recipe
from videorl.worlds import grammar

SHIPPED_REWARD = "moving_shapes_reward"

SETTINGS: dict[str, object] = {
    "num_steps": 2,
    "policy.lora.rank": 4,
    "policy.compile": "none",  # takes longer than the run; tests/contracts/test_acceleration.py
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
    "rollouts.max_staleness": 0,
    "generators.min_workers": 1,
    "generators.max_workers": 1,
    "generators.num_gpus": "null",
    "encoder.num_gpus": "null",
    "learner.num_workers": 1,
    "learner.context_parallel": 1,
    "learner.num_gpus": "null",
    "evaluation.source": "",
}


def small_recipe(
    name: str,
    checkpoints: Mapping[str, Path],
    run_dir: Path,
    changes: Mapping[str, object] | None = None,
) -> Recipe:
    """Return a shipped recipe for two steps on the CPU, with its own rewards if these are shipped.

    Otherwise Moving Shapes rewards it, or its learned reward where a gradient is needed.

    Args:
        name: Of the recipe.
        checkpoints: Policy family -> folder.
        run_dir: Where it runs.
        changes: Settings beside or instead of `SETTINGS`.
    """
    shipped = load_recipe(name)
    settings = {
        **SETTINGS,
        **_sizes(shipped.policy.family),
        "policy.path": checkpoints[shipped.policy.family],
        "run_dir": run_dir,
    }
    if "TI2V" in shipped.policy.path and takes_images(shipped.policy.family):
        folder = run_dir.with_name("ti2v")
        settings["policy.path"] = save_tiny_wan_i2v(folder, is_ti2v=True)
    if takes_images(shipped.policy.family):
        settings["prompts.source"] = _with_pictures(run_dir)
    if all(reward.path in (None, SHIPPED_REWARD) for reward in shipped.rewards):
        del settings["rewards"]
    elif shipped.objective.learns_from == "prompts":
        settings["rewards"] = f"[{{name: video_reward, path: {SHIPPED_REWARD}}}]"
    settings |= changes or {}
    return load_recipe(name, [f"{key}={value}" for key, value in settings.items()])


def _sizes(family: str) -> dict[str, object]:
    """Return what a family needs of the size of its tiny videos and texts."""
    tiny, names = TINY[family], ["max_sequence_length"]
    if "num_frames" in tiny.settings:
        names += ["num_frames", "height", "width"]
    return {f"sampling.{name}": getattr(tiny.sampling(), name) for name in names}


def _with_pictures(run_dir: Path) -> Path:
    """Write prompts of Moving Shapes that all begin with one picture; return the file."""
    rows = [{"prompt": text, "image": str(PICTURE)} for text in grammar.prompts("train")[:8]]
    file = run_dir.with_name("prompts.jsonl")
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


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
