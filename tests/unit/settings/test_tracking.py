"""Which trackers a recipe names, in the words of today and of before."""

from __future__ import annotations

import pytest

from videorl.errors import ConfigError
from videorl.guidance.recipe import load_latent_reward_recipe
from videorl.recipes.reading import load_recipe
from videorl.reward_training.recipes import load_reward_recipe
from videorl.settings.tracking import TRACKERS
from videorl.trackers import opening


def test_every_name_has_its_tracker() -> None:
    assert tuple(opening.OPTIONAL) == TRACKERS


def test_the_older_setting_means_what_it_meant() -> None:
    metrics = load_recipe("moving_shapes", ["metrics.wandb_project=mine"]).metrics
    assert metrics.chosen() == ["wandb"]
    assert metrics.project_of("wandb", "moving_shapes") == "mine"
    both = ["metrics.wandb_project=mine", "metrics.trackers=[mlflow,wandb]", "metrics.project=all"]
    metrics = load_recipe("moving_shapes", both).metrics
    assert metrics.chosen() == ["mlflow", "wandb"]
    assert [metrics.project_of(name, "moving_shapes") for name in metrics.chosen()] == [
        "all",
        "mine",
    ]
    usual = load_recipe("moving_shapes").metrics
    assert (usual.chosen(), usual.project_of("mlflow", "moving_shapes")) == ([], "moving_shapes")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("metrics.trackers=[comet]", r"metrics.trackers.0 must be one of wandb, trackio, mlflow"),
        ("metrics.trackers=[wandb,tensorboard]", r"trackers.1 must not be tensorboard, which is"),
        ("metrics.trackers=[wandb,wandb]", r"must name each once, got wandb, wandb"),
    ],
)
def test_what_no_tracker_can_do_is_refused(setting: str, said: str) -> None:
    for load in (
        lambda given: load_recipe("moving_shapes", given),
        lambda given: load_reward_recipe("moving_shapes_reward", given),
        lambda given: load_latent_reward_recipe("moving_shapes", given),
    ):
        with pytest.raises(ConfigError, match=said):
            load([setting])
