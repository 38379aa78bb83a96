"""Importance weights of denoising steps, against the two Gaussian densities themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.losses import loss_of
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.importance import importance_weights, step_rate
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.processes.vp_diffusion import VPDiffusion
from videorl.protocols import Process

SQUARED_ALPHAS = torch.tensor([0.96, 0.64, 0.36, 0.0], dtype=torch.float64)
V_PREDICTION = VPDiffusion(SQUARED_ALPHAS)
NOISE_PREDICTION = VPDiffusion(SQUARED_ALPHAS, "epsilon")

# t, s and what alpha and sigma are there, by hand.
FLOW = (0.5, 0.25, (0.5, 0.5), (0.75, 0.25))
DIFFUSION = (0.75, 0.5, (0.6, 0.8), (0.8, 0.6))


def posterior(
    x0: Tensor, x_t: Tensor, now: tuple[float, float], then: tuple[float, float]
) -> Normal:
    """Return q(x_s | x_t, x_0) by Bayes' rule from q(x_s | x_0) and q(x_t | x_s)."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    ratio = alpha_t / alpha_s
    variance = sigma_t**2 - ratio**2 * sigma_s**2
    precision = 1 / sigma_s**2 + ratio**2 / variance
    mean = (alpha_s * x0 / sigma_s**2 + ratio * x_t / variance) / precision
    return Normal(mean, precision**-0.5)


@pytest.mark.parametrize(
    ("process", "step"),
    [(RectifiedFlow(), FLOW), (V_PREDICTION, DIFFUSION), (NOISE_PREDICTION, DIFFUSION)],
    ids=["velocity", "v", "noise"],
)
def test_the_ratio_of_the_densities_of_a_sampled_step(
    process: Process, step: tuple[float, float, tuple[float, float], tuple[float, float]]
) -> None:
    t, _, now, then = step
    alpha, sigma = now
    generator = torch.Generator().manual_seed(0)
    x0, noise, miss = torch.randn(3, 200_000, generator=generator, dtype=torch.float64)
    predicted = process.target(x0[None], noise[None], torch.tensor([t]))[0] + 0.3 * miss
    x_t = alpha * x0 + sigma * noise
    if isinstance(process, RectifiedFlow):
        predicted_x0 = x_t - t * predicted
    elif process is V_PREDICTION:
        predicted_x0 = alpha * x_t - sigma * predicted
    else:
        predicted_x0 = (x_t - sigma * predicted) / alpha
    true, model = posterior(x0, x_t, now, then), posterior(predicted_x0, x_t, now, then)
    x_s = true.mean + true.stddev * torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    sampled = (model.log_prob(x_s) - true.log_prob(x_s)).mean().item()
    expected = -kl_divergence(true, model).mean().item()

    error = (0.3 * miss).square().mean()
    rate_N = step_rate(process, torch.tensor([t], dtype=torch.float64), num_steps=4)
    assert -(rate_N * error).item() == pytest.approx(expected, rel=1e-9)
    assert sampled == pytest.approx(expected, abs=4 * math.sqrt(-2 * expected / len(x0)))
    weight_N = importance_weights(error.view(1, 1), rate_N, clip=1.0)
    assert weight_N.item() == pytest.approx(math.exp(sampled), abs=5e-3)


def test_rates_by_hand() -> None:
    # (SNR(0.25) - SNR(0.5)) / 2 * 0.5² = (9 - 1) / 8; then to t = 0, which has no variance.
    times = torch.tensor([0.5, 0.25])
    assert step_rate(RectifiedFlow(), times, 4).tolist() == [1.0, pytest.approx(1e30)]
    # (16/9 - 9/16) / 2 * 0.8²; from pure noise (9/16) / 2 * 1²; noise itself tells nothing there.
    times = torch.tensor([0.75, 1.0, 0.25])
    assert step_rate(V_PREDICTION, times, 4).tolist() == pytest.approx([175 / 450, 9 / 32, 1e30])
    assert step_rate(NOISE_PREDICTION, times, 4)[1].item() == pytest.approx(1e30)


def test_longer_steps_and_cleaner_times_weigh_less() -> None:
    times = torch.linspace(0.1, 0.9, 9)
    thousand, thirty = (step_rate(RectifiedFlow(), times, steps) for steps in (1000, 30))
    assert (thirty > thousand).all()
    assert (thousand.diff() < 0).all()
    # In the limit of short steps (1 - t) / t per unit of time.
    torch.testing.assert_close(1000 * thousand, (1 - times) / times, rtol=0.02, atol=0)


def test_weights_are_clipped_and_have_no_gradient() -> None:
    err_NR = torch.tensor([[0.0, 0.0], [0.05, 0.15], [2.0, 4.0]], requires_grad=True)
    weights_N = importance_weights(err_NR, torch.tensor([1e30, 1.0, 1.0]), clip=0.2)
    assert weights_N.tolist() == pytest.approx([1.0, math.exp(-0.1), 0.8])
    assert not weights_N.requires_grad


def test_the_clip_weighs_the_preference_term_alone() -> None:
    err_NR = torch.tensor([[0.2, 0.6], [0.2, 0.6]], requires_grad=True)
    ref_err_NR, t_N = torch.full((2, 2), 0.5), torch.tensor([0.5, 0.25])
    plain_N, _ = loss_of(FlowDPO(beta=10.0), err_NR, ref_err_NR, t_N)
    objective = FlowDPO(beta=10.0, sft_weight=2.0, importance_clip=0.5, importance_steps=4)
    loss_N, logged = loss_of(objective, err_NR, ref_err_NR, t_N)
    # Rate 1 times the mean error 0.4, and a step without variance.
    weights_N = torch.tensor([math.exp(-0.4), 0.5])
    torch.testing.assert_close(logged["dpo/importance_weight"], weights_N)
    torch.testing.assert_close(loss_N, weights_N * plain_N + 2 * err_NR[:, 0])
    (plain_gradient,) = torch.autograd.grad(plain_N.sum(), err_NR)
    (gradient,) = torch.autograd.grad(loss_N.sum(), err_NR)
    sft_gradient = torch.tensor([[2.0, 0.0]] * 2)
    torch.testing.assert_close(gradient, weights_N[:, None] * plain_gradient + sft_gradient)
