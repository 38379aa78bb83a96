"""Splitting GPUs over roles."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from videorl.errors import ConfigError
from videorl.planning.counting import Counted
from videorl.planning.roles import LearnerChoice, Needs, Role
from videorl.planning.sizes import Memory, Sizes
from videorl.planning.split import best_split
from videorl.recipes.reading import load_recipe


def needs(generate_s: float, item_s: float, items: int) -> Needs:
    """Return needs of a learner, a generator and a reward that takes a quarter of a second."""
    memory = Memory(1.0)
    choice = LearnerChoice(True, 1, memory, memory, item_s)
    times = {"learner": item_s, "generator": generate_s, "moving_shapes": 0.25}
    roles = {name: Role(name, memory, 1.0, 1, "", seconds) for name, seconds in times.items()}
    return Needs(Sizes(1, 1, 1, 1), choice, choice, choice, roles, items, 2, {})


def recipe(staleness: int) -> Any:
    settings = [f"rollouts.max_staleness={staleness}", "prompts.per_round=64"]
    return load_recipe("moving_shapes_dpo", settings)


def test_work_decides_the_shares() -> None:
    # 64 requests of 10 s against 64 items of 10 s: as many generators as ranks.
    split = best_split(recipe(1), needs(10.0, 10.0, 64), 33)
    assert split.workers == {"learner": 16, "generator": 16, "moving_shapes": 1}


@pytest.mark.parametrize("num_gpus", [8, 4096])
def test_more_gpus_are_never_slower_and_never_exceeded(num_gpus: int) -> None:
    few, many = (best_split(recipe(1), needs(30.0, 5.0, 256), n) for n in (num_gpus // 2, num_gpus))
    assert many.pace.step_s <= few.pace.step_s * 1.001
    assert many.used <= num_gpus


def test_prompts_are_split_for_generators_that_would_idle() -> None:
    chosen = recipe(0)  # 64 prompts of four candidates
    slow = needs(1000.0, 1.0, 64)
    split = best_split(chosen, slow, 4096)
    assert split.workers["generator"] == 256
    chosen.generators.candidates_per_request = 0
    whole = best_split(chosen, slow, 4096)
    assert whole.workers["generator"] == 64
    assert split.pace.step_s < whole.pace.step_s / 3


def test_updates_of_a_step_go_one_after_the_other() -> None:
    learner = needs(1.0, 2.0, 10)
    assert [learner.learn_s(4, updates) for updates in (1, 2, 5)] == [6.0, 8.0, 10.0]


def test_ranks_that_share_videos_come_in_groups() -> None:
    shared = replace(needs(10.0, 10.0, 64), ranks_per_item=4)
    assert shared.learn_s(8) == 320  # two groups
    split = best_split(recipe(1), shared, 33)
    assert split.workers["learner"] % 4 == 0
    assert 24 < split.used <= 33
    with pytest.raises(ConfigError, match="--gpus must be at least 6"):
        best_split(recipe(1), shared, 5)


def test_thousands_of_gpus_are_split_in_seconds() -> None:
    wide = load_recipe("moving_shapes_dpo", ["rollouts.max_staleness=1", "prompts.per_round=1024"])
    started = time.process_time()
    splits = [best_split(wide, needs(60.0, 10.0, 4096), count) for count in (8, 512, 4096)]
    assert time.process_time() - started < 20
    steps = [split.pace.step_s for split in splits]
    assert steps == sorted(steps, reverse=True)
    assert splits[-1].used > 2048


def test_too_few_gpus() -> None:
    with pytest.raises(ConfigError, match="--gpus must be at least 3"):
        best_split(recipe(0), needs(1.0, 1.0, 8), 2)


def test_counts_extend_in_a_straight_line() -> None:
    assert Counted(1, 10).towards(Counted(3, 30), 5) == Counted(11, 110)
