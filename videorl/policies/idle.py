"""Two transformers that take turns on the device: the idle one waits in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from videorl.policies.family import Family


class Turns:
    """Brings the blocks of a transformer to the device before it computes, and the others away.

    Only frozen weights of the blocks move: adapters stay, since an optimizer holds them, and so
    does what lies outside of the blocks, by which diffusers tells the device. Numbers are copied
    as they are, so what is computed is the same bit for bit. In a backward pass a transformer
    takes its turn when the gradient reaches its output: its weights are needed again, and a
    micro-batch may have items of both.

    Args:
        family: Which knows the blocks.
        models: The transformers by name; on the CPU.
        device: Where they compute.
    """

    def __init__(self, family: Family, models: Mapping[str, Any], device: torch.device) -> None:
        self._device = device
        self._moving = {name: _frozen(family.blocks(model)) for name, model in models.items()}
        waiting = {id(one) for parameters in self._moving.values() for one in parameters}
        for name, model in models.items():
            for tensor in (*model.parameters(), *model.buffers()):
                if id(tensor) not in waiting:
                    tensor.data = tensor.data.to(device)
            self._watch(name, model)
        self.take(next(iter(models)))

    def take(self, name: str) -> None:
        """Bring the blocks of a transformer to the device, after those of the others have left.

        Engines bring all to the device when they start, so every weight is looked at.
        """
        for other, parameters in self._moving.items():
            for parameter in parameters if other != name else ():
                send(parameter)
        for parameter in self._moving[name]:
            bring(parameter, self._device)

    def _watch(self, name: str, model: nn.Module) -> None:
        def before(*_: Any) -> None:
            self.take(name)

        def after(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output[0], Tensor) and output[0].requires_grad:
                output[0].register_hook(before)

        model.register_forward_pre_hook(before)
        model.register_forward_hook(after)


def send(parameter: nn.Parameter) -> None:
    """Move a weight to host memory, if it is not there."""
    parameter.data = parameter.data.cpu()


def bring(parameter: nn.Parameter, device: torch.device) -> None:
    """Move a weight to a device, if it is not there."""
    parameter.data = parameter.data.to(device)


def _frozen(blocks: nn.Module) -> list[nn.Parameter]:
    return [
        parameter
        for name, parameter in blocks.named_parameters()
        if not parameter.requires_grad and ".lora_" not in name
    ]
