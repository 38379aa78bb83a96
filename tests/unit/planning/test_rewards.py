"""Estimates of reward models, with and without gradient, and the length of ReFL's chains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from videorl.config import RewardConfig
from videorl.objectives.objective import RewardObjective
from videorl.planning.reward_learning import expected_steps
from videorl.planning.rewards import reward_memory, reward_with_gradient, rewards_with_gradient
from videorl.recipes.reading import load_recipe

RECIPE = load_recipe("wan_1_3b_refl", ["prompts.source=moving_shapes"])


def pick_score(**options: Any) -> RewardConfig:
    return RewardConfig(name="pick_score", options=options)


def test_image_rewards_are_in_float32_and_look_at_every_frame() -> None:
    memory, clip = reward_memory(pick_score(), RECIPE)
    assert memory.weights == 4 * 0.99e9
    assert clip.flops == 2 * 0.99e9 * 81 * 257
    assert memory.activations == 4 * 32 * 257 * (10 * 1280 + 3 * 5120)
    half, few = reward_memory(pick_score(dtype="bfloat16", num_frames=8), RECIPE)
    assert half.weights == memory.weights / 2
    assert few.flops == clip.flops * 8 / 81


def test_what_only_watches_is_in_the_learner_if_it_has_a_gradient() -> None:
    alone = rewards_with_gradient(RECIPE)
    watching = RewardConfig(name="vision_reward", weight=0.0)
    assert rewards_with_gradient(replace(RECIPE, rewards=[*RECIPE.rewards, watching])) == alone
    watching = replace(pick_score(), weight=0.0)
    weights, needs = rewards_with_gradient(replace(RECIPE, rewards=[*RECIPE.rewards, watching]))
    assert weights == alone[0] + reward_with_gradient(watching, RECIPE)[0]
    assert needs.flops > alone[1].flops


def test_with_gradient_every_layer_is_held() -> None:
    memory, clip = reward_memory(pick_score(), RECIPE)
    weights, needs = reward_with_gradient(pick_score(), RECIPE)
    assert weights == memory.weights
    assert needs.num_bytes == 32 * memory.activations
    assert needs.flops == 3 * clip.flops  # 32 frames at a time, each forward again
    _, together = reward_with_gradient(pick_score(batch_frames=81), RECIPE)
    assert together.flops == 2 * clip.flops
    assert together.num_bytes == pytest.approx(needs.num_bytes * 81 / 32)


def test_a_patch_of_video_reward_spans_two_frames() -> None:
    """Ten frames of 448 x 448, 1024 patches each, in five pairs; a quarter as many tokens."""
    _, clip = reward_memory(RewardConfig(name="video_reward"), RECIPE)
    frames = 81 / 16 * 2
    tokens = frames * 128 + 900
    assert clip.flops == pytest.approx(2 * 0.67e9 * frames / 2 * 1024 + 2 * 1.54e9 * tokens)


def test_unknown_rewards_need_nothing() -> None:
    weights, needs = reward_with_gradient(RewardConfig(name="my_module:reward"), RECIPE)
    assert (weights, needs.num_bytes, needs.flops) == (0, 0, 0)


@pytest.mark.parametrize(("per_round", "steps"), [(1, 6.5), (2, 6.75), (1000, 7)])
def test_chains_go_as_far_as_the_longest(per_round: int, steps: float) -> None:
    """Of 8 steps a chain stops after the seventh or the eighth; the last has the gradient."""
    recipe = load_recipe("moving_shapes_refl", [f"prompts.per_round={per_round}"])
    assert isinstance(recipe.objective, RewardObjective)
    assert expected_steps(recipe, recipe.objective) == pytest.approx(steps)
