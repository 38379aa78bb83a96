"""The counted memory of a learner, against what torch's profiler measures on this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from jobs.bench.memory import PROMPT, _pair  # pyright: ignore[reportPrivateUsage]
from jobs.bench.peak_memory import peak_bytes
from jobs.recipe_checks import checkpoints_gb
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.build import build_method, step_settings
from videorl.learning.engines.local import LocalEngine
from videorl.learning.from_rewards import FromRewards
from videorl.learning.learner import Learner
from videorl.objectives.refl import ReFL
from videorl.planning.checkpoints import checkpoint_bytes
from videorl.planning.memory import PolicyCounts, has_checkpointing
from videorl.planning.models import read_configs
from videorl.planning.reward_learning import count_chain
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoints import open_checkpoints
from videorl.types import PromptExample

SETTINGS = [
    "learner.micro_batch_size=1",
    "learner.prefetch=false",
    "learner.zero_stage=0",
    "objective.timesteps_per_pair=1",
]


def test_the_count_is_what_is_measured(tmp_path: Path) -> None:
    recipe = load_recipe("moving_shapes", SETTINGS)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, trainable=True)
    module = policy.trainable_module()
    learner = Learner(
        policy,
        build_method(recipe, policy),
        LocalEngine(module, recipe.optimizer),
        step_settings(recipe),
        open_checkpoints(recipe.checkpoint, tmp_path),
    )
    pair = _pair(recipe, policy.encode([PROMPT.text])[0])
    learner.step(0, [pair])  # makes the optimizer's state, which is counted by itself
    measured = peak_bytes(lambda: learner.step(1, [pair]), next(module.parameters()).device)
    counts = PolicyCounts(recipe, read_configs(recipe.policy.path), on_gpu=False)
    planned = counts.memory(counts.learner(checkpointing=False).num_bytes, 1)
    assert planned.gradients + planned.activations == pytest.approx(measured, rel=0.15)
    weights = sum(each.numel() * each.element_size() for each in module.parameters())
    trained = [each for each in module.parameters() if each.requires_grad]
    assert planned.reference == sum(4 * each.numel() for each in trained)
    assert planned.weights == weights - planned.reference
    assert planned.optimizer == sum(8 * each.numel() for each in trained)
    learner.save({}).result()
    written = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert checkpoint_bytes(recipe, counts.sizes, 4) == pytest.approx(written, rel=0.05)
    assert checkpoints_gb(recipe, on_gpu=False) == pytest.approx(
        (recipe.checkpoint.keep + 1) * written / 1e9, rel=0.05
    )


def brightness(pixels_BF3HW: Tensor, fps: float, prompts: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Stand for a reward, so that only policy and decoding are measured."""
    total_B = pixels_BF3HW.square().mean((1, 2, 3, 4))
    return total_B, {"brightness": total_B.detach()}


WAYS = [
    pytest.param(ReFL(), id="whole"),
    pytest.param(ReFL(checkpoint_decode=True), id="pieces", marks=pytest.mark.long),
    pytest.param(
        ReFL(checkpoint_decode=True, decode_tile_px=32), id="tiles", marks=pytest.mark.long
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("objective", WAYS)
def test_the_count_of_refl_is_what_is_measured(objective: ReFL, tmp_path: Path) -> None:
    """On a CPU, where what waits in host memory counts too."""
    sizes = ["sampling.num_inference_steps=2", "prompts.per_round=1"]
    if objective.decode_tile_px:
        sizes += ["sampling.height=64", "sampling.width=64"]
    recipe = load_recipe("moving_shapes_refl", ["learner.zero_stage=0", *sizes])
    recipe.objective = objective
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, trainable=True)
    module = policy.trainable_module()
    reward: Any = brightness
    learner = Learner(
        policy,
        FromRewards(policy, objective, reward, recipe.sampling, 0, UnseenMetrics(())),
        LocalEngine(module, recipe.optimizer),
        step_settings(recipe),
        open_checkpoints(recipe.checkpoint, tmp_path),
    )
    example = PromptExample(PROMPT, *policy.encode([PROMPT.text, ""]))
    learner.step(0, [example])  # makes the optimizer's state, which is counted by itself
    device = next(module.parameters()).device
    measured = peak_bytes(lambda: learner.step(1, [example]), device)
    counts = PolicyCounts(recipe, read_configs(recipe.policy.path), frozenset(), on_gpu=False)
    chain = count_chain(counts, objective, checkpointing=False)
    planned = counts.memory(chain.activations(1), 1)
    assert planned.gradients + planned.activations == pytest.approx(measured, rel=0.15)
    vae = policy._pipeline.vae  # pyright: ignore
    num_bytes = sum(4 * each.numel() for each in vae.parameters())
    assert chain.weights == pytest.approx(num_bytes, rel=0.01)  # and a few buffers


def test_what_the_recipe_leaves_open_depends_on_size() -> None:
    recipe = load_recipe("moving_shapes", ["policy.gradient_checkpointing=true"])
    assert has_checkpointing(recipe, 1e6)
    recipe.policy.gradient_checkpointing = None  # pyright: ignore[reportAttributeAccessIssue]
    assert has_checkpointing(recipe, 1e9)
    assert not has_checkpointing(recipe, 1e6)


@pytest.mark.parametrize("rank", [0, 4])
def test_stage_3_shares_out_the_reference_where_it_lies_beside_the_policy(rank: int) -> None:
    settings = [f"policy.lora.rank={rank}", "sampling.merge_lora=false", "learner.zero_stage=3"]
    recipe = load_recipe("moving_shapes", settings)
    counts = PolicyCounts(recipe, read_configs(recipe.policy.path), on_gpu=False)
    whole, half = (counts.memory(0.0, num_ranks).reference for num_ranks in (1, 2))
    assert half == whole / 2
    recipe.policy.frozen_device = "cpu"
    away = counts.memory(0.0, 2)
    assert (away.host, away.reference < whole) == (0.0 if rank else whole, True)
    recipe.learner.zero_stage, recipe.policy.frozen_device = 2, "auto"
    assert counts.memory(0.0, 2).reference == whole
