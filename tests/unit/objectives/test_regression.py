"""SFT and Flow-RWR: losses and gradients by hand."""

from __future__ import annotations

import pytest
import torch

from tests.losses import loss_of
from videorl.objectives.flow_rwr import FlowRWR
from videorl.objectives.objective import CandidateObjective
from videorl.objectives.sft import SFT


@pytest.mark.parametrize("objective", [SFT(), FlowRWR()], ids=lambda objective: objective.name)
def test_the_loss_is_the_error_whatever_the_reference_and_time(
    objective: CandidateObjective,
) -> None:
    err_NR = torch.tensor([[0.4], [0.9]], requires_grad=True)
    ref_err_NR, t_N = torch.tensor([[0.5], [0.6]]), torch.tensor([0.1, 1.0])
    loss_N, logged = loss_of(objective, err_NR, ref_err_NR, t_N)
    torch.testing.assert_close(loss_N, torch.tensor([0.4, 0.9]))
    torch.testing.assert_close(logged["regression/error"], torch.tensor([0.4, 0.9]))
    torch.testing.assert_close(logged["regression/error_change"], torch.tensor([-0.2, 0.5]))
    assert not any(value.requires_grad for value in logged.values())
    loss_N.sum().backward()
    assert err_NR.grad is not None
    assert err_NR.grad.tolist() == [[1.0], [1.0]], "descent lowers the error"
    alone_N, logged = loss_of(objective, err_NR, None, t_N)
    assert torch.equal(alone_N, loss_N)
    assert logged.keys() == {"regression/error"}


def test_the_reference_predicts_only_where_videos_are_small_or_it_is_asked_for() -> None:
    small, large = 9 * 32 * 32, 81 * 480 * 832
    for objective in (SFT, FlowRWR):
        assert objective().frozen_roles(small) == {"reference"}
        assert objective().frozen_roles(large) == frozenset()
        assert objective(compare_with_reference=True).frozen_roles(large) == {"reference"}
        assert objective(compare_with_reference=False).frozen_roles(small) == frozenset()
