"""Recipes with flat sections, from older run folders, are read, and their runs go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from videorl.config import Recipe
from videorl.objectives.refl import ReFL
from videorl.recipes.fingerprint import differences
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.run.folder import open_run

OLDER = Path(__file__).resolve().parents[2] / "fixtures/flat_recipes"
NAMES = sorted(path.stem for path in OLDER.glob("*.yaml"))
SINCE = {"moving_shapes": "moving_shapes_dpo"}
"""Where the settings of an older recipe are today, if not under its name."""


def today_of(name: str, *overrides: str) -> Recipe:
    return load_recipe(SINCE.get(name, name), [f"name={name}", *overrides])


@pytest.mark.parametrize("name", NAMES)
def test_an_older_recipe_is_that_of_today(name: str) -> None:
    today = today_of(name, "run_dir=runs/old")
    older = load_recipe(str(OLDER / f"{name}.yaml"))
    # It counted pairs then, and counts videos now: the same gradient up to rounding.
    today.learner.micro_batch_size = older.learner.micro_batch_size
    today.policy.gradient_checkpointing = older.policy.gradient_checkpointing  # auto today
    assert older == today
    assert differences((OLDER / f"{name}.yaml").read_text(), to_yaml(today), Recipe) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_older_run_folder_is_opened_again(name: str, tmp_path: Path) -> None:
    shutil.copy(OLDER / f"{name}.yaml", tmp_path / "config.yaml")
    (tmp_path / "fingerprint").write_text("of a schema that had other settings")
    with open_run(today_of(name, f"run_dir={tmp_path}")):
        pass
    assert load_recipe(str(tmp_path / "config.yaml")).objective == today_of(name).objective


def test_settings_of_refl_move_into_the_objective(tmp_path: Path) -> None:
    settings = yaml.safe_load((OLDER / "moving_shapes_refl.yaml").read_text())
    settings["refl"] |= {"stop_from": 0.5, "enough": 2.0}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert load_recipe(str(path)).objective == ReFL(stop_from=0.5, enough=2.0)
    today = to_yaml(load_recipe("moving_shapes_refl"))
    changed = differences(path.read_text(), today, Recipe)
    assert changed == ["objective.enough: 2.0 -> unset", "objective.stop_from: 0.5 -> 0.75"]


def test_a_changed_setting_that_had_no_effect_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the run folder of `moving_shapes objective.name=sft`, whose beta is the recipe's."""
    settings = yaml.safe_load((OLDER / "moving_shapes.yaml").read_text())
    settings["objective"]["name"] = "sft"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    today = today_of("moving_shapes", "objective.name=sft")
    assert load_recipe(str(path)).objective == today.objective
    assert "left out, as they never had an effect here: objective.beta=150.0" in caplog.text
    again = to_yaml(today_of("moving_shapes", "objective.name=sft", "run_dir=runs/old"))
    assert differences(path.read_text(), again, Recipe) == []
