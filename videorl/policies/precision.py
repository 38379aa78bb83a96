"""Mixed precision: float32 weights in training compute like the published half-precision ones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.policies.trained import TrainedWeights


def float32_linears(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that a half-precision `model` keeps in float32."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32
    ]


def prepare_for_autocast(
    trained: TrainedWeights, float32_layers: Iterable[str], device_type: str
) -> None:
    """Make every role under autocast round where the published half-precision model rounds.

    Plain autocast differs from that model in three ways. It computes in half precision what the
    model keeps in float32 (Wan: the time embedding). It returns layer norms in float32 where the
    model returns half precision (CogVideoX: all of them). And it does not know RMS norms, which
    would mix types and so miss the fused kernel.

    Args:
        trained: Its modules are changed in place; names and types of parameters stay.
        float32_layers: What `float32_linears` said of the model as read from disk.
        device_type: Where they run: `cuda` or `cpu`.
    """
    for module in trained.modules:
        for layer in map(module.get_submodule, float32_layers):
            layer.forward = torch.autocast(device_type, enabled=False)(layer.forward)
        for layer in module.modules():
            if isinstance(layer, nn.RMSNorm):
                layer.forward = partial(_rms_norm, layer)
            # Not subclasses: those, such as Wan's, handle types themselves.
            if type(layer) is nn.LayerNorm:
                layer.forward = torch.autocast(device_type, enabled=False)(
                    partial(_layer_norm, layer)
                )


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    weight, bias = (None if p is None else p.to(x.dtype) for p in (norm.weight, norm.bias))
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    weight = None if norm.weight is None else norm.weight.to(x.dtype)
    return F.rms_norm(x, norm.normalized_shape, weight, norm.eps)
