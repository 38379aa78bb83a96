"""What a loss sees: predictions in latent space, and only of the models that it asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.errors import ConfigError
from videorl.objectives.objective import CandidateObjective, FrozenRole, LossInputs
from videorl.objectives.sft import SFT


@dataclass
class VelocityKL(CandidateObjective):
    """|v - v_ref|² of the chosen video: the KL of two flows whose noise has variance 1/2."""

    learns_from = "pairs"

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        difference = inputs.predictions["policy"] - inputs.of(inputs.predictions, "reference")
        loss_N = difference.square().mean((2, 3, 4, 5))[:, 0]
        # Everything that noising made is there, and fits together.
        x_t = inputs.process.corrupt(
            inputs.clean_NRCTHW.flatten(0, 1),
            inputs.noise_NRCTHW.flatten(0, 1),
            inputs.t_N.repeat_interleave(2),
        )
        torch.testing.assert_close(x_t, inputs.x_t_NRCTHW.flatten(0, 1))
        error_NR = (inputs.target_NRCTHW - inputs.predictions["policy"]).square().mean((2, 3, 4, 5))
        torch.testing.assert_close(error_NR, inputs.err_NR)
        return loss_N, {"kl/value": loss_N.detach()}


@dataclass
class Curious(CandidateObjective):
    """Looks at the base, which it did not ask for."""

    learns_from = "pairs"

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        return inputs.base_err_NR.sum(1), {}


@dataclass
class Scalar(CandidateObjective):
    """Forgets that a loss has one value per item."""

    learns_from = "pairs"

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        return inputs.err_NR.mean(), {}


@dataclass
class Alone(CandidateObjective):
    """Looks at no frozen model."""

    learns_from = "pairs"

    def frozen_roles(self, video_pixels: int) -> frozenset[FrozenRole]:
        return frozenset()

    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        return inputs.err_NR[:, 0], {}


def learner_of(objective: CandidateObjective, folder: Path) -> tuple[Any, TinyPolicy]:
    recipe = tiny_recipe()
    recipe.objective = objective
    learner, policy = tiny_learner(recipe, folder)
    learner.start()
    return learner, policy


def test_a_loss_in_the_space_of_velocities(tmp_path: Path) -> None:
    learner, policy = learner_of(VelocityKL(), tmp_path)
    assert learner.step(0, tiny_pairs(0)).metrics["learn/loss"] == 0.0, "policy = reference"
    with torch.no_grad():
        assert policy.module.last.bias is not None
        policy.module.last.bias += 0.5
    metrics = learner.step(1, tiny_pairs(0)).metrics
    assert metrics["learn/loss"] == metrics["kl/value"] == pytest.approx(0.25, rel=1e-3)
    assert metrics["optimizer/grad_norm"] > 0


def test_what_was_not_asked_for_is_an_error_that_says_how_to_ask(tmp_path: Path) -> None:
    learner, _ = learner_of(Curious(), tmp_path)
    with pytest.raises(ConfigError, match=r"looks at the base.*`frozen_roles` must name it"):
        learner.step(0, tiny_pairs(0))


def test_a_loss_of_another_shape_is_named(tmp_path: Path) -> None:
    learner, _ = learner_of(Scalar(), tmp_path)
    with pytest.raises(ConfigError, match=r"one value per item, \[1\], got shape \[\]"):
        learner.step(0, tiny_pairs(0))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [(Alone(), {"policy"}), (SFT(compare_with_reference=False), {"policy"}), (VelocityKL(), None)],
)
def test_only_models_that_are_asked_for_predict(
    objective: CandidateObjective,
    expected: set[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[str] = set()
    predict = TinyPolicy.predict

    def watched(self: TinyPolicy, x_t: Tensor, t: Tensor, embeds: Any, role: Any) -> Tensor:
        asked.add(role)
        return predict(self, x_t, t, embeds, role)

    monkeypatch.setattr(TinyPolicy, "predict", watched)
    learner, _ = learner_of(objective, tmp_path)
    pairs = tiny_pairs(0)
    if objective.learns_from == "candidates":
        from videorl.types import WeightedCandidate

        pairs = [WeightedCandidate(p.prompt, p.prompt_embeds, p.chosen, 1.0) for p in pairs]
    learner.step(0, pairs)
    assert asked == (expected or {"policy", "reference"})
