"""Objectives called with errors alone, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from videorl.objectives.objective import CandidateObjective, LossInputs
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.protocols import Process, Role


def loss_of(
    objective: CandidateObjective,
    err_NR: Tensor,
    ref_err_NR: Tensor | None,
    t_N: Tensor,
    process: Process | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what an objective makes of mean squared errors; there are no latents to look at."""
    none = torch.empty(0)
    errors: dict[Role, Tensor] = {"policy": err_NR}
    if ref_err_NR is not None:
        errors["reference"] = ref_err_NR
    return objective(
        LossInputs(
            process=process or RectifiedFlow(),
            t_N=t_N,
            errors=errors,
            predictions={},
            x_t_NRCTHW=none,
            target_NRCTHW=none,
            clean_NRCTHW=none,
            noise_NRCTHW=none,
        )
    )
