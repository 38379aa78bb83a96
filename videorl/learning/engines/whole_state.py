"""The state of AdamW as tensors by name: parameters, their moments, and the step count."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from videorl.learning.engines.slices import Slice, cut

MOMENTS = ("exp_avg", "exp_avg_sq")


def moment_name(parameter: str, moment: str) -> str:
    """Return the name under which one of AdamW's moments of a parameter is kept."""
    return f"{moment}/{parameter}"


def with_moments(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the moments that there are none of before the first update, as zeros."""
    names = [name for name in state if name != "step"]
    zeros = {
        moment_name(name, moment): torch.zeros_like(state[name])
        for name in names
        for moment in MOMENTS
    }
    return {**state, **({} if float(state["step"]) else zeros)}


def whole_share(state: Mapping[str, Tensor]) -> dict[str, Slice]:
    """Return a state as slices that are all of their tensors, moments among them."""
    return {name: cut(value) for name, value in with_moments(state).items()}


def whole_state(share: Mapping[str, Slice], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state from slices that are all of their tensors; the parameters give the shapes."""
    values = {name: own.as_subclass(Tensor) for name, own in share.items()}
    found = {"step": values["step"].reshape(())}
    for name, parameter in parameters.items():
        for key in (name, *(moment_name(name, moment) for moment in MOMENTS)):
            found[key] = values[key].view(parameter.shape)
    return found
