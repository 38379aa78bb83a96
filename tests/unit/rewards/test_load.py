"""Reward models by name."""

import pytest

from videorl import rewards
from videorl.errors import ConfigError


def test_known_models_load_and_unknown_names_suggest_the_nearest() -> None:
    assert "motion_quality" in rewards.load("moving_shapes").dimensions
    with pytest.raises(ConfigError, match=r"got moving_shape; did you mean moving_shapes\?"):
        rewards.load("moving_shape")


def test_wrong_options_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="options of moving_shapes"):
        rewards.load("moving_shapes", colour="red")
    with pytest.raises(ConfigError, match="reads no checkpoint"):
        rewards.load("moving_shapes", path="somewhere")
