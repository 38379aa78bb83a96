"""Settings that waste work are said before a run starts; shipped recipes have none."""

from __future__ import annotations

import pytest

from videorl.recipes.advice import advice
from videorl.recipes.reading import RECIPES, load_recipe


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["num_steps=70"], "the learning rate is 0 from step 60 on, 10 steps before the end"),
        (["generators.max_workers=9"], "9 generators have at most 8 prompts at a time"),
    ],
)
def test_settings_that_waste_work_are_said(overrides: list[str], said: str) -> None:
    (sentence,) = advice(load_recipe("moving_shapes", overrides))
    assert sentence.startswith(said)


def test_staleness_feeds_more_generators() -> None:
    settings = ["generators.max_workers=9", "rollouts.max_staleness=1"]
    assert advice(load_recipe("moving_shapes", settings)) == []


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_shipped_recipes_waste_nothing(name: str) -> None:
    assert advice(load_recipe(name)) == []
