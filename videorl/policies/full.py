"""Full fine-tuning: every weight of a model is trained, the reference is a frozen copy of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from videorl.errors import ConfigError
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role

IN_SHARDS = "shards"
"""In the place of `policy.frozen_device`: policy and copies stay on the CPU, from where an engine
brings to each rank's device its share."""


def train_everything(
    model: nn.Module,
    *,
    trainable: bool,
    keep_base: bool = False,
    computed_in: torch.dtype | None = None,
) -> TrainedWeights:
    """Make every parameter of `model` the trained one.

    Args:
        model: The model, in the types in which its weights are to be published.
        trainable: Hold the weights in float32 with gradients, beside a frozen reference. Its large
            layers keep the publication type; all others follow the policy, so that under autocast
            both roles round alike and a reference just updated predicts exactly what the policy
            does.
        keep_base: Hold one more frozen copy, which no update changes: the role `base`.
        computed_in: What training computes in, if it is not float32: frozen large layers that are
            published in float16 are held in it, as the policy's are rounded to it directly.
    """
    model.requires_grad_(trainable)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    reference: nn.Module | None = None
    base: nn.Module | None = None
    if trainable:
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
        reference = copy.deepcopy(model).requires_grad_(False)
        for name, layer in reference.named_modules():
            if isinstance(layer, (nn.Linear, nn.Conv3d)):
                dtype = dtypes[f"{name}.weight"]
                layer.to(computed_in or dtype if dtype == torch.float16 else dtype)
        base = copy.deepcopy(reference) if keep_base else None
    frozen = {"reference": reference, "base": base}

    @contextmanager
    def using(role: Role) -> Iterator[nn.Module]:
        if role == "policy":
            yield model
            return
        if (module := frozen[role]) is None:
            option = "trainable=True" if role == "reference" else "keep_base=True"
            raise ConfigError(f"this policy has no {role}: load it with {option}")
        yield module

    return TrainedWeights(
        policy=dict(model.named_parameters()),
        reference=dict(reference.named_parameters()) if reference else {},
        dtypes=dtypes,
        using=using,
        has_own_base=base is not None,
        copies=[module for module in frozen.values() if module is not None],
    )
