"""The plan in words: what does not fit, and what would be better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from videorl.planning.cards import GIB, find_card
from videorl.planning.models import Configs
from videorl.planning.plan import Plan, with_gpus
from videorl.planning.roles import LearnerChoice, Needs, Role
from videorl.planning.sizes import Memory, Sizes
from videorl.planning.split import as_recipe
from videorl.planning.text import as_text
from videorl.recipes.reading import load_recipe

CARD = find_card("mine", 100, 100)  # 93 GiB of it are usable


def plan(learner_gib: float, most: int, **changes: Any) -> Plan:
    """Return the plan of a learner that needs so much, and lets so many videos fit."""
    settings = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    recipe = load_recipe("moving_shapes_dpo", settings)
    memory = Memory(learner_gib * GIB)
    choice = LearnerChoice(True, most, memory, memory, 1.0)
    other = replace(choice, checkpointing=False, micro_batch_size=0)
    names = ("learner", "generator", "moving_shapes")
    roles = {name: Role(name, Memory(GIB), 1.0, 1, "a unit", 1.0) for name in names}
    roles["learner"] = replace(roles["learner"], memory=memory)
    needs = Needs(Sizes(1, 1, 1, 1), choice, other, choice, roles, 8, 2, {"vae": 1.0})
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
    apart = plan(
        50, 64, learner__micro_batch_size=1, prompts__per_round=8, rollouts__max_staleness=0
    )
    assert any("learner.micro_batch_size=2: both videos" in each for each in apart.advice())
    # Two generators take 4 s for 8 requests, then one scores the last: with 6 items about 11 s.
    slow = replace(apart.needs, items_per_step=6)
    turns = replace(apart, needs=slow, split=as_recipe(apart.recipe, slow))
    assert turns.split.bottleneck != "learner"
    assert any("rollouts.max_staleness=1: roles work at" in each for each in turns.advice())


def test_two_transformers_are_told() -> None:
    made = plan(50, 64)
    assert "transformers" not in as_text(made)
    for away, said in (
        (0.0, "all on the GPU"),
        (3 * GIB, "one on the GPU, 3.0 GiB in host memory"),
    ):
        sizes = Sizes(1, 1, 1, 14.3e9, num_transformers=2, away_bytes=away)
        both = replace(made, needs=replace(made.needs, sizes=sizes))
        assert f"2 transformers of 14.3 B are trained: {said}" in as_text(both)


def test_changes_are_planned_alone_and_together() -> None:
    """Eight requests of 1 s on two generators, the last one scored for 1 s, eight items of 1 s."""
    made = plan(50, 64)
    made = replace(made, needs=replace(made.needs, merged_s=0.5))
    paces = {each.name: each.pace for each in made.alternatives}
    assert list(paces) == [
        "adapters merged for sampling",
        "rollouts.max_staleness=1",
        "all of these",
    ]
    steps = [pace.step_s for pace in paces.values()]
    assert max(steps) < made.split.pace.step_s
    assert steps[-1] == pytest.approx(min(steps))
    said = f"with adapters merged for sampling: {steps[0]:.3g} s per step, limited by"
    assert said in as_text(made)


def test_the_learner_is_planned_for_the_ranks_of_the_split() -> None:
    made = plan(50, 64)

    def at_ranks(ranks: int) -> Needs:
        return replace(made.needs, stored_numbers={"vae": float(ranks)})

    wide = with_gpus(replace(made, needs=replace(made.needs, at_ranks=at_ranks)), 6)
    assert wide.split.workers["learner"] > 1
    assert wide.needs.stored_numbers["vae"] == wide.split.workers["learner"]
    assert wide.num_gpus == 6


def refl(*settings: str, limit: str = "decoding", gib: float = 100) -> Plan:
    """Return the plan of a learner that samples, decodes and scores by itself."""
    base = plan(gib, 0)
    recipe = load_recipe("moving_shapes_refl", list(settings))
    parts = {"sampling": 2.0, "decoding": 1.0}
    choice = replace(base.needs.learner, limit=limit, parts_s=parts, item_s=3.0, takes_one=True)
    roles = {"learner": replace(base.needs.roles["learner"], unit_s=3.0)}
    needs = replace(base.needs, learner=choice, with_checkpointing=choice, roles=roles)
    split = as_recipe(recipe, needs)
    return replace(base, recipe=recipe, needs=needs, split=split, num_gpus=split.used)


def test_what_to_change_where_decoding_does_not_fit() -> None:
    pieces = "objective.checkpoint_decode=true"
    for made, change in (
        (refl(), "decoding takes the most: objective.checkpoint_decode=true"),
        (refl(pieces), "decoding takes the most: objective.decode_tile_px=256"),
        (refl(pieces, limit="the policy"), "the policy takes the most; fewer frames or pixels"),
    ):
        assert change in made.problems()[0]


def test_a_learner_that_samples_is_told_what_it_spends_its_time_on() -> None:
    made = refl("learner.micro_batch_size=8", gib=50)
    assert made.candidates_per_hour == pytest.approx(3600 * 8 / (8 * 3.0))
    assert "a video in the learner: sampling 2 s, decoding 1 s; decoding takes" in as_text(made)
    one, more = made.advice()
    assert one.startswith("learner.micro_batch_size=1: with objective.checkpoint_decode")
    assert more.startswith("learner.num_workers=2: the learner limits the run, 12 s per step")
