"""One rank of the learner, on plain PyTorch."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.learners import PlainDescent, run_steps, tiny_learner, tiny_pairs, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.config import OptimizerConfig
from videorl.errors import VideoError, WeightMismatchError
from videorl.learning.gradient_step import learning_rate
from videorl.objectives.dpo import FlowDPO, dpo_loss
from videorl.objectives.flow_rwr import FlowRWR
from videorl.recipes.reading import load_recipe
from videorl.seeds import derive_seed
from videorl.types import WeightedCandidate, WeightVersion
from videorl.weights import digest


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let this process write no file longer than `limit` bytes, as a disk with so much left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def plain_loss(policy: TinyPolicy, step: int) -> Tensor:
    """Compute the loss of a whole step in one go, from the definition."""
    recipe = tiny_recipe()
    assert isinstance(recipe.objective, FlowDPO)
    times = recipe.objective.timesteps_per_pair
    errors: dict[str, list[Tensor]] = {"chosen": [], "rejected": []}
    reference_errors: dict[str, list[Tensor]] = {"chosen": [], "rejected": []}
    for index, pair in enumerate(tiny_pairs(step)):
        seed = derive_seed(recipe.seed, "example", step, index)
        offsets = torch.rand(
            times,
            generator=torch.Generator().manual_seed(derive_seed(seed, "times")),
            dtype=torch.float64,
        )
        for stratum in range(times):
            t = ((stratum + offsets[stratum]) / times).float()
            noise_seed = derive_seed(seed, "noise", stratum)
            for role, candidate in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                x0 = candidate.candidate.latents
                generator = torch.Generator().manual_seed(noise_seed)
                noise = torch.randn(x0.shape, generator=generator)
                x_t, given = ((1 - t) * x0 + t * noise)[None], [pair.prompt_embeds]
                velocity = policy.predict(x_t, t[None], given, "policy")[0]
                errors[role].append((noise - x0 - velocity).square().mean())
                velocity = policy.predict(x_t, t[None], given, "reference")[0]
                reference_errors[role].append((noise - x0 - velocity).square().mean())
    stacked = [torch.stack(one[role]) for one in (errors, reference_errors) for role in one]
    return dpo_loss(*stacked, beta=recipe.objective.beta)


def test_the_loss_at_step_0_is_log_2(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    assert learner.start()[1] is None
    metrics = learner.step(0, tiny_pairs(0)).metrics
    assert metrics["learn/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["learn/margin"] == 0.0
    assert metrics["dpo/winner_error_change"] == 0.0
    assert metrics["learn/examples"] == 3.0


@pytest.mark.parametrize("micro_batch_size", [1, 2, 5, 9, 100])
def test_any_micro_batch_size_gives_the_gradient_of_the_whole(
    micro_batch_size: int, tmp_path: Path
) -> None:
    # Plain gradient descent shows the gradient itself: AdamW would hide its scale.
    recipe = tiny_recipe(micro_batch_size=micro_batch_size, max_grad_norm=1e9)
    learner, policy = tiny_learner(recipe, tmp_path, PlainDescent)
    learner.start()
    twin = TinyPolicy()
    for step in range(2):
        found = learner.step(step, tiny_pairs(step)).metrics
        loss = plain_loss(twin, step)
        parameters = list(twin.module.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1.0 * gradient
        assert found["learn/loss"] == pytest.approx(loss.item(), abs=1e-6)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        assert found["optimizer/grad_norm"] == pytest.approx(norm, rel=1e-5)
    for name, weight in policy.weights().items():
        torch.testing.assert_close(weight, twin.weights()[name], rtol=1e-5, atol=1e-6)


def test_the_loss_falls_and_the_chosen_video_wins(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    pairs = tiny_pairs(0)
    metrics = [learner.step(step, pairs).metrics for step in range(30)]
    assert metrics[-1]["learn/loss"] < 0.5 * metrics[0]["learn/loss"]
    assert metrics[-1]["learn/accuracy"] == 1.0
    assert metrics[-1]["learn/margin"] > 0


def test_the_reference_moves_only_when_told(tmp_path: Path) -> None:
    learner, policy = tiny_learner(tiny_recipe(), tmp_path)
    start, _ = learner.start()
    before = digest(policy.reference_weights())
    version = learner.step(0, tiny_pairs(0)).version
    assert digest(policy.reference_weights()) == before == start.digest
    assert version.digest != before
    with pytest.raises(WeightMismatchError, match="step 0 the reference, but the policy is at"):
        learner.update_reference(start)
    learner.update_reference(version)
    assert digest(policy.reference_weights()) == version.digest
    assert learner.step(1, tiny_pairs(1)).metrics["learn/loss"] == pytest.approx(
        math.log(2), abs=1e-6
    )


def test_a_step_without_pairs_publishes_the_same_weights_as_a_new_version(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    start, _ = learner.start()
    output = learner.step(0, [])
    assert output.version == WeightVersion(1, start.digest)
    assert output.metrics["learn/examples"] == 0.0
    assert "learn/loss" not in output.metrics


def test_published_weights_are_snapshots_of_the_versions_in_use(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(max_staleness=2), tmp_path)
    learner.start()
    run_steps(learner, 0, 4)
    assert [version.step for version in learner.in_use()] == [2, 3, 4]
    for version in learner.in_use():
        assert digest(learner.published(version)) == version.digest
    assert len({version.digest for version in learner.in_use()}) == 3


def test_the_learning_rate_warms_up(tmp_path: Path) -> None:
    moved = []
    for warmup in (0, 4):
        recipe = tiny_recipe(warmup_steps=warmup, weight_decay=0.0)
        learner, policy = tiny_learner(recipe, tmp_path)
        learner.start()
        before = policy.weights()["condition.bias"]
        learner.step(0, tiny_pairs(0))
        moved.append((policy.weights()["condition.bias"] - before).abs())
    # Adam's first step has the length of the learning rate: 1e-2, and a quarter of it.
    torch.testing.assert_close(moved[0], torch.full((5,), 1e-2), rtol=1e-3, atol=0)
    torch.testing.assert_close(moved[1], torch.full((5,), 2.5e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_restored_learner_goes_on_bit_for_bit(stop_at: int, tmp_path: Path) -> None:
    recipe = tiny_recipe(max_staleness=2, warmup_steps=5)
    whole, whole_policy = tiny_learner(recipe, tmp_path / "whole")
    whole.start()
    expected = run_steps(whole, 0, 6)

    first, _ = tiny_learner(recipe, tmp_path / "cut")
    first.start()
    run_steps(first, 0, stop_at)
    first.save({"step": stop_at}).result()
    run_steps(first, stop_at, stop_at + 1)  # lost with the process

    second, policy = tiny_learner(recipe, tmp_path / "cut")
    version, loop_state = second.start()
    assert loop_state == {"step": stop_at}
    assert version == expected[stop_at - 1].version
    assert [one.step for one in second.in_use()] == list(range(max(0, stop_at - 2), stop_at + 1))
    for one in second.in_use():
        assert digest(second.published(one)) == one.digest
    found = run_steps(second, stop_at, 6)
    assert [one.version for one in found] == [one.version for one in expected[stop_at:]]
    assert digest(policy.reference_weights()) == digest(whole_policy.reference_weights())
    for one, other in zip(found, expected[stop_at:], strict=True):
        assert {**one.metrics, **times(0)} == {**other.metrics, **times(0)}


def times(value: float) -> dict[str, float]:
    return {"time/learn_s": value, "time/publish_s": value}


def test_an_exported_policy_is_the_newest_version(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    version = run_steps(learner, 0, 1)[-1].version
    learner.export(tmp_path)
    assert digest(load_file(tmp_path / "policy.safetensors")) == version.digest


@pytest.mark.parametrize("limit", [0, 100, 2500, 4000])
def test_a_full_disk_is_an_oserror_and_older_checkpoints_stay(limit: int, tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    run_steps(learner, 0, 1)
    learner.save({"step": 1}).result()
    (kept,) = tmp_path.iterdir()
    assert max(path.stat().st_size for path in kept.rglob("*")) > limit
    outputs = run_steps(learner, 1, 2)
    with full_disk(limit), pytest.raises(OSError, match=r"MiB are free|File too large"):
        learner.save({"step": 2}).result()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"], "nothing half-written"

    restored, _ = tiny_learner(tiny_recipe(), tmp_path)
    assert restored.start()[0].step == 1
    assert run_steps(restored, 1, 2)[0].version == outputs[0].version
    learner.save({"step": 2}).result()
    assert tiny_learner(tiny_recipe(), tmp_path)[0].start()[0] == outputs[0].version


def test_a_checkpoint_holds_what_was_there_when_it_began(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    version = run_steps(learner, 0, 1)[-1].version
    written = learner.save({"step": 1})
    run_steps(learner, 1, 3)  # goes on meanwhile, and swaps the reference
    written.result()
    assert tiny_learner(tiny_recipe(), tmp_path)[0].start()[0] == version


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    before = run_steps(learner, 0, 1)[-1]
    pair = tiny_pairs(1, 1)[0]
    broken = replace(pair.chosen.candidate, latents=pair.chosen.candidate.latents * math.inf)
    output = learner.step(1, [replace(pair, chosen=replace(pair.chosen, candidate=broken))])
    assert output.version.digest == before.version.digest
    assert output.metrics["optimizer/skipped"] == 1.0
    assert "optimizer/grad_norm" not in output.metrics
    assert learner.step(2, tiny_pairs(2)).metrics["optimizer/skipped"] == 0.0


def test_videos_of_one_pair_that_differ_in_shape_are_named(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    pair = tiny_pairs(0, 1)[0]
    longer = replace(pair.rejected.candidate, latents=torch.zeros(2, 5, 4, 4))
    pair = replace(pair, rejected=replace(pair.rejected, candidate=longer))
    said = r"the videos of prompt 0 \('prompt 0'\) .* shapes, \[2, 3, 4, 4\], \[2, 5, 4, 4\]"
    with pytest.raises(VideoError, match=said):
        learner.step(0, [pair])


def test_weights_that_are_not_those_saved_are_refused(tmp_path: Path) -> None:
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    run_steps(learner, 0, 1)
    learner.save({}).result()
    state = tmp_path / "step-000001/state.json"
    content = json.loads(state.read_text())
    content["published"]["1"] = "0" * 64
    state.write_text(json.dumps(content))
    with pytest.raises(WeightMismatchError, match="are not those it saved"):
        tiny_learner(tiny_recipe(), tmp_path)[0].start()


RATES = {
    "": [0.2, 0.4, 0.8, 0.8, 0.6, 0.2, 0.0, 0.0],
    "linear": [0.2, 0.4, 0.8, 0.8, 0.6, 0.2, 0.0, 0.0],
    "cosine": [0.2, 0.4, 0.8, 0.8, 0.4 + 0.4 * 0.5**0.5, 0.4 - 0.4 * 0.5**0.5, 0.0, 0.0],
}


@pytest.mark.parametrize(("schedule", "expected"), RATES.items(), ids=lambda value: str(value))
def test_the_rate_warms_up_to_its_peak_and_falls_from_there(
    schedule: str, expected: list[float]
) -> None:
    config = OptimizerConfig(learning_rate=0.8, warmup_steps=4, schedule=schedule, decay_steps=8)
    rates = [learning_rate(config, step) for step in (0, 1, 3, 4, 5, 7, 8, 9)]
    assert rates == pytest.approx(expected)


def test_the_rate_is_constant_without_decay() -> None:
    for schedule in ("", "constant"):
        config = OptimizerConfig(learning_rate=0.8, warmup_steps=2, schedule=schedule)
        assert [learning_rate(config, step) for step in (0, 1, 2, 10_000)] == [0.4, 0.8, 0.8, 0.8]


def test_without_warm_up_a_linear_fall_is_what_it_was() -> None:
    """The default recipe: not one bit may differ."""
    config = OptimizerConfig(learning_rate=1e-3, decay_steps=60)
    rates = [learning_rate(config, step) for step in range(70)]
    assert rates == [1e-3 * 1.0 * max(0.0, 1 - step / 60) for step in range(70)]


def test_the_mpo_recipe_reaches_the_paper_s_rate() -> None:
    recipe = load_recipe("cogvideox_2b_mpo")
    rates = [learning_rate(recipe.optimizer, step) for step in range(recipe.num_steps)]
    assert max(rates) == 5e-6
    assert rates.index(5e-6) == 99
    assert 0 < rates[-1] < 2e-8


def test_the_rate_of_every_step_is_logged(tmp_path: Path) -> None:
    recipe = tiny_recipe(warmup_steps=2, decay_steps=6)
    learner, _ = tiny_learner(recipe, tmp_path)
    learner.start()
    logged = [
        learner.step(step, tiny_pairs(step) if step != 3 else []).metrics["optimizer/learning_rate"]
        for step in range(6)
    ]
    assert logged == [learning_rate(recipe.optimizer, step) for step in range(6)]


def test_a_single_candidate_is_learned_by_its_weight(tmp_path: Path) -> None:
    recipe = tiny_recipe(max_grad_norm=1e9)
    recipe.objective = FlowRWR(timesteps_per_pair=3)
    pairs = tiny_pairs(0, 2)
    first, second = (
        partial(WeightedCandidate, one.prompt, one.prompt_embeds, one.chosen) for one in pairs
    )
    learned: list[dict[str, Tensor]] = []
    # Shares of two examples are halves: twice the weight beside one of none is that one alone.
    for number, examples in enumerate([[first(1.0)], [first(2.0), second(0.0)], [second(1.0)]]):
        learner, policy = tiny_learner(recipe, tmp_path / str(number), PlainDescent)
        learner.start()
        metrics = learner.step(0, examples).metrics
        assert metrics["learn/examples"] == len(examples)
        assert metrics["regression/error_change"] == 0.0, "the policy is the reference"
        learned.append(policy.weights())
        if len(examples) == 1:
            assert metrics["learn/loss"] == pytest.approx(metrics["regression/error"])
    alone, doubled, other = learned
    for name, weights in alone.items():
        torch.testing.assert_close(doubled[name], weights)
    assert any(not torch.allclose(other[name], alone[name]) for name in alone)
