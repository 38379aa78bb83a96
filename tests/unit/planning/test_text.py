"""The plan in words: what does not fit, and what would be better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from videorl.planning.cards import GIB, find_card
from videorl.planning.memory import Memory, Sizes
from videorl.planning.models import Configs
from videorl.planning.plan import Plan
from videorl.planning.roles import LearnerChoice, Needs, Role
from videorl.planning.split import as_recipe
from videorl.planning.text import as_text
from videorl.recipes.reading import load_recipe

CARD = find_card("mine", 100, 100)  # 93 GiB of it are usable


def plan(learner_gib: float, most: int, **changes: Any) -> Plan:
    """Return the plan of a learner that needs so much, and lets so many videos fit."""
    settings = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    recipe = load_recipe("moving_shapes", settings)
    memory = Memory(learner_gib * GIB)
    choice = LearnerChoice(True, most, memory, memory, 1.0)
    other = replace(choice, checkpointing=False, micro_batch_size=0)
    names = ("learner", "generator", "moving_shapes")
    roles = {name: Role(name, Memory(GIB), 1.0, 1, "a unit", 1.0) for name in names}
    roles["learner"] = replace(roles["learner"], memory=memory)
    needs = Needs(Sizes(1, 1, 1, 1), choice, other, choice, roles, 8, 2, 1.0)
    configs = Configs("here", {}, {}, {}, {"transformer": 2, "vae": 2, "text_encoder": 2})
    return Plan(recipe, configs, CARD, needs, as_recipe(recipe, needs), 3)


def test_what_fits_has_no_problem() -> None:
    fits = plan(50, 64)
    assert fits.problems() == []
    assert "micro_batch_size up to 64 (this recipe)" in as_text(fits)
    assert "off: 50.0 GiB with one video at a time, which does not fit" in as_text(fits)


def test_what_is_missing_is_said() -> None:
    (problem,) = plan(100, 0).problems()
    assert "learner needs 100.0 GiB, mine has 93.0 usable: 7.0 GiB are missing" in problem
    assert f"DOES NOT FIT: {problem}" in as_text(plan(100, 0))


def test_a_micro_batch_that_is_too_large() -> None:
    (problem,) = plan(50, 6).problems()
    assert problem.startswith("learner.micro_batch_size=64 does not fit: set it to 6 or less")


def test_what_would_be_better() -> None:
    apart = plan(50, 64, learner__micro_batch_size=1)
    assert any("learner.micro_batch_size=2: both videos" in each for each in apart.advice())
    # Two generators take 4 s for 8 requests, then one scores the last: with 6 items about 11 s.
    slow = replace(apart.needs, items_per_step=6)
    turns = replace(apart, needs=slow, split=as_recipe(apart.recipe, slow))
    assert turns.split.bottleneck != "learner"
    assert any("rollouts.max_staleness=1: roles work at" in each for each in turns.advice())
