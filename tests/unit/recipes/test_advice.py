"""Settings that waste work are said before a run starts; shipped recipes have none."""

from __future__ import annotations

import pytest

from videorl.config import Recipe
from videorl.recipes.advice import advice
from videorl.recipes.reading import RECIPES, load_recipe


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["num_steps=74"], "the learning rate is 0 from step 64 on, 10 steps before the end"),
        (
            ["generators.max_workers=13", "generators.candidates_per_request=0"],
            "13 generators have at most 12 requests at a time (prompts.per_round x "
            "(rollouts.max_staleness + 1) x parts of a prompt, 1): set "
            "generators.candidates_per_request=auto, raise prompts.per_round",
        ),
        (
            ["generators.max_workers=73"],
            "73 generators have at most 72 requests at a time (prompts.per_round x "
            "(rollouts.max_staleness + 1) x parts of a prompt, 6): raise prompts.per_round",
        ),
    ],
)
def test_settings_that_waste_work_are_said(overrides: list[str], said: str) -> None:
    (sentence,) = advice(load_recipe("moving_shapes", overrides))
    assert sentence.startswith(said)


def test_staleness_feeds_more_generators() -> None:
    settings = ["generators.max_workers=13", "generators.candidates_per_request=0"]
    assert advice(load_recipe("moving_shapes", [*settings, "rollouts.max_staleness=2"])) == []


@pytest.mark.parametrize(
    ("workers", "size", "parts"),
    [(8, 0, 1), (9, 2, 2), (16, 2, 2), (17, 1, 4), (32, 1, 4), (500, 1, 4)],
)
def test_prompts_are_split_where_there_are_more_generators(
    workers: int, size: int, parts: int
) -> None:
    """Eight prompts of four candidates are in flight: nobody idles up to 32 generators."""
    recipe = Recipe()
    recipe.generators.max_workers = workers
    assert (recipe.candidates_per_request(), recipe.parts_per_prompt()) == (size, parts)
    recipe.prompts.candidates_per_prompt = 5
    assert [recipe.parts_per_prompt(count) for count in (8, 16, 24)] == [1, 3, 5]


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_shipped_recipes_waste_nothing(name: str) -> None:
    assert advice(load_recipe(name)) == []
