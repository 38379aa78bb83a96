"""Mixed precision for training: float32 weights that compute as their published values do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role


def float32_linears(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that a half-precision `model` keeps in float32."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32
    ]


def hold_frozen_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen large layers of `model` in `dtype`, to which autocast would cast them anyway.

    All else, such as norms, stays as it is: a model run under autocast gives the same numbers.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv3d)):
            for parameter in layer.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def prepare_for_autocast(
    trained: TrainedWeights, float32_layers: Iterable[str], device_type: str
) -> None:
    """Make both roles, run under autocast, round where the published half-precision model rounds.

    Autocast would compute in half precision what that model keeps in float32 (Wan: the time
    embedding), would return layer norms in float32 that the model returns in half precision
    (CogVideoX: all of them), would let RMS norms, which it does not know, mix types without a
    fused kernel, and would compute in float32 with tables that the model holds in half precision
    (LTX-Video: those of scales and shifts).

    Args:
        trained: Its modules are changed in place, but not the names or types of their parameters.
        float32_layers: `float32_linears` of the model as it was read from disk.
        device_type: Where they run: `cuda` or `cpu`.
    """
    roles: list[Role] = ["policy", "reference", *(["base"] if trained.has_own_base else [])]
    for role in roles:
        with trained.using(role) as module:
            for layer in map(module.get_submodule, float32_layers):
                layer.forward = torch.autocast(device_type, enabled=False)(layer.forward)
            for layer in module.modules():
                # Methods of the module, not closures over it, which torch.compile would compile
                # once more for every block.
                if isinstance(layer, nn.RMSNorm):
                    layer.forward = MethodType(_rms_norm, layer)
                # Subclasses, such as Wan's, have their own ways with types.
                if type(layer) is nn.LayerNorm:
                    layer.forward = MethodType(_layer_norm, layer)
            for name, layer in module.named_modules():
                _round_own_tensors(name, layer, trained.dtypes)


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    weight, bias = (None if one is None else one.to(x.dtype) for one in (norm.weight, norm.bias))
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    weight = None if norm.weight is None else norm.weight.to(x.dtype)
    return F.rms_norm(x, norm.normalized_shape, weight, norm.eps)


_ROUNDED_BY_AUTOCAST = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.RMSNorm)


def _round_own_tensors(name: str, layer: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Let a layer of no known kind read its own float32 parameters as they are published."""
    prefix = f"{name}." if name else ""
    rounded = {
        own: dtypes[f"{prefix}{own}"]
        for own, parameter in layer.named_parameters(recurse=False)
        if parameter.dtype == torch.float32
        and dtypes.get(f"{prefix}{own}", torch.float32) != torch.float32
    }
    if rounded and not isinstance(layer, _ROUNDED_BY_AUTOCAST):
        layer.forward = partial(_rounded, layer, layer.forward, rounded)


def _rounded(
    layer: Any, forward: Any, dtypes: Mapping[str, torch.dtype], *inputs: Any, **named: Any
) -> Any:
    # Python looks into this dict before a module looks among its parameters, which stay there:
    # where DeepSpeed shards weights, it goes through them while the layer computes.
    attributes = vars(layer)
    attributes.update({n: layer._parameters[n].to(dtype) for n, dtype in dtypes.items()})
    try:
        return forward(*inputs, **named)
    finally:
        for name in dtypes:
            del attributes[name]
