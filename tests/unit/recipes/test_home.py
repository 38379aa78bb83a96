"""`~` and `$NAME` in paths."""

from __future__ import annotations

import pytest

from videorl.recipes.reading import load_recipe, load_rewards


@pytest.mark.parametrize("home", ["~", "$HOME", "${oc.env:HOME}"])
def test_home_is_found_in_every_path(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", "/user/me")
    keys = [
        "run_dir",
        "policy.path",
        "policy.lora.initial",
        "prompts.source",
        "evaluation.source",
        "evaluation.base_cache",
        "offline.archive",
        "checkpoint.location",
        "rewards.0.path",
        "rewards.0.options.base",
    ]
    recipe = load_recipe(
        {
            "base": "moving_shapes",
            "name": "x",
            "rewards": [
                {"name": "pick_score", "path": f"{home}/a", "options": {"base": f"{home}/a"}}
            ],
            "objective": {"name": "flow_dpo"},
            "run_dir": f"{home}/a",
            "policy": {"path": f"{home}/a", "lora": {"initial": f"{home}/a"}},
            "prompts": {"source": f"{home}/a"},
            "evaluation": {"source": f"{home}/a", "base_cache": f"{home}/a"},
            "offline": {"archive": f"{home}/a"},
            "checkpoint": {"location": f"{home}/a"},
            "sampling": {"negative_prompt": "~ $HOME"},
        }
    )
    for key in keys:
        value: object = recipe
        for word in key.split("."):
            if isinstance(value, list):
                value = value[int(word)]
            else:
                value = value[word] if isinstance(value, dict) else getattr(value, word)
        assert value == "/user/me/a", key
    assert recipe.sampling.negative_prompt == "~ $HOME"


def test_home_is_found_in_a_reward_that_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/user/me")
    [reward] = load_rewards(["video_reward=~/VideoReward"], None)
    assert reward.path == "/user/me/VideoReward"
