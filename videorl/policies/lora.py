"""Two low-rank adapters (peft) on one base model: the policy, and the reference beside it.

The reference is an adapter of its own and never "adapter off", which would be wrong as soon as
training starts from a trained adapter.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videorl.config import LoraConfig
from videorl.errors import ConfigError
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role


def train_adapters(
    model: Any,
    config: LoraConfig,
    *,
    seed: int,
    trainable: bool,
    initial: tuple[Mapping[str, Tensor], Mapping[str, Any] | None] | None = None,
) -> TrainedWeights:
    """Freeze `model` and attach the adapters to it, on the CPU.

    A new adapter starts with B = 0, so that the policy equals the base, and with A drawn from
    `seed`; the reference starts as a copy of the policy.

    Args:
        model: A diffusers model that takes adapters (`PeftAdapterMixin`).
        config: Rank, alpha and the layers to adapt.
        seed: Seed of the initial A; the state of global generators does not matter.
        trainable: Hold the policy's adapter in float32 with gradients, and add the reference.
        initial: Tensors (`transformer.<layer>.lora_A.weight` ...) and metadata of a trained
            adapter, as the `lora_state_dict` of diffusers pipelines returns them.

    Raises:
        ConfigError: A target matches no layer, or `config` contradicts the trained adapter.
    """
    model.requires_grad_(False)
    targets = _target_layers(model, config.target_modules)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also reseed the GPUs, which fork_rng leaves alone here.
        torch.default_generator.manual_seed(seed)
        if initial is None:
            _add_adapter(model, config)
        else:
            _load_adapter(model, config, targets, *initial)
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
    dtypes = {name: parameter.dtype for name, parameter in policy.items()}
    reference = _parameters(layers, "reference") if trainable else {}
    for parameter in (*policy.values(), *reference.values()):
        parameter.data = parameter.data.float() if trainable else parameter.data
    weights = TrainedWeights(policy, reference, dtypes, _switch(model, layers))
    if trainable:
        weights.update_reference()
    return weights


def save_adapter(
    pipeline_class: Any, model: Any, weights: Mapping[str, Tensor], directory: Path
) -> None:
    """Write the policy's adapter of `model` so that stock diffusers opens it.

    Args:
        pipeline_class: The diffusers pipeline that will load it.
        model: The transformer with the adapter.
        weights: The adapter's tensors by published name.
        directory: Where to write.
    """
    adapter = model.peft_config["policy"]
    pipeline_class.save_lora_weights(
        directory,
        transformer_lora_layers=dict(weights),
        transformer_lora_adapter_metadata={
            "r": adapter.r,
            "lora_alpha": adapter.lora_alpha,
            "target_modules": sorted(adapter.target_modules),
        },
    )


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
        raise ConfigError(
            f"policy.lora.target_modules: {', '.join(absent)} matches no layer of "
            f"{type(model).__name__}; give module-name suffixes such as to_q or ffn.net.2"
        )
    adapted = {name for names in matched.values() for name in names}
    return [name for name, _ in model.named_modules() if name in adapted]


def _add_adapter(model: Any, config: LoraConfig) -> None:
    import peft

    adapter = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.target_modules)
    )
    model.add_adapter(adapter, "policy")


def _load_adapter(
    model: Any,
    config: LoraConfig,
    targets: list[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None,
) -> None:
    names = {f"transformer.{name}.{part}.weight" for name in targets for part in _MATRICES}
    if wrong := sorted(names ^ tensors.keys()):
        raise ConfigError(
            f"policy.lora.initial: {len(wrong)} tensors of {config.initial} do not fit "
            f"policy.lora.target_modules, first: {', '.join(wrong[:3])}; "
            "give the target_modules that the adapter was trained with (plain LoRA only)"
        )
    model.load_lora_adapter(
        dict(tensors), metadata=dict(metadata) if metadata else None, adapter_name="policy"
    )
    found = model.peft_config["policy"]
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name}
    if ranks != {config.rank} or found.lora_alpha != config.alpha or found.alpha_pattern:
        raise ConfigError(
            f"policy.lora asks for rank {config.rank} and alpha {config.alpha}, but "
            f"{config.initial} has rank {sorted(ranks)} and alpha {found.lora_alpha}; "
            "set policy.lora.rank and policy.lora.alpha to the adapter's own"
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
