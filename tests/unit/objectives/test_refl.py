"""ReFL's chain and loss by hand: a model that is one number, on both noising processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videorl.objectives.refl import ReFL, predict_clean, refl_loss, stop_step
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.processes.vp_diffusion import VPDiffusion

SQUARED_ALPHAS = torch.tensor([0.96, 0.64, 0.36, 0.0])
X_T = torch.tensor([2.0, -3.0]).view(2, 1, 1, 1, 1)


def walk(process: RectifiedFlow | VPDiffusion, times: list[float]) -> tuple[Tensor, Tensor]:
    """Return the clean latents [2] of a model that predicts w x_t, w = 0.3, and d sum / d w."""
    w = torch.tensor(0.3, requires_grad=True)
    times_BG = torch.tensor([times, times])
    clean = predict_clean(process, lambda x_t, t_B: w * x_t, X_T, times_BG).flatten()
    (slope,) = torch.autograd.grad(clean.sum(), w)
    return clean.detach(), slope


def test_one_call_predicts_the_clean_latents_from_where_the_chain_stopped() -> None:
    clean, slope = walk(RectifiedFlow(), [0.25])
    # x_0 = x_t - t v = x_t (1 - 0.25 * 0.3); the slope of the sum, -1, is +0.25.
    torch.testing.assert_close(clean, X_T.flatten() * 0.925)
    assert slope.item() == pytest.approx(0.25)


def test_two_calls_of_a_flow_are_an_euler_step_and_a_prediction() -> None:
    clean, slope = walk(RectifiedFlow(), [0.5, 0.25])
    # Euler from 0.5 to 0.25: x (1 - 0.25 w); then the factor (1 - 0.25 w) once more.
    torch.testing.assert_close(clean, X_T.flatten() * 0.925**2)
    assert slope.item() == pytest.approx(-1 * 2 * 0.925 * -0.25), "through both calls"


def test_two_calls_of_a_diffusion_are_a_ddim_step_and_a_prediction() -> None:
    clean, _ = walk(VPDiffusion(SQUARED_ALPHAS), [0.75, 0.5])
    # Alpha, sigma: 0.6, 0.8, then 0.8, 0.6. x_0 = (0.6 - 0.24) x, noise = (0.8 + 0.18) x, mixed
    # to 0.8 * 0.36 + 0.6 * 0.98 = 0.876 x; then the factor 0.8 - 0.6 * 0.3 = 0.62.
    torch.testing.assert_close(clean, X_T.flatten() * 0.876 * 0.62)


@pytest.mark.parametrize(
    "process",
    [RectifiedFlow(), VPDiffusion(SQUARED_ALPHAS), VPDiffusion(SQUARED_ALPHAS, "epsilon")],
    ids=["flow", "velocity", "noise"],
)
def test_a_model_that_is_right_gives_back_the_video(
    process: RectifiedFlow | VPDiffusion,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 1, 2, 2, 2, generator=generator)
    times_BG = torch.tensor([[0.75, 0.5, 0.25], [0.75, 0.25, 0.25]])
    x_t = process.corrupt(x0, noise, times_BG[:, 0])
    clean = predict_clean(process, lambda _, t_B: process.target(x0, noise, t_B), x_t, times_BG)
    torch.testing.assert_close(clean, x0)
    halves = process.decompose(x_t, process.target(x0, noise, times_BG[:, 0]), times_BG[:, 0])
    torch.testing.assert_close(halves, (x0, noise))


def test_chains_stop_anywhere_in_the_last_quarter() -> None:
    assert ReFL().first_stop(40) == 30, "ImageReward's 30 ... 39"
    assert [ReFL().first_stop(steps) for steps in (1, 2, 8, 50)] == [0, 1, 6, 38]
    stops = [stop_step(seed, 30, 40) for seed in range(2000)]
    assert set(stops) == set(range(30, 40))
    assert sum(stops) / 2000 == pytest.approx(34.5, abs=0.3)
    assert stops[:9] == [stop_step(seed, 30, 40) for seed in range(9)]


def test_the_loss_falls_with_the_reward_until_there_is_enough() -> None:
    for enough, losses, slopes in (
        (None, [1.0, -0.5, -3.0], [-1.0, -1.0, -1.0]),
        (2.0, [3.0, 1.5, 0.0], [-1.0, -1.0, 0.0]),
    ):
        reward_N = torch.tensor([-1.0, 0.5, 3.0], requires_grad=True)
        loss_N = refl_loss(reward_N, enough)
        assert loss_N.tolist() == losses
        assert torch.autograd.grad(loss_N.sum(), reward_N)[0].tolist() == slopes
