"""Recipes of reward-model training: shipped ones are valid, bad settings are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from videorl.errors import ConfigError
from videorl.reward_training.recipes import REWARD_RECIPES, load_reward_recipe


@pytest.mark.parametrize("path", sorted(REWARD_RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_is_valid_and_named_as_its_file(path: Path) -> None:
    recipe = load_reward_recipe(path.stem, ["labels.train=train.csv"])
    assert recipe.name == path.stem
    assert recipe.run_dir == f"runs/{path.stem}"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("labels.trian=x", "unknown key labels.trian .*nearest known one is labels.train"),
        ("model.name=videoreward", "model.name must be one of video_reward"),
        ("model.lora.dropout=1", r"model.lora.dropout must be in \[0, 1\)"),
        ("model.max_frame_pixels=5", "model.max_frame_pixels must be >= 100352"),
        ("learner.num_workers=3", "labels.batch_size must be a multiple of learner.num_workers"),
        ("learner.updates_per_round=2", "learner.updates_per_round must be 1: labelled examples"),
        ("learner.loss_over=planned", "learner.loss_over must be found: labelled examples"),
        ("model.sampled_fps=fast", "model.sampled_fps must be a number"),
        ("rewards.0.weight=1", "unknown key rewards"),
    ],
)
def test_bad_settings_are_named(override: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_reward_recipe("video_reward", ["labels.train=train.csv", override])


def test_required_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"must set labels\.train"):
        load_reward_recipe("video_reward")
