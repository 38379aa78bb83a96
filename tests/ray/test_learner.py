"""The learner on Ray Train and DeepSpeed gives the numbers of plain PyTorch, whatever dies."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from torch import Tensor

from actors.learner.learner import RayLearner
from actors.learner.rank_group import LearnerResources
from actors.store.weights import create_weight_store, pull
from tests.groups import random_pair
from tests.ray.conftest import ROOT
from tests.ray.ranks import kill_rank
from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import OptimizerConfig, Recipe
from videorl.errors import LearnerFailedError
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.objectives.dpo import FlowDPO
from videorl.types import PreferencePair
from videorl.weights import digest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

Make = Callable[..., tuple[RayLearner, ActorHandle]]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Start learners that end with the test."""
    started: list[RayLearner] = []
    seats: list[PlacementGroup] = []

    def start(recipe: Recipe, folder: Path) -> tuple[RayLearner, ActorHandle]:
        store = create_weight_store(keep=recipe.rollouts.max_staleness + 1)
        count = recipe.learner.num_workers
        seats.append(placement_group([{"CPU": 1.0}] * count, "PACK"))
        resources = LearnerResources(count, 1.0, 0.0, seat=seats[-1])
        started.append(RayLearner(recipe, folder, store, resources, str))
        return started[-1], store

    yield start
    for learner in started:
        learner.close()
    for seat in seats:
        remove_placement_group(seat)


@pytest.fixture
def recipe(tiny_checkpoints: dict[str, Path]) -> Recipe:
    """See `small_recipe`."""
    # Relative to the driver: ranks must resolve it in the same directory.
    return small_recipe(Path(os.path.relpath(tiny_checkpoints["wan"])))


def small_recipe(checkpoint: Path) -> Recipe:
    """A recipe on a tiny Wan policy with adapters; three micro-batches a step, the last smaller."""
    recipe = Recipe(name="tiny", num_steps=6)
    recipe.policy = tiny_policy(checkpoint)
    recipe.sampling = tiny_sampling()
    recipe.objective = FlowDPO(beta=100.0, timesteps_per_pair=3)
    recipe.optimizer = OptimizerConfig(learning_rate=1e-3, max_grad_norm=0.05, weight_decay=0.01)
    recipe.learner.micro_batch_size = 4
    return recipe


def pairs_of(step: int) -> list[PreferencePair]:
    return [random_pair(100 * step + index, (12, 3, 4, 4), 16) for index in range(3)]


def by_reference(pairs: list[PreferencePair]) -> list[PreferencePair]:
    """Put the media of pairs into the object store, as a run does."""

    def put(scored: Any) -> Any:
        candidate = replace(scored.candidate, latents=ray.put(scored.candidate.latents))
        return replace(scored, candidate=candidate)

    return [
        replace(
            pair,
            prompt_embeds=ray.put(pair.prompt_embeds),
            chosen=put(pair.chosen),
            rejected=put(pair.rejected),
        )
        for pair in pairs
    ]


def run_steps(learner: Any, first: int, end: int) -> list[dict[str, Any]]:
    """Apply steps; the reference becomes the policy after every second one."""
    metrics: list[dict[str, Any]] = []
    for step in range(first, end):
        pairs = pairs_of(step)
        output = learner.step(step, by_reference(pairs) if ray.is_initialized() else pairs)
        metrics.append(dict(output.metrics) | {"version": output.version})
        if (step + 1) % 2 == 0:
            learner.update_reference(output.version)
    return metrics


def local_run(recipe: Recipe, folder: Path, steps: int) -> tuple[dict[str, Tensor], list[Any]]:
    """Return weights and metrics after `steps` in this process, without DeepSpeed."""
    recipe.checkpoint.location = str(folder)
    learner, policy = build_learner(
        recipe,
        folder,
        lambda module: LocalEngine(module, recipe.optimizer),
        device=torch.device("cpu"),
        fetch=ray.get,
    )
    learner.start()
    metrics = run_steps(learner, 0, steps)
    return policy.weights(), metrics


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def same_numbers(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() - {"version"} == other.keys() - {"version"}
        for name in one.keys() - {"version", "time/learn_s", "time/publish_s"}:
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("starts_anew", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_ranks_give_the_numbers_of_plain_pytorch_and_survive(
    starts_anew: bool, recipe: Recipe, make: Make, tmp_path: Path
) -> None:
    """One story, as every start of a worker group costs seconds."""
    recipe.learner.num_workers, recipe.learner.zero_stage = 2, 2
    recipe.rollouts.max_staleness = 1
    expected_weights, expected = local_run(recipe, tmp_path / "local", 6)

    learner, store = make(recipe, tmp_path)
    version, state = learner.start()
    assert (version.step, state) == (0, None)
    found = run_steps(learner, 0, 2)
    assert found[0]["learn/loss"] == pytest.approx(math.log(2), abs=1e-6)
    learner.save({"step": 2}).result()
    found += run_steps(learner, 2, 3)

    # Others wait for any place that becomes free, as generators would; the ranks' own is kept.
    waiting = [placement_group([{"CPU": 1.0}]) for _ in range(9)]
    kill_rank()
    found += run_steps(learner, 3, 4)  # the group starts again and replays step 2
    assert learner.starts() == 2
    assert ray.available_resources().get("CPU", 0.0) == 0.0, "there was no other place"
    for one in waiting:
        remove_placement_group(one)
    assert pull(store, found[2]["version"]), "generators may still need it"
    if starts_anew:
        learner.save({"step": 4}).result()
        learner.close()
        learner, store = make(recipe, tmp_path)
        version, state = learner.start()
        assert (version, state) == (found[-1]["version"], {"step": 4})
        assert digest(pull(store, found[-2]["version"])) == found[-2]["version"].digest
    found += run_steps(learner, 4, 6)
    same_numbers(found, expected)
    weights = pull(store, found[-1]["version"])
    assert digest(weights) == found[-1]["version"].digest
    assert_same_weights(weights, expected_weights)
    learner.export(tmp_path / "export")
    assert list((tmp_path / "export").glob("*.safetensors"))


@pytest.mark.long  # two nodes of its own, which come and go
def test_ranks_follow_the_size_of_the_cluster(
    recipe: Recipe, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.ray.elastic_learner"]
    done = subprocess.run(
        [*program, str(tiny_checkpoints["wan"]), str(tmp_path / "elastic")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ranks"] == [2, 1]
    assert found["is_published"]
    _, expected = local_run(recipe, tmp_path / "local", 6)
    same_numbers(found["metrics"], expected)


@pytest.mark.long  # as `test_a_training_that_can_never_start_says_why`, of another kind of learner
def test_a_recipe_that_can_never_start_fails_once_and_says_why(
    recipe: Recipe, make: Make, tmp_path: Path
) -> None:
    recipe.policy.path = str(tmp_path / "absent")
    learner, _ = make(recipe, tmp_path)
    with pytest.raises(LearnerFailedError, match=r"cannot start: CheckpointError: .*no folder"):
        learner.start()
