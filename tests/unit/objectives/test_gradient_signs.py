"""Which way every loss pulls each error, and Diffusion-DPO on targets of a diffusion by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.losses import loss_of
from videorl.objectives import OBJECTIVES
from videorl.objectives.dpo import FlowDPO
from videorl.processes.vp_diffusion import VPDiffusion
from videorl.settings.plugins import find

OPTIONS_OF_DPO: list[dict[str, Any]] = [
    {},
    {"beta_schedule": "squared_signal"},
    {"sft_weight": 0.5},
    {"rejected_scale": 0.5},
    {"protect_chosen": True},
    {"importance_clip": 0.2},
]
ALL = [{"name": "flow_dpo", "beta": 4.0, **options} for options in OPTIONS_OF_DPO]
ALL += [{"name": "sft"}, {"name": "flow_rwr"}]

# Better than the reference at both videos, equal to it, worse, decided, and wrong.
ERRORS = torch.tensor([[0.2, 0.3], [0.5, 0.5], [0.9, 0.8], [0.1, 0.9], [0.9, 0.1]])
REFERENCE_ERRORS = torch.full((5, 2), 0.5)
SQUARED = FlowDPO(beta=4.0, beta_schedule="squared_signal")
TIMES = torch.tensor([0.2, 0.4, 0.6, 0.8, 0.3])


def test_every_objective_is_here() -> None:
    assert {one["name"] for one in ALL} == OBJECTIVES.keys() - {"refl"}


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_the_loss_falls_with_the_chosen_error_and_rises_as_the_rejected_falls(
    settings: dict[str, Any],
) -> None:
    options = {key: value for key, value in settings.items() if key != "name"}
    objective = find(settings["name"], OBJECTIVES, "objective.name")(**options)
    is_pair = objective.learns_from == "pairs"
    roles = slice(0, 2 if is_pair else 1)

    def loss(err_NR: Tensor) -> Tensor:
        return loss_of(objective, err_NR[:, roles], REFERENCE_ERRORS[:, roles], TIMES)[0]

    err_NR = ERRORS.clone().requires_grad_()
    (gradient_NR,) = torch.autograd.grad(loss(err_NR).sum(), err_NR)
    assert (gradient_NR[:, 0] > 0).all(), "descent lowers the chosen error"
    assert (gradient_NR[:, 1] < 0).all() or not is_pair
    assert (loss(err_NR - 0.05 * gradient_NR.sign()) < loss(err_NR)).all()


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_what_is_logged_is_what_the_objective_says(settings: dict[str, Any]) -> None:
    options = {key: value for key, value in settings.items() if key != "name"}
    objective = find(settings["name"], OBJECTIVES, "objective.name")(**options)
    roles = slice(0, 2 if objective.learns_from == "pairs" else 1)
    _, logged = loss_of(objective, ERRORS[:, roles], REFERENCE_ERRORS[:, roles], TIMES)
    assert logged.keys() <= set(objective.logs)
    assert not any(value.requires_grad for value in logged.values())


def test_a_pair_that_is_decided_pulls_less_than_one_that_is_wrong() -> None:
    err_NR = torch.tensor([[0.1, 0.9], [0.9, 0.1]], requires_grad=True)
    loss_N, _ = loss_of(FlowDPO(beta=4.0), err_NR, torch.full((2, 2), 0.5), torch.zeros(2))
    (gradient_NR,) = torch.autograd.grad(loss_N.sum(), err_NR)
    # sigmoid(-margin) * beta / 2, with margins 1.6 and -1.6
    expected = [2 / (1 + math.exp(1.6)), 2 / (1 + math.exp(-1.6))]
    assert gradient_NR[:, 0].tolist() == pytest.approx(expected)


def test_squared_signal_pulls_less_at_noisier_times_and_not_at_all_at_1() -> None:
    err_NR = torch.full((3, 2), 0.5, requires_grad=True)
    t_N = torch.tensor([0.0, 0.5, 1.0])
    loss_N, _ = loss_of(SQUARED, err_NR, torch.full((3, 2), 0.5), t_N)
    (gradient_NR,) = torch.autograd.grad(loss_N.sum(), err_NR)
    torch.testing.assert_close(gradient_NR, torch.tensor([[1.0, -1.0], [0.25, -0.25], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("prediction", "margin"),
    [
        # Targets 0.8 noise - 0.6 x_0: 0.2 and 1.4; errors (0.09, 0.81) against (0.04, 1.96).
        ("v_prediction", -2.0 * ((0.09 - 0.04) - (0.81 - 1.96))),
        # Target: the noise 1 for both; errors (0.25, 0.25) against (1, 1).
        ("epsilon", -2.0 * ((0.25 - 1.0) - (0.25 - 1.0))),
    ],
)
def test_diffusion_dpo_by_hand(prediction: str, margin: float) -> None:
    process = VPDiffusion(torch.tensor([0.64, 0.0]), prediction)
    x0, noise, t_B = torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1), torch.tensor([0.5, 0.5])
    target = process.target(x0, noise, t_B)
    err_NR = (target - 0.5).square().mT
    ref_err_NR = target.square().mT
    loss_N, logged = loss_of(FlowDPO(beta=4.0), err_NR, ref_err_NR, t_B[:1])
    assert logged["learn/margin"].item() == pytest.approx(margin, abs=1e-6)
    assert loss_N.item() == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-6)
