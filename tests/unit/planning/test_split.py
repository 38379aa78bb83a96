"""Splitting GPUs over roles."""

from __future__ import annotations

from typing import Any

import pytest

from videorl.errors import ConfigError
from videorl.planning.counting import Counted
from videorl.planning.memory import Memory, Sizes
from videorl.planning.roles import LearnerChoice, Needs, Role
from videorl.planning.split import best_split
from videorl.recipes.reading import load_recipe


def needs(generate_s: float, item_s: float, items: int) -> Needs:
    """Return needs of a learner, a generator and a reward that takes a quarter of a second."""
    memory = Memory(1.0)
    choice = LearnerChoice(True, 1, memory, memory, item_s)
    times = {"learner": item_s, "generator": generate_s, "moving_shapes": 0.25}
    roles = {name: Role(name, memory, 1.0, 1, "", seconds) for name, seconds in times.items()}
    return Needs(Sizes(1, 1, 1, 1), choice, choice, choice, roles, items, 2, 1.0)


def recipe(staleness: int) -> Any:
    settings = [f"rollouts.max_staleness={staleness}", "prompts.per_round=64"]
    return load_recipe("moving_shapes", settings)


def test_work_decides_the_shares() -> None:
    # 64 requests of 10 s against 64 items of 10 s: as many generators as ranks.
    split = best_split(recipe(1), needs(10.0, 10.0, 64), 33)
    assert split.workers == {"learner": 16, "generator": 16, "moving_shapes": 1}


@pytest.mark.parametrize("num_gpus", [8, 4096])
def test_more_gpus_are_never_slower_and_never_exceeded(num_gpus: int) -> None:
    few, many = (best_split(recipe(1), needs(30.0, 5.0, 256), n) for n in (num_gpus // 2, num_gpus))
    assert many.pace.step_s <= few.pace.step_s * 1.001
    assert many.used <= num_gpus


def test_too_few_gpus() -> None:
    with pytest.raises(ConfigError, match="--gpus must be at least 3"):
        best_split(recipe(0), needs(1.0, 1.0, 8), 2)


def test_counts_extend_in_a_straight_line() -> None:
    assert Counted(1, 10).towards(Counted(3, 30), 5) == Counted(11, 110)
