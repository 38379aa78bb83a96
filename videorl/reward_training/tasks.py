"""The reward models that can be trained, by name: `TASKS` has a line for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from videorl.errors import ConfigError
from videorl.reward_training.task import RewardTask

if TYPE_CHECKING:
    import torch

    from videorl.reward_training.config import RewardRecipe


def _video_reward(recipe: RewardRecipe, device: torch.device) -> RewardTask:
    from videorl.reward_training.video_reward_task import load_video_reward_task

    return load_video_reward_task(recipe, device)


def _video_score(recipe: RewardRecipe, device: torch.device) -> RewardTask:
    from videorl.reward_training.video_score_task import load_video_score_task

    return load_video_score_task(recipe, device)


TASKS: dict[str, Callable[[RewardRecipe, torch.device], RewardTask]] = {
    "video_reward": _video_reward,
    "video_score": _video_score,
}
"""Name in `model.name` -> loader, which does the heavy imports."""


def load_task(recipe: RewardRecipe, device: torch.device) -> RewardTask:
    """Load the model and the labels that a recipe names.

    Raises:
        ConfigError: The model is unknown, or a setting does not fit it.
        CheckpointError: The base model cannot be read.
        DatasetError: The labels cannot be read.
    """
    if recipe.model.name not in TASKS:
        raise ConfigError(
            f"model.name: no training of {recipe.model.name!r}; known are {', '.join(TASKS)}"
        )
    return TASKS[recipe.model.name](recipe, device)
