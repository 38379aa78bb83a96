"""ReFL in one process: short runs on a tiny policy and the shipped learned reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.small_runs import small_recipe
from videorl.config import Recipe
from videorl.data.prompts import open_prompts
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.learning.prompts import PromptExamples
from videorl.objectives.refl import ReFL
from videorl.one_process import train_alone
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import read_metrics


@pytest.fixture
def recipe(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Recipe:
    made = small_recipe("moving_shapes_refl", tiny_checkpoints, tmp_path / "run")
    made.num_steps, made.sampling.num_inference_steps = 4, 8
    return made


def work(recipe: Recipe, steps: int) -> tuple[bool, RunFolder]:
    """Go on with a run for so many steps."""
    asked = iter(range(steps + 1))
    with open_run(recipe) as folder:
        return train_alone(recipe, folder, lambda: next(asked) >= steps), folder


def first_step(
    recipe: Recipe, watch: Callable[..., None] | None = None
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the metrics and the weights of one step of plain gradient descent."""
    engines: list[LocalEngine] = []

    def make_engine(module: torch.nn.Module) -> LocalEngine:
        engines.append(LocalEngine(module, recipe.optimizer))
        parameters = [one for one in module.parameters() if one.requires_grad]
        engines[-1]._optimizer = torch.optim.SGD(parameters)  # pyright: ignore # its step = gradient
        return engines[-1]

    learner, policy = build_learner(
        recipe, Path(recipe.run_dir), make_engine, with_text_encoder=True
    )
    if watch is not None:
        policy.trainable_module().register_forward_hook(watch)
    learner.start()
    stream = open_prompts(recipe.prompts, recipe.seed)
    examples = PromptExamples(stream, "", lambda text: policy.encode([text])[0])
    output = learner.step(0, [examples[position] for position in range(3)])
    return dict(output.metrics), policy.weights()


def test_a_run_learns_and_goes_on_where_it_was_stopped(recipe: Recipe, tmp_path: Path) -> None:
    is_finished, folder = work(recipe, 9)
    assert is_finished
    rows = read_metrics(folder.metrics)
    assert [row["learn/examples"] for row in rows] == [2.0] * 4
    for row in rows:
        assert row["learn/loss"] == pytest.approx(-row["reward/total"])
        parts = [row[f"reward/{one}"] for one in ("visual_quality", "motion_quality")]
        assert row["reward/total"] == pytest.approx(sum(parts) + row["reward/text_alignment"])
        assert row["optimizer/grad_norm"] > 0
        assert 0 <= row["unseen/dynamic_degree"] <= 1
    # Golden: a change is a change of what is learned, of the random checkpoint or of the reward.
    losses = [row["learn/loss"] for row in rows]
    assert losses == pytest.approx([1.7920, 0.7051, 0.2718, 1.5113], abs=2e-3)
    assert any(folder.export.iterdir())
    recipe.run_dir = str(tmp_path / "stopped")
    assert not work(recipe, 3)[0]
    is_finished, again = work(recipe, 9)
    assert is_finished
    repeated = read_metrics(again.metrics)
    for name in ("learn/loss", "reward/motion_quality", "optimizer/grad_norm"):
        assert [row[name] for row in repeated] == pytest.approx([row[name] for row in rows])


def test_steps_raise_the_reward_of_what_they_see(recipe: Recipe) -> None:
    """The same two prompts, with the same noise: the stream of a prompt file of two lines."""
    prompts = Path(recipe.run_dir).with_name("prompts.txt")
    prompts.write_text("a red circle moves left\na blue square moves up\n")
    recipe.prompts.source, recipe.num_steps = str(prompts), 8
    recipe.optimizer.learning_rate = 1e-2
    folder = work(recipe, 9)[1]
    rewards = [row["reward/total"] for row in read_metrics(folder.metrics)]
    assert sum(rewards[4:]) > sum(rewards[:4])


def test_memory_and_batches_do_not_change_the_gradient(recipe: Recipe) -> None:
    recipe.optimizer.max_grad_norm = 1e9
    recipe.objective = ReFL(gradient_steps=2)
    recipe.learner.micro_batch_size = 3
    metrics, weights = first_step(recipe)
    recipe.learner.micro_batch_size = 2
    recipe.objective = ReFL(gradient_steps=2, checkpoint_decode=True)
    again, others = first_step(recipe)
    for name in ("learn/loss", "optimizer/grad_norm", "unseen/sharpness"):
        assert again[name] == pytest.approx(metrics[name], rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-6)


def test_only_the_last_calls_carry_gradient(recipe: Recipe) -> None:
    calls: list[bool] = []
    recipe.objective = ReFL(gradient_steps=2)
    first_step(recipe, lambda *_: calls.append(torch.is_grad_enabled()))
    # Three chains in one batch; without gradient it goes as far as the one that stops last.
    assert calls in ([False] * longest + [True] * 2 for longest in (5, 6))


def test_a_reward_that_is_enough_is_pushed_no_further(recipe: Recipe) -> None:
    recipe.objective = ReFL(enough=-100.0)
    metrics, _ = first_step(recipe)
    assert metrics["learn/loss"] == 0
    assert metrics["optimizer/grad_norm"] == 0
