"""The drift of the weights, by hand and over a run that is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.learners import run_steps, tiny_learner, tiny_recipe
from videorl.learning import learner as learning
from videorl.learning.drift import Drift


def test_it_is_the_relative_distance_over_all_tensors() -> None:
    first = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]], dtype=torch.bfloat16)}
    drift = Drift(first)
    assert drift(first) == 0.0
    first["a"] += 1.0  # a copy is compared with
    # The difference is (1, 1, 2): √6, and the start is √(9 + 16) = 5.
    assert drift({**first, "b": torch.tensor([[6.0]])}) == pytest.approx(6**0.5 / 5)
    assert Drift({"a": torch.zeros(2)})({"a": torch.ones(2)}) == 0.0


def test_a_resumed_run_measures_from_the_same_start(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    whole, policy = tiny_learner(recipe, tmp_path / "whole")
    first = {name: tensor.clone() for name, tensor in policy.weights().items()}
    whole.start()
    outputs = run_steps(whole, 0, 4)
    drifts = [output.metrics["weights/drift"] for output in outputs]
    assert drifts[0] > 0 and len(set(drifts)) == 4
    now = whole.published(outputs[-1].version)
    apart = torch.cat([(now[name] - first[name]).flatten() for name in first]).norm()
    start = torch.cat([tensor.flatten() for tensor in first.values()]).norm()
    assert drifts[-1] == pytest.approx(float(apart / start), rel=1e-5)

    begun, _ = tiny_learner(recipe, tmp_path / "resumed")
    begun.start()
    run_steps(begun, 0, 2)
    begun.save({}).result()
    resumed, _ = tiny_learner(recipe, tmp_path / "resumed")
    resumed.start()
    again = run_steps(resumed, 2, 4)
    assert [output.metrics["weights/drift"] for output in again] == pytest.approx(drifts[2:])


def test_large_models_are_not_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_NUMBERS", 1)
    large, _ = tiny_learner(tiny_recipe(), tmp_path)
    large.start()
    (output,) = run_steps(large, 0, 1)
    assert "weights/drift" not in output.metrics
