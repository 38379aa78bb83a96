"""How strong an adapter is by peft's configuration, and what in that is not plain LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from videorl.errors import CheckpointError

Strength = Callable[[str, int], float]
"""Name and rank of a layer -> factor of B @ A."""

_FIELDS = frozenset(
    name
    for names in (
        # read below
        ("alpha_pattern", "init_lora_weights", "lora_alpha", "r", "rank_pattern", "use_rslora"),
        # which layers: the tensors themselves say that
        ("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules"),
        # seen in the tensors, if they have an effect
        ("bias", "lora_bias", "modules_to_save"),
        # of training, of merging, or for layers that no transformer here has
        ("corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out", "lora_dropout"),
        ("lora_ga_config", "loftq_config", "megatron_config", "megatron_core"),
        ("qalora_group_size", "runtime_config", "task_type"),
        # what it was made from
        ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type"),
        ("peft_version", "revision"),
    )
    for name in names
)
"""Fields that leave plain LoRA plain; any other must be off."""
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to start that leave the base's weights alone; with others (PiSSA, OLoRA, CorDA, LoftQ, ...)
the adapter is right only on a changed base."""


def strength_of(config: Mapping[str, Any] | None) -> Strength | None:
    """Return the factor of each layer by a configuration of peft; None if there is none.

    Raises:
        CheckpointError: It is damaged, or of an adapter that is not plain LoRA.
    """
    if config is None:
        return None
    _check(config)
    default_rank, default_alpha = config["r"], config["lora_alpha"]
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}

    def strength(layer: str, rank: int) -> float:
        wanted = _of_layer(ranks, layer, default_rank)
        if wanted != rank:
            raise CheckpointError(
                f"{layer}: its matrices have rank {rank}, its configuration says {wanted}"
            )
        alpha = _of_layer(alphas, layer, default_alpha)
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    return strength


def _check(config: Mapping[str, Any]) -> None:
    kind = str(config.get("peft_type") or "LORA").removeprefix("PeftType.")
    if kind != "LORA":
        raise CheckpointError(f"peft_type={kind}: only LORA can be used")
    for name, value in config.items():
        if name not in _FIELDS and value:
            raise CheckpointError(f"{name}={value!r} in its configuration is not plain LoRA")
    if config.get("init_lora_weights", True) not in _INITS:
        raise CheckpointError(
            f"init_lora_weights={config['init_lora_weights']!r}: training began by changing the "
            "base's weights, so that the adapter is wrong on the base itself; convert it to plain "
            "LoRA (peft: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    numbers: dict[str, Any] = {name: config.get(name) for name in ("r", "lora_alpha")}
    for pattern in ("rank_pattern", "alpha_pattern"):
        given = config.get(pattern) or {}
        if not isinstance(given, Mapping):
            raise CheckpointError(f"{pattern} must be a table of numbers, got {given!r}")
        numbers |= {f"{pattern}[{layer!r}]": number for layer, number in given.items()}
    for name, number in numbers.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not (is_number and math.isfinite(number) and number > 0):
            raise CheckpointError(f"{name} in its configuration must be > 0, got {number!r}")


def _of_layer(pattern: Mapping[str, float], layer: str, default: float) -> float:
    """Return the number of the first entry of a pattern that fits, as peft looks it up."""
    from peft.utils.other import get_pattern_key

    try:
        return pattern.get(get_pattern_key(list(pattern), layer), default)
    except re.error as error:
        raise CheckpointError(f"a pattern in its configuration is broken: {error}") from error
