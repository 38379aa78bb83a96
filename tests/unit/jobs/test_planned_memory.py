"""The counted memory of a learner, against what torch's profiler measures on this CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.memory import PROMPT, _pair  # pyright: ignore[reportPrivateUsage]
from jobs.bench.peak_memory import peak_bytes
from videorl.learning.build import build_method, step_settings
from videorl.learning.engines.local import LocalEngine
from videorl.learning.learner import Learner
from videorl.planning.memory import PolicyCounts, has_checkpointing
from videorl.planning.models import read_configs
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoints import open_checkpoints

SETTINGS = [
    "learner.micro_batch_size=1",
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


def test_what_the_recipe_leaves_open_depends_on_size() -> None:
    recipe = load_recipe("moving_shapes", ["policy.gradient_checkpointing=true"])
    assert has_checkpointing(recipe, 1e6)
    recipe.policy.gradient_checkpointing = None  # pyright: ignore[reportAttributeAccessIssue]
    assert has_checkpointing(recipe, 1e9)
    assert not has_checkpointing(recipe, 1e6)
