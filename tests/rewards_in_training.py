"""A tiny VideoReward in training on labelled pairs of Moving Shapes, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from videorl.learning.engines.local import LocalEngine
from videorl.pretraining.labelled_pairs import Raters, write_labelled_pairs
from videorl.pretraining.reward_base import save_reward_base
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.tasks import load_task
from videorl.reward_training.trainer import RewardTrainer
from videorl.run.checkpoints import CheckpointFolder


def write_labels_and_base(folder: Path) -> Path:
    """Write 7 labelled pairs to train on, 5 held out, and an untrained base of width 32."""
    save_reward_base(folder / "base", width=32, layers=2)
    write_labelled_pairs(folder / "train.csv", "train", 7, 0, Raters())
    write_labelled_pairs(folder / "held_out.csv", "held_out", 5, 0, Raters())
    return folder


def reward_recipe(folder: Path, *, rank: int = 4) -> RewardRecipe:
    """Return a recipe on what `write_labels_and_base` wrote: batches of 4, in halves."""
    recipe = RewardRecipe(name="tiny", num_steps=4)
    model, labels = recipe.model, recipe.labels
    model.base, model.sampled_fps = str(folder / "base"), 4.0
    model.min_frame_pixels = model.max_frame_pixels = 784
    model.lora.rank, model.lora.dropout = rank, 0.1
    labels.train, labels.held_out = str(folder / "train.csv"), str(folder / "held_out.csv")
    labels.batch_size = 4
    recipe.learner.micro_batch_size = 2
    recipe.optimizer.learning_rate = 1e-2
    recipe.optimizer.weight_decay = 0.1
    recipe.evaluation.interval = 2
    recipe.checkpoint.interval = 2
    return recipe


def local_trainer(recipe: RewardRecipe, checkpoints: Path) -> RewardTrainer:
    """Return a trainer in this process."""
    task = load_task(recipe, torch.device("cpu"))
    engine = LocalEngine(task.module, recipe.optimizer)
    return RewardTrainer(task, engine, recipe, CheckpointFolder(checkpoints, 2))
