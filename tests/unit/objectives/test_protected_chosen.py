"""The rejected video's gradient, scaled so that the chosen error cannot rise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.losses import loss_of
from videorl.objectives.dpo import FlowDPO, safe_rejected_scale, scale_gradient


def mean_squared(residual: Tensor) -> Tensor:
    return residual.square().mean().view(1)


def test_scales_by_hand() -> None:
    chosen, rejected = torch.tensor([0.16, 0.5, 0.0, 0.3]), torch.tensor([0.64, 0.4, 0.7, 0.0])
    # sqrt(0.16 / 0.64); the chosen error is larger; nothing may be risked; nothing to push away.
    torch.testing.assert_close(
        safe_rejected_scale(chosen, rejected), torch.tensor([0.5, 1.0, 0.0, 1.0])
    )


def test_only_the_gradient_is_scaled() -> None:
    value = torch.tensor([0.1, 0.7], requires_grad=True)
    scaled = scale_gradient(value, torch.tensor([0.3, 0.0]))
    assert torch.equal(scaled, value), "bit for bit: an untrained policy has the margin 0"
    scaled.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == pytest.approx([0.3, 0.0])


def test_the_gradient_of_the_loss_by_hand() -> None:
    err_NR, ref_err_NR = torch.tensor([[0.16, 0.64]]), torch.tensor([[0.2, 0.5]])
    err_NR.requires_grad_()
    plain_N, plain_logged = loss_of(FlowDPO(beta=10.0), err_NR, ref_err_NR, torch.zeros(1))
    loss_N, logged = loss_of(
        FlowDPO(beta=10.0, protect_chosen=True), err_NR, ref_err_NR, torch.zeros(1)
    )
    assert torch.equal(loss_N, plain_N)
    assert torch.equal(logged["learn/margin"], plain_logged["learn/margin"])
    assert logged["dpo/safe_rejected_scale"].item() == pytest.approx(0.5)
    (plain,) = torch.autograd.grad(plain_N.sum(), err_NR)
    (found,) = torch.autograd.grad(loss_N.sum(), err_NR)
    torch.testing.assert_close(found, plain * torch.tensor([[1.0, 0.5]]))
    both = FlowDPO(beta=10.0, protect_chosen=True, rejected_scale=0.4)
    (found,) = torch.autograd.grad(
        loss_of(both, err_NR, ref_err_NR, torch.zeros(1))[0].sum(), err_NR
    )
    chosen, rejected = found[0].tolist()
    assert rejected == pytest.approx(-0.4 * 0.5 * chosen)


def change_of_chosen_error(
    weights_2: Tensor, chosen_2: Tensor, rejected_2: Tensor, objective: FlowDPO
) -> float:
    """Return the first-order change of the chosen error in a step along minus the gradient.

    The model has two weights, and puts them out as its prediction for every video.
    """
    weights_2 = weights_2.clone().requires_grad_()
    err_chosen, err_rejected = (mean_squared(weights_2 - one) for one in (chosen_2, rejected_2))
    err_NR = torch.stack([err_chosen, err_rejected], 1)
    loss_N, _ = loss_of(objective, err_NR, torch.tensor([[0.5, 0.5]]), torch.zeros(1))
    (of_loss,) = torch.autograd.grad(loss_N.sum(), weights_2, retain_graph=True)
    (of_chosen,) = torch.autograd.grad(err_chosen.sum(), weights_2)
    return -(of_loss @ of_chosen).item()


def test_a_step_of_a_model_of_two_weights_never_raises_the_chosen_error() -> None:
    plain, protected = FlowDPO(beta=4.0), FlowDPO(beta=4.0, protect_chosen=True)
    generator = torch.Generator().manual_seed(0)
    rises = 0
    for _ in range(300):
        weights, chosen, rejected = torch.randn(3, 2, generator=generator)
        rises += change_of_chosen_error(weights, chosen, rejected, plain) > 1e-6
        assert change_of_chosen_error(weights, chosen, rejected, protected) <= 1e-6
    assert rises > 30, "plain DPO does raise it: there is something to protect from"


def test_the_scale_is_at_most_that_of_the_output_gradients() -> None:
    """Diffusion-SDPO, arXiv 2511.03317: |g_c|² / g_c·g_r if that is in (0, 1), and 1 else."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        chosen, rejected = torch.randn(2, 6, generator=generator)
        inner = (chosen @ rejected).item()
        exact = min(1.0, (chosen @ chosen).item() / inner) if inner > 0 else 1.0
        assert safe_rejected_scale(mean_squared(chosen), mean_squared(rejected)) <= exact + 1e-6


def test_the_scale_is_that_of_the_output_gradients_where_they_are_parallel() -> None:
    chosen = torch.tensor([0.2, -0.5, 0.1])
    found = safe_rejected_scale(mean_squared(chosen), mean_squared(3 * chosen)).item()
    assert found == pytest.approx((chosen @ chosen / (chosen @ (3 * chosen))).item())
