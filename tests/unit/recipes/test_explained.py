"""Recipes in full: every value says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.guidance.recipe import LatentRewardRecipe, load_latent_reward_recipe
from videorl.recipes.explained import Kind, explained, find_any
from videorl.recipes.kinds import FOLDERS, headline, shipped
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.recipes import load_reward_recipe

KINDS = [
    Kind(Recipe, load_recipe),
    Kind(RewardRecipe, load_reward_recipe),
    Kind(LatentRewardRecipe, load_latent_reward_recipe),
]


def test_a_printed_recipe_says_where_each_value_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "base: moving_shapes\nname: own\noptimizer: {decay_steps: 9}\n"
        "rewards: [{name: moving_shapes, runtime_env: {}}]\n",
    )
    overrides = ["optimizer.betas=[0.5, 0.6]", "objective.name=sft", "reference={interval: 3}"]
    text = explained(KINDS[0], path, overrides)
    assert yaml.safe_load(text) == yaml.safe_load(to_yaml(load_recipe(str(path), overrides)))
    for setting, place in {
        "name: own": str(path),
        "- name: moving_shapes": str(path),
        "decay_steps: 9": str(path),
        "runtime_env: {}": str(path),
        "learning_rate: 0.0014": "moving_shapes.yaml",
        "- ffn.net.2": "moving_shapes.yaml",
        "timesteps_per_pair: 4": "moving_shapes.yaml",
        "name: sft": "override",
        "- 0.6": "override",
        "interval: 3": "override",
        "run_dir: runs/own": "default",
        "sft_on: chosen": "default",
        "max_retries: 3": "default",
        "dimension_weights: {}": "default",
    }.items():
        said = [line for line in text.splitlines() if line.strip().startswith(f"{setting} ")]
        assert {line.partition("  # ")[2] for line in said} == {place}, setting


def test_what_a_replaced_list_leaves_out_is_a_default(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: moving_shapes\nname: own\nrewards: [{name: moving_shapes}]\n")
    shipped = find_any(KINDS, "moving_shapes")[1]
    for file, overrides in ((path, ()), (shipped, ["rewards=[{name: moving_shapes}]"])):
        text = explained(KINDS[0], file, overrides)
        rewards = text[text.index("rewards:") : text.index("selection:")]
        assert re.search(r"num_cpus: 1.0 +# default", rewards), file
    assert re.search(r"num_cpus: 0.25 +# moving_shapes.yaml", explained(KINDS[0], shipped))


def test_what_must_be_set_yet_is_printed_too() -> None:
    kind, path = find_any(KINDS, "video_reward")
    text = explained(kind, path)
    assert kind.command == "train_reward"
    assert re.search(r"\n  train: \?\?\? +# rewards/video_reward.yaml\n", text)
    with pytest.raises(ConfigError, match="num_steps must be >= 1"):
        explained(kind, path, ["num_steps=0", "labels.train=t.csv"])


def test_a_printed_recipe_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    override = "rewards.0.runtime_env.env_vars={HF_TOKEN: '${oc.env:HF_TOKEN}'}"
    text = explained(*find_any(KINDS, "moving_shapes"), [override])
    assert "hf_abc" not in text
    assert re.search(r"HF_TOKEN: .*\$\{oc.env:HF_TOKEN.* # override", text)


def test_the_kind_of_a_file_is_that_whose_settings_it_has(tmp_path: Path) -> None:
    reward = tmp_path / "reward.yaml"
    reward.write_text("base: video_reward\nname: own\nlabels: {train: t.csv}\n")
    latent = tmp_path / "latent.yaml"
    latent.write_text("base: moving_shapes\nname: own\nnoise: {shift: 2}\n")
    assert [find_any(KINDS, str(path))[0].command for path in (reward, latent)] == [
        "train_reward",
        "train_latent_reward",
    ]
    assert find_any(KINDS, "moving_shapes")[0].command == "train"
    assert find_any(KINDS[2:], "moving_shapes")[1].parent.name == "latent_rewards"
    with pytest.raises(ConfigError, match=r"no recipe 'video_rewards'.*did you mean video_reward"):
        find_any(KINDS[1:2], "video_rewards")
    with pytest.raises(ConfigError, match=r"did you mean video_reward\?"):
        find_any(KINDS, "vidio_reward")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_every_shipped_recipe_describes_itself_and_can_be_printed(kind: Kind) -> None:
    assert FOLDERS.keys() == {known.command for known in KINDS}
    for path in shipped(kind.command):
        description, verified = headline(path)
        assert description.endswith("."), path
        assert verified != "not said", path
        assert find_any([kind], path.stem) == (kind, path)
    assert explained(kind, shipped(kind.command)[0]).startswith("name: ")
