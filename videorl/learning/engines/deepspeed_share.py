"""What each rank holds of a DeepSpeed optimizer's state that ZeRO has cut; nothing is gathered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from videorl.learning.engines.deepspeed_state import create_moments, torch_optimizer
from videorl.learning.engines.slices import Slice, cut
from videorl.learning.engines.whole_state import MOMENTS, moment_name


def own_share(engine: Any, parameters: Mapping[str, Tensor]) -> dict[str, Slice]:
    """Return copies of this rank's slices of parameters and moments, and the step count.

    Moments are zeros before the first update. ZeRO stage 1 to 3.
    """
    states = [state for state in torch_optimizer(engine).state.values() if "exp_avg" in state]
    found = {"step": cut(states[0]["step"] if states else torch.zeros(()))}
    for name, held in _held(engine, parameters):
        values = held.get(None)
        found[name] = cut(values, held.offset, held.total)
        for moment in MOMENTS:
            value = held.get(moment) if states else torch.zeros_like(values)
            found[moment_name(name, moment)] = cut(value, held.offset, held.total)
    return found


@torch.no_grad()
def load_share(engine: Any, parameters: Mapping[str, Tensor], share: Mapping[str, Slice]) -> None:
    """Put slices like those that `own_share` gave in their places; every rank calls it."""
    values = {name: own.as_subclass(Tensor) for name, own in share.items()}
    create_moments(engine, values["step"].reshape(()))
    for name, held in _held(engine, parameters):
        for moment in MOMENTS:
            held.put(values[moment_name(name, moment)], moment)
        held.put(values[name], None)
    if engine.zero_optimization_stage() < 3:
        engine.optimizer.update_lp_params()


class _Held(Protocol):
    """A rank's slice of a parameter and of its moments; None is the parameter, in float32."""

    offset: int
    total: int

    def get(self, moment: str | None) -> Tensor: ...

    def put(self, values: Tensor, moment: str | None) -> None: ...


class _Fragment:
    """Of a parameter that is whole on every rank, the slice that this rank updates (1 and 2)."""

    def __init__(self, parameter: Any) -> None:
        self._fragment = parameter._hp_mapping
        self.offset: int = self._fragment.lp_fragment_address.start
        self.total: int = parameter.numel()

    def get(self, moment: str | None) -> Tensor:
        return self._fragment.get_hp_fragment(moment)

    def put(self, values: Tensor, moment: str | None) -> None:
        self.get(moment).copy_(values)


class _Partition:
    """A slice of a parameter that is whole nowhere (stage 3). The last may be padded."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter
        self.offset: int = torch.distributed.get_rank() * parameter.ds_tensor.numel()
        self.total: int = parameter.ds_numel

    def get(self, moment: str | None) -> Tensor:
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        if moment is None:
            return safe_get_local_fp32_param(self._parameter)
        return safe_get_local_optimizer_state(self._parameter, moment)

    def put(self, values: Tensor, moment: str | None) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        own = self._parameter.ds_tensor
        padded = torch.zeros(own.numel(), dtype=torch.float32, device=own.device)
        padded[: values.numel()] = values
        if moment is not None:
            safe_set_local_optimizer_state(self._parameter, padded, moment)
            return
        safe_set_local_fp32_param(self._parameter, padded)
        own.copy_(padded)


def _held(engine: Any, parameters: Mapping[str, Any]) -> Iterator[tuple[str, _Held]]:
    """Yield what this rank has a slice of, by name."""
    for name, parameter in parameters.items():
        if engine.zero_optimization_stage() == 3:
            yield name, _Partition(parameter)
        elif parameter._hp_mapping is not None:
            yield name, _Fragment(parameter)
