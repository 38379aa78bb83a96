"""The state of a DeepSpeed optimizer as whole tensors by name, whatever the ranks and ZeRO stage.

DeepSpeed's own checkpoints hold what each rank had, so that another number of ranks, or another
stage, cannot read them. Whole tensors can be cut anew, need no pickle, and let one rank write.
They pass through rank 0, which for adapters is little. For every weight of a large model it is
three float32 copies: `deepspeed_share` has each rank's slices instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from videorl.learning.engines.whole_state import MOMENTS, moment_name


def full_state(
    engine: Any, parameters: Mapping[str, Tensor], *, on_all: bool = False
) -> dict[str, Tensor]:
    """Gather parameters, moments and step count on rank 0; the others help, and get nothing.

    Moments are left out before the first update, when there are none. With `on_all`, all get all.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    inner, is_sharded = torch_optimizer(engine), engine.zero_optimization_stage() > 0
    states = [state for state in inner.state.values() if "exp_avg" in state]
    found: dict[str, Tensor] = {"step": states[0]["step"].cpu() if states else torch.zeros(())}
    keeps = on_all or torch.distributed.get_rank() == 0

    def keep(name: str, value: Tensor | None) -> None:
        assert value is not None, f"DeepSpeed knows no {name}"
        if keeps:
            found[name] = value.detach().to("cpu", torch.float32, copy=True).contiguous()

    for name, parameter in parameters.items():
        keep(name, safe_get_full_fp32_param(parameter) if is_sharded else parameter)
        for moment in MOMENTS if states else ():
            value = (
                safe_get_full_optimizer_state(parameter, moment)
                if is_sharded
                else inner.state[parameter][moment]
            )
            keep(moment_name(name, moment), value)
    return found if keeps else {}


def load_full_state(
    engine: Any, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Cut what `full_state` gathered to this rank's share, in place."""
    has_moments = float(state["step"]) > 0
    if has_moments:
        create_moments(engine, state["step"])
    set_value = {0: _set_whole, 3: _set_partition}.get(
        engine.zero_optimization_stage(), _set_fragment
    )
    for name, parameter in parameters.items():
        set_value(engine, parameter, state[name], None)
        for moment in MOMENTS if has_moments else ():
            set_value(engine, parameter, state[moment_name(name, moment)], moment)


def torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    """Return the PyTorch optimizer below ZeRO's."""
    return engine.optimizer.optimizer if engine.zero_optimization_stage() > 0 else engine.optimizer


def create_moments(engine: Any, step: Tensor) -> None:
    """Make the moments that PyTorch would make at the first update."""
    stage, inner = engine.zero_optimization_stage(), torch_optimizer(engine)
    if stage == 3:
        held = engine.optimizer.fp32_partitioned_groups_flat
    elif stage > 0:
        held = engine.optimizer.single_partition_of_fp32_groups
    else:
        held = [parameter for group in inner.param_groups for parameter in group["params"]]
    for tensor in held:
        inner.state[tensor] = {
            # The fused kernel counts where it computes.
            "step": step.to(tensor.device if inner.defaults["fused"] else "cpu", copy=True),
            **{moment: torch.zeros_like(tensor) for moment in MOMENTS},
        }
    if stage in (1, 2):
        engine.optimizer._lazy_init_hp_params_optimizer_state()


@torch.no_grad()
def _set_whole(engine: Any, parameter: Tensor, value: Tensor, moment: str | None) -> None:
    """Copy where every rank holds everything (stage 0)."""
    held = parameter if moment is None else torch_optimizer(engine).state[parameter][moment]
    held.copy_(value)


@torch.no_grad()
def _set_fragment(engine: Any, parameter: Tensor, value: Tensor, moment: str | None) -> None:
    """Copy where ranks hold whole parameters, but slices of their optimizer states (1 and 2)."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    value = value.to(parameter.device)
    if moment is not None:
        safe_set_full_optimizer_state(parameter, value, moment)
        return
    safe_set_full_fp32_param(parameter, value)
    parameter.copy_(value)


@torch.no_grad()
def _set_partition(engine: Any, parameter: Any, value: Tensor, moment: str | None) -> None:
    """Copy where ranks hold slices of everything (stage 3)."""
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    size = parameter.ds_tensor.numel()
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    # The last slices are padded: DeepSpeed's own way to set a whole value forgets that.
    padded = torch.zeros(size * num_ranks, dtype=torch.float32)
    padded[: value.numel()] = value.flatten()
    own = padded[rank * size : (rank + 1) * size].to(parameter.ds_tensor.device)
    if moment is not None:
        safe_set_local_optimizer_state(parameter, own, moment)
        return
    safe_set_local_fp32_param(parameter, own)
    parameter.ds_tensor.copy_(own)
