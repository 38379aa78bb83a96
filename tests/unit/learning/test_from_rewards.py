"""ReFL in one process: short runs on a tiny policy and the shipped learned reward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.small_runs import small_recipe
from videorl import one_process
from videorl.config import Recipe
from videorl.data.prompts import open_prompts
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.learning.loop import Around
from videorl.learning.prompts import PromptExamples
from videorl.objectives.refl import ReFL
from videorl.one_process import train_alone
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.rewards.differentiable import CombinedReward
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics


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
    recipe: Recipe, watch: Callable[..., Any] | None = None, num_prompts: int = 3
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
        policy.trainable_module().register_forward_hook(watch, with_kwargs=True)
    learner.start()
    stream = open_prompts(recipe)
    examples = PromptExamples(stream, "", lambda text: policy.encode([text])[0])
    output = learner.step(0, [examples[position] for position in range(num_prompts)])
    return dict(output.metrics), policy.weights()


def test_a_run_learns_and_goes_on_where_it_was_stopped(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    beside = JsonlSink(tmp_path / "beside.jsonl")
    for step in range(4):
        beside.write(step, {"before": 1.0})
    monkeypatch.setattr(one_process, "Around", partial(Around, also=[beside]))
    is_finished, again = work(recipe, 9)
    kept = [row["step"] for row in read_metrics(tmp_path / "beside.jsonl") if "before" in row]
    assert kept == [0, 1, 2], "other sinks learn too where it goes on"
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


def test_the_recipe_of_real_size_learns_in_pieces_and_tiles(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """On a tiny model. Tiles show other pictures, so that their loss is another, but a near one."""
    made = small_recipe("wan_1_3b_refl", tiny_checkpoints, tmp_path / "run")
    assert isinstance(made.objective, ReFL)
    assert made.objective.checkpoint_decode
    assert not made.objective.decode_tile_px
    is_finished, folder = work(made, 3)
    assert is_finished
    rows = read_metrics(folder.metrics)
    assert len(rows) == 2
    assert all(row["optimizer/grad_norm"] > 0 for row in rows)
    made.objective.decode_tile_px, made.run_dir = 16, str(tmp_path / "tiles")
    tiled = read_metrics(work(made, 3)[1].metrics)
    assert tiled[0]["learn/loss"] != rows[0]["learn/loss"]
    assert tiled[0]["learn/loss"] == pytest.approx(rows[0]["learn/loss"], abs=1.0)


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


def spoil_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sampler's first steps end in infinity."""
    sample = PipelinePolicy.sample_partly

    def spoiled(self: PipelinePolicy, *args: Any) -> tuple[Tensor, Tensor]:
        latents, times = sample(self, *args)
        latents[2:, 0, 0, 0, 0] = torch.inf
        return latents, times

    monkeypatch.setattr(PipelinePolicy, "sample_partly", spoiled)


def spoil_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reward, and its gradient, be NaN."""
    score = CombinedReward.__call__

    def spoiled(self: CombinedReward, pixels: Tensor, *args: Any) -> Any:
        factor = torch.tensor([1.0, 1.0, torch.nan][: len(pixels)])
        total, dimensions = score(self, pixels, *args)
        return total * factor, dimensions

    monkeypatch.setattr(CombinedReward, "__call__", spoiled)


def overflow(module: Any, args: Any, named: dict[str, Any], output: tuple[Tensor]) -> Any:
    """Let the network overflow inside of the calls with gradient."""
    x_t = named["hidden_states"]
    if torch.is_grad_enabled() and len(x_t) > 2 and bool(x_t[2].any()):
        factor = torch.ones(len(x_t), 1, 1, 1, 1)
        factor[2] = torch.inf
        return (output[0] * factor * factor.sqrt() - output[0] * factor,)
    return output


@pytest.mark.parametrize("spoil", [spoil_noise, spoil_reward, None], ids=["noise", "reward", "net"])
def test_a_video_that_is_not_finite_costs_itself_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None] | None
) -> None:
    recipe.optimizer.max_grad_norm, recipe.learner.micro_batch_size = 1e9, 3
    start = first_step(recipe, num_prompts=0)[1]
    expected, others = first_step(recipe, num_prompts=2)
    assert "learn/not_finite" not in expected
    if spoil is not None:
        spoil(monkeypatch)
    found, weights = first_step(recipe, None if spoil else overflow)
    assert (found["learn/not_finite"], found["learn/examples"]) == (1, 2)
    assert found["optimizer/skipped"] == 0
    for name in ("learn/loss", "reward/total", "reward/motion_quality", "unseen/sharpness"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    for name, weight in weights.items():
        # Each video has a third of the step, also where one is lost.
        moved = (weight - start[name]) * 3 / 2
        torch.testing.assert_close(moved, others[name] - start[name], rtol=1e-3, atol=1e-7)
