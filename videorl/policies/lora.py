"""Two low-rank adapters (peft) on one base model: the policy, and the reference beside it.

The reference is an adapter of its own and never "adapter off", which would be wrong as soon as
training starts from a trained adapter.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from videorl.errors import CheckpointError, ConfigError
from videorl.policies.adapter_layouts import LayerAdapter
from videorl.policies.coverage import linear_layers, nearest
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role
from videorl.settings.model import LoraConfig


def train_adapters(
    model: Any,
    config: LoraConfig,
    *,
    seed: int,
    trainable: bool,
    initial: Mapping[str, LayerAdapter] | None = None,
) -> TrainedWeights:
    """Freeze `model` and attach the adapters to it, on the CPU.

    A new adapter starts with B = 0, so that the policy equals the base, and with A drawn from
    `seed`; the reference starts as a copy of the policy. What a trained adapter lacks of it, rows
    of a lower rank or whole layers, starts in the same way.

    Args:
        model: A diffusers model that takes adapters (`PeftAdapterMixin`).
        config: Rank, alpha and the layers to adapt.
        seed: Seed of the initial A; the state of global generators does not matter.
        trainable: Hold the policy's adapter in float32 with gradients, and add the reference.
        initial: A trained adapter by layer. Its effect is kept exactly: where its scale is not
            alpha / rank, its B is multiplied by what is missing.

    Raises:
        ConfigError: A target matches no layer, or none that can be adapted, or `config` contradicts
            the trained adapter.
        CheckpointError: The trained adapter is of a model of another size.
    """
    model.requires_grad_(False)
    targets = _target_layers(model, config.target_modules)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also reseed the GPUs, which fork_rng leaves alone here.
        torch.default_generator.manual_seed(seed)
        _add_adapter(model, config)
        if trainable:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                model.add_adapter(copy.deepcopy(model.peft_config["policy"]), "reference")
    layers = {name: model.get_submodule(name) for name in targets}
    for layer in layers.values():
        # Autocast casts the input anyway; casting to float32 first would only cost bandwidth.
        layer.cast_input_dtype_enabled = False
        layer.set_adapter("policy", inference_mode=not trainable)
    policy = _parameters(layers, "policy")
    if initial is not None:
        _fill(policy, config, initial)
    dtypes = {name: parameter.dtype for name, parameter in policy.items()}
    reference = _parameters(layers, "reference") if trainable else {}
    for parameter in (*policy.values(), *reference.values()):
        parameter.data = parameter.data.float() if trainable else parameter.data
    weights = TrainedWeights(policy, reference, dtypes, _switch(model, layers))
    if trainable:
        weights.update_reference()
    return weights


def filled(
    fresh: Mapping[str, torch.Tensor], config: LoraConfig, initial: Mapping[str, LayerAdapter]
) -> dict[str, torch.Tensor]:
    """Return the tensors of a new adapter with a trained one in them, see `train_adapters`."""
    found = {name: tensor.clone() for name, tensor in fresh.items()}
    _fill(found, config, initial)
    return found


def _target_layers(model: nn.Module, targets: list[str]) -> list[str]:
    matched: dict[str, list[str]] = {
        target: [
            name
            for name, _ in model.named_modules()
            if name == target or name.endswith(f".{target}")
        ]
        for target in targets
    }
    if absent := [target for target, names in matched.items() if not names]:
        like = {target: ", ".join(nearest(target, linear_layers(model))) for target in absent}
        said = "; ".join(f"{target} matches no layer, near are {like[target]}" for target in absent)
        raise ConfigError(
            f"policy.lora.target_modules: {said}; give ends of names of linear layers of "
            f"{type(model).__name__}"
        )
    adapted = {name for names in matched.values() for name in names}
    return [name for name, _ in model.named_modules() if name in adapted]


def _add_adapter(model: Any, config: LoraConfig) -> None:
    import peft

    adapter = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.target_modules)
    )
    try:
        model.add_adapter(adapter, "policy")
    except ValueError as error:
        raise ConfigError(f"policy.lora.target_modules: {error}") from error


def _fill(
    policy: Mapping[str, torch.Tensor], config: LoraConfig, initial: Mapping[str, LayerAdapter]
) -> None:
    """Put a trained adapter into a new one, with the same effect."""
    _check_fit(policy, config, initial)
    own_scale = config.alpha / config.rank
    with torch.no_grad():
        for layer, adapter in initial.items():
            a, b = (policy[f"{layer}.{part}.weight"] for part in _MATRICES)
            a[: adapter.rank] = adapter.a.to(a)
            b[:, : adapter.rank] = (adapter.b * (adapter.scale / own_scale)).to(b)


def _check_fit(
    policy: Mapping[str, torch.Tensor], config: LoraConfig, initial: Mapping[str, LayerAdapter]
) -> None:
    layers = {name.removesuffix(".lora_A.weight") for name in policy if ".lora_A." in name}
    if foreign := sorted(initial.keys() - layers):
        raise ConfigError(
            f"policy.lora.initial: {len(foreign)} layers of {config.initial} are not among "
            f"policy.lora.target_modules, first: {', '.join(foreign[:3])}; "
            "give the target_modules that the adapter was trained with"
        )
    ranks = {adapter.rank for adapter in initial.values()}
    if max(ranks) != config.rank:
        alphas = {f"{adapter.scale * adapter.rank:g}" for adapter in initial.values()}
        raise ConfigError(
            f"policy.lora asks for rank {config.rank} and alpha {config.alpha}, but "
            f"{config.initial} has rank {sorted(ranks)} and alpha {', '.join(sorted(alphas))}; "
            "set policy.lora.rank to the adapter's largest, and alpha as you like: the adapter's "
            "effect stays as it is"
        )
    for layer, adapter in initial.items():
        for part, given in zip(_MATRICES, (adapter.a, adapter.b), strict=True):
            wanted = list(policy[f"{layer}.{part}.weight"].shape)
            place = _MATRICES.index(part)  # the axis of the rank, which may be lower
            if [*given.shape[:place], config.rank, *given.shape[place + 1 :]] != wanted:
                raise CheckpointError(
                    f"policy.lora.initial: {part} of {layer} in {config.initial} is "
                    f"{list(given.shape)}, this model needs {wanted}: it is of another model"
                )


def _parameters(layers: Mapping[str, Any], role: Role) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{part}.weight": getattr(layer, part)[role].weight
        for name, layer in layers.items()
        for part in _MATRICES
    }


def _switch(
    model: Any, layers: Mapping[str, Any]
) -> Callable[[Role], AbstractContextManager[nn.Module]]:
    @contextmanager
    def using(role: Role) -> Iterator[nn.Module]:
        if role == "policy":
            yield model
            return
        if role == "base":
            try:
                for layer in layers.values():
                    layer.enable_adapters(False)
                yield model
            finally:
                # Makes the active adapter, the policy's, trainable again.
                for layer in layers.values():
                    layer.enable_adapters(True)
            return
        if "reference" not in model.peft_config:
            raise ConfigError("this policy has no reference: load it with trainable=True")
        # peft switches `requires_grad` along with the adapter. Both steps are needed: the first
        # must not make the reference trainable, the second must make the policy so again.
        try:
            for layer in layers.values():
                layer.set_adapter("reference", inference_mode=True)
            yield model
        finally:
            for layer in layers.values():
                layer.set_adapter("policy")

    return using


_MATRICES = ("lora_A", "lora_B")
