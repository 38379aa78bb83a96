"""The drift of predictions from the base, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes import LATENT_SHAPE, FakePolicy
from tests.groups import random_pair
from tests.learners import run_steps, tiny_learner, tiny_recipe
from videorl.learning.drift import adapter_norm
from videorl.learning.prediction_drift import DRIFT, NORM, TIMES, PredictionDrift


def test_the_norm_of_an_adapter_is_that_of_its_product() -> None:
    draw = torch.Generator().manual_seed(0)
    layers = {
        f"{layer}.lora_{side}.weight": torch.randn(shape, generator=draw)
        for layer in ("a", "b")
        for side, shape in (("A", (2, 5)), ("B", (3, 2)))
    }
    both = [
        layers[f"{layer}.lora_B.weight"] @ layers[f"{layer}.lora_A.weight"] for layer in ("a", "b")
    ]
    expected = sum(float(product.square().sum()) for product in both) ** 0.5
    assert adapter_norm(layers) == pytest.approx(expected, rel=1e-5)
    assert adapter_norm({"scale": torch.ones(2)}) is None


def test_the_drift_of_a_policy_that_scales_its_input() -> None:
    """It predicts s x_t + shift, the base x_t + shift: they differ by (s - 1) x_t."""
    policy, pair = FakePolicy(), random_pair(3, LATENT_SHAPE, 2)
    fixed: Any = pair.chosen.candidate.latents
    drift = PredictionDrift(policy, 2, list)
    assert drift(1, [pair], policy.weights()) == {}, "not due, but from now on it knows its latents"
    assert drift(2, [random_pair(4, LATENT_SHAPE, 2)], policy.weights()) == {DRIFT: 0.0}
    policy.load_weights({"scale": torch.full((2,), 3.0)})
    noise = torch.randn(fixed.shape, generator=torch.Generator().manual_seed(0))
    expected = sum(
        float((2.0 * ((1 - t) * fixed + t * noise)).square().mean()) for t in TIMES
    ) / len(TIMES)
    assert drift(4, [], policy.weights())[DRIFT] == pytest.approx(expected, rel=1e-5)


def test_it_goes_on_with_the_same_latents_and_changes_no_weight(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    recipe.metrics.drift_interval = 2
    whole, _ = tiny_learner(recipe, tmp_path / "whole")
    whole.start()
    outputs = run_steps(whole, 0, 6)
    found = [output.metrics.get(DRIFT) for output in outputs]
    assert [value is not None for value in found] == [False, True] * 3
    assert 0 < found[1] < found[3] < found[5]  # pyright: ignore
    assert NORM not in outputs[1].metrics, "the tiny policy has no adapter"
    first, _ = tiny_learner(recipe, tmp_path / "cut")
    first.start()
    run_steps(first, 0, 3)
    first.save({}).result()
    first.close()
    again, _ = tiny_learner(recipe, tmp_path / "cut")
    again.start()
    assert [output.metrics.get(DRIFT) for output in run_steps(again, 3, 6)] == found[3:]
    recipe.metrics.drift_interval = 0
    without, _ = tiny_learner(recipe, tmp_path / "without")
    without.start()
    last = run_steps(without, 0, 6)[-1]
    assert last.version == outputs[-1].version
    assert DRIFT not in last.metrics
