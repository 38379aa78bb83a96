"""Flow-DPO against hand-computed values and against the values of the public SD3 script."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.losses import loss_of
from videorl.objectives.dpo import FlowDPO, dpo_logits, dpo_loss
from videorl.objectives.objective import Surroundings
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.selection import BestVsWorst

FIXTURE = json.loads(
    (Path(__file__).parents[2] / "fixtures/flow_dpo_loss/cases.json").read_text("utf-8")
)
TOLERANCE = FIXTURE["tolerance"]


def errors(*values: float) -> list[Tensor]:
    return [torch.tensor([value]) for value in values]


def test_one_pair_by_hand() -> None:
    # -10/2 * ((0.4 - 0.5) - (0.9 - 0.6)) = 2; -log sigmoid(2) = log(1 + e^-2)
    logits = dpo_logits(*errors(0.4, 0.9, 0.5, 0.6), beta=10.0)
    loss = dpo_loss(*errors(0.4, 0.9, 0.5, 0.6), beta=10.0)
    assert logits.item() == pytest.approx(2.0, abs=1e-5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)


def test_the_loss_is_the_mean_over_pairs() -> None:
    first, second = (0.4, 0.9, 0.5, 0.6), (0.7, 0.2, 0.5, 0.6)
    both = [torch.tensor(pair) for pair in zip(first, second, strict=True)]
    single = [dpo_loss(*errors(*pair), beta=10.0).item() for pair in (first, second)]
    assert dpo_loss(*both, beta=10.0).item() == pytest.approx(sum(single) / 2, abs=1e-6)


@pytest.mark.parametrize("beta", [1e-3, 500.0, 1e6])
def test_log_2_where_the_policy_equals_the_reference(beta: float) -> None:
    chosen, rejected = errors(0.123, 4.56)
    loss = dpo_loss(chosen, rejected, chosen, rejected, beta=beta)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)


def test_the_gradient_lowers_the_chosen_error_and_raises_the_rejected() -> None:
    err_chosen, err_rejected = (one.requires_grad_() for one in errors(0.5, 0.5))
    dpo_loss(err_chosen, err_rejected, *errors(0.5, 0.5), beta=8.0).backward()
    assert err_chosen.grad is not None
    assert err_rejected.grad is not None
    # d loss / d err_chosen = sigmoid(-0) * beta / 2 = 2
    assert err_chosen.grad.item() == pytest.approx(2.0)
    assert err_rejected.grad.item() == pytest.approx(-2.0)


def test_a_decided_pair_has_a_finite_loss_and_gradient() -> None:
    err_chosen = torch.tensor([1e4], requires_grad=True)
    loss = dpo_loss(err_chosen, *errors(0.0, 0.0, 0.0), beta=500.0)
    loss.backward()
    assert err_chosen.grad is not None
    assert loss.item() == pytest.approx(2.5e6)
    assert err_chosen.grad.item() == pytest.approx(250.0)


def test_squared_signal_is_a_beta_of_each_item() -> None:
    err_NR = torch.tensor([[0.4, 0.9], [0.3, 0.1], [0.5, 0.2]])
    ref_err_NR = torch.tensor([[0.5, 0.6], [0.2, 0.3], [0.1, 0.4]])
    t_N = torch.tensor([0.0, 0.5, 1.0])
    loss_N, _ = loss_of(FlowDPO(beta=20.0, beta_schedule="squared_signal"), err_NR, ref_err_NR, t_N)
    singly = [
        dpo_loss(*err_NR[[item]].unbind(1), *ref_err_NR[[item]].unbind(1), beta=beta)
        for item, beta in enumerate([20.0, 5.0, 0.0])
    ]
    torch.testing.assert_close(loss_N, torch.stack(singly))
    assert loss_N[2].item() == pytest.approx(math.log(2)), "at t = 1 there is nothing to learn"


def test_logged_values_by_hand() -> None:
    err_NR, ref_err_NR = torch.tensor([[0.4, 0.9], [0.75, 0.2]]), torch.tensor([[0.5, 0.6]] * 2)
    loss_N, logged = loss_of(FlowDPO(beta=10.0), err_NR, ref_err_NR, torch.tensor([0.3, 0.6]))
    expected = {
        "learn/accuracy": [1.0, 0.0],
        "learn/margin": [2.0, -3.25],
        "dpo/chosen_reward": [0.5, -1.25],
        "dpo/rejected_reward": [-1.5, 2.0],
        "dpo/winner_error_change": [-0.2, 0.5],
    }
    assert logged.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(logged[name], torch.tensor(values), msg=name)
    torch.testing.assert_close(loss_N, torch.log1p(torch.exp(-logged["learn/margin"])))


def test_a_scaled_rejected_term_by_hand() -> None:
    # -10/2 * ((0.4 - 0.5) - 0.5 * (0.9 - 0.6)) = 1.25
    err_NR, ref_err_NR = torch.tensor([[0.4, 0.9]]), torch.tensor([[0.5, 0.6]])
    err_NR.requires_grad_()
    loss_N, logged = loss_of(
        FlowDPO(beta=10.0, rejected_scale=0.5), err_NR, ref_err_NR, torch.zeros(1)
    )
    assert logged["learn/margin"].item() == pytest.approx(1.25, abs=1e-6)
    assert loss_N.item() == pytest.approx(math.log1p(math.exp(-1.25)), abs=1e-6)
    loss_N.sum().backward()
    assert err_NR.grad is not None
    chosen, rejected = err_NR.grad[0].tolist()
    # sigmoid(-1.25) * beta / 2 lowers the chosen error, half as much raises the rejected one.
    assert chosen == pytest.approx(5 / (1 + math.exp(1.25)), abs=1e-5)
    assert rejected == pytest.approx(-chosen / 2, abs=1e-6)


def test_the_sft_term_adds_the_chosen_error_by_hand() -> None:
    err_NR, ref_err_NR = torch.tensor([[0.4, 0.9]]), torch.tensor([[0.5, 0.6]])
    err_NR.requires_grad_()
    plain_N, _ = loss_of(FlowDPO(beta=10.0), err_NR, ref_err_NR, torch.zeros(1))
    loss_N, logged = loss_of(FlowDPO(beta=10.0, sft_weight=3.0), err_NR, ref_err_NR, torch.zeros(1))
    torch.testing.assert_close(loss_N - plain_N, torch.tensor([1.2]))
    assert logged["dpo/chosen_error"].item() == pytest.approx(0.4)
    (loss_N - plain_N).sum().backward()
    assert err_NR.grad is not None
    torch.testing.assert_close(err_NR.grad, torch.tensor([[3.0, 0.0]]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beta", 0.0),
        ("beta", -1.0),
        ("beta", math.nan),
        ("beta_schedule", "linear"),
        ("sft_weight", -0.1),
        ("sft_weight", math.nan),
        ("rejected_scale", 0.0),
        ("rejected_scale", 1.5),
        ("rejected_scale", math.nan),
        ("importance_clip", -0.1),
        ("importance_clip", 1.1),
        ("importance_clip", math.nan),
        ("importance_steps", 0),
        ("timesteps_per_pair", 0),
    ],
)
def test_options_out_of_range_are_named(option: str, value: Any) -> None:
    around = Surroundings("wan", True, BestVsWorst(), 8)
    problems = [one for one in FlowDPO(**{option: value}).problems(around) if one]
    assert len(problems) == 1
    assert problems[0].startswith(f"objective.{option} must be")
    assert not any(FlowDPO().problems(around))


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["id"])
def test_the_public_script(case: dict[str, Any]) -> None:
    tensors = {name: torch.tensor(case[name]) for name in case if isinstance(case[name], list)}
    expected = {name: torch.tensor(value) for name, value in case["expected"].items()}
    process, t_N, noise = RectifiedFlow(), tensors["sigma"], tensors["noise"]

    def close(found: Tensor, name: str, absolute: float, relative: float = 0.0) -> None:
        torch.testing.assert_close(found, expected[name], atol=absolute, rtol=relative, msg=name)

    velocities = {role: tensors[f"v_theta_{role}"].requires_grad_() for role in "wl"}
    found: dict[str, Tensor] = {}
    for role, velocity in velocities.items():
        x0 = tensors[f"x_{role}"]
        close(process.corrupt(x0, noise, t_N), f"noisy_{role}", TOLERANCE["noisy_abs"])
        target = process.target(x0, noise, t_N)
        for whose, prediction in (("theta", velocity), ("ref", tensors[f"v_ref_{role}"])):
            name = f"{whose}_{role}_err"
            found[name] = (target - prediction).square().flatten(1).mean(1)
            close(found[name], name, TOLERANCE["err_abs"])

    names = ("theta_w_err", "theta_l_err", "ref_w_err", "ref_l_err")
    logits = dpo_logits(*(found[name] for name in names), beta=case["beta"])
    close(logits, "inside_term", 1e-4, 1e-4)
    loss = dpo_loss(*(found[name] for name in names), beta=case["beta"])
    close(loss, "loss", TOLERANCE["loss_abs"], TOLERANCE["loss_rel"])
    loss.backward()
    for role, velocity in velocities.items():
        assert velocity.grad is not None
        close(velocity.grad, f"grad_v_theta_{role}", TOLERANCE["grad_abs"])

    loss_N, logged = loss_of(
        FlowDPO(beta=case["beta"]),
        torch.stack([found["theta_w_err"], found["theta_l_err"]], 1),
        torch.stack([found["ref_w_err"], found["ref_l_err"]], 1),
        t_N,
    )
    close(loss_N.mean(), "loss", TOLERANCE["loss_abs"], TOLERANCE["loss_rel"])
    close(logged["learn/accuracy"].mean(), "implicit_acc", 1e-6)
