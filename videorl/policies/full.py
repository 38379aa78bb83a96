"""Full fine-tuning: every weight is trained; reference and base are frozen copies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from videorl.errors import ConfigError
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role


def train_everything(
    model: nn.Module, *, trainable: bool, keep_base: bool = False
) -> TrainedWeights:
    """Make every parameter of `model` the trained one.

    Args:
        model: The model, in the types in which its weights are to be published.
        trainable: Hold the weights in float32 with gradients, beside a frozen reference. Large
            layers of the reference keep the publication type to save memory. The others are in
            float32 too, so that under autocast both roles round alike: right after an update the
            reference predicts exactly what the policy does.
        keep_base: Keep another frozen copy, which never changes, for the role `base`.
    """
    model.requires_grad_(trainable)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    reference: nn.Module | None = None
    if trainable:
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
        reference = copy.deepcopy(model).requires_grad_(False)
        for name, layer in reference.named_modules():
            if isinstance(layer, (nn.Linear, nn.Conv3d)):
                layer.to(dtypes[f"{name}.weight"])
    base = copy.deepcopy(reference or model) if keep_base else None
    held = {"policy": model, "reference": reference, "base": base}

    @contextmanager
    def using(role: Role) -> Iterator[nn.Module]:
        if (module := held[role]) is None:
            raise ConfigError(_MISSING[role])
        yield module

    return TrainedWeights(
        policy=dict(model.named_parameters()),
        reference=dict(reference.named_parameters()) if reference else {},
        dtypes=dtypes,
        using=using,
        modules=tuple(module for module in held.values() if module is not None),
    )


_MISSING = {
    "reference": "this policy has no reference: load it with trainable=True",
    "base": "this policy keeps no copy of its base, which full fine-tuning changes: "
    "load it with keep_base=True",
}
