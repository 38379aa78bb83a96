"""Train a latent reward in this process, from start to the saved folder."""

from __future__ import annotations

from collections.abc import Callable

from videorl.guidance.recipe import LatentRewardRecipe
from videorl.guidance.task import load_latent_reward_task
from videorl.learning.engines.local import LocalEngine
from videorl.reward_training.fit import Trainer, fit, outcome
from videorl.reward_training.trainer import RewardTrainer
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import open_checkpoints
from videorl.run.folder import RunFolder
from videorl.run.sinks import open_sinks


def train_latent_reward(
    recipe: LatentRewardRecipe, folder: RunFolder, should_stop: Callable[[], bool]
) -> bool:
    """Start or continue a training; return whether it reached its last step.

    The result is saved in `folder.reward`.

    Raises:
        ConfigError, DatasetError, CheckpointError: As in `load_latent_reward_task`.
    """
    task = load_latent_reward_task(recipe)
    engine = LocalEngine(task.module, recipe.optimizer)
    checkpoints = open_checkpoints(recipe.checkpoint, folder.root)
    trainer: Trainer = RewardTrainer(task, engine, recipe, checkpoints)
    with open_sinks(recipe, folder) as sinks:
        note = CheckpointNote(folder.root, recipe.checkpoint)
        is_over = fit(recipe, trainer, sinks, folder.reward, should_stop, note)
        if is_over:
            sinks.summary(outcome(recipe))
        return is_over
