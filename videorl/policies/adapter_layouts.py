"""Read a trained adapter, whatever its trainer calls layers and matrices, as plain LoRA or not.

diffusers, peft, kohya / musubi-tuner, ComfyUI and DiffSynth write the same two matrices per layer
under other names, and say in three places how strong they are. What is not plain LoRA (DoRA, LoKr,
trained biases, whole modules, ...) is refused: left out, it would silently be another adapter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from videorl.errors import CheckpointError
from videorl.policies.adapter_config import Strength, strength_of
from videorl.policies.adapter_files import AdapterFile

Rename = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""The `lora_state_dict` of a stock pipeline: original names of tensors -> those of diffusers."""


@dataclass(frozen=True, slots=True)
class LayerAdapter:
    """What an adapter adds to one linear layer: `scale * B @ A`."""

    a: Tensor
    """Float32 [rank, inputs, ...]."""
    b: Tensor
    """Float32 [outputs, rank, ...]."""
    scale: float

    @property
    def rank(self) -> int:
        """Return the rank."""
        return self.a.shape[0]


def read_layers(
    file: AdapterFile, layers: Collection[str], rename: Rename
) -> dict[str, LayerAdapter]:
    """Return the adapter of each layer, by the layer's name in diffusers.

    Args:
        file: The opened file.
        layers: Names of the transformer's layers.
        rename: Gives the names of diffusers to tensors under their original names.

    Raises:
        CheckpointError: The adapter is incomplete, damaged, not plain LoRA, or has layers that the
            transformer lacks.
    """
    parts, is_peft = _by_layer(file.tensors)
    if is_peft and file.config is None:
        raise CheckpointError(
            "peft wrote it, but there is no adapter_config.json beside it, which has its alpha"
        )
    strength = strength_of(file.config)
    found = {layer: _layer(layer, given, strength) for layer, given in parts.items()}
    names = _diffusers_names(list(found), layers, rename)
    if len(set(names.values())) < len(names):
        raise CheckpointError("two of its layers are the same layer of the transformer")
    return {names[layer]: adapter for layer, adapter in found.items()}


_PREFIX = re.compile(r"^(transformer|diffusion_model|pipe\.dit)\.|^lora_unet_")
_MATRIX = re.compile(r"(.+)\.lora(?:_(A|B|down|up)|\.(down|up))(?:\.([^.]+))?\.weight")
_ROLES = {"A": "a", "B": "b", "down": "a", "up": "b"}
_ADDED = re.compile(r".+(\.lora_B(\.[^.]+)?\.bias|\.diff|\.diff_b)")
"""Tensors that are added to what the base has, so that zeros change nothing."""
_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "lora_mid": "LoCon",
    "modules_to_save": "modules that were trained whole",
    "lora_te": "an adapter of the text encoder too",
    "text_encoder": "an adapter of the text encoder too",
    "lora_embedding": "adapted embeddings",
    "base_layer": "the base model's own weights",
    ".diff": "differences of whole weights",
    "bias": "trained biases or whole layers",
}
"""Parts of names that plain LoRA does not have -> what they mean."""


def _by_layer(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], bool]:
    """Sort tensors `a`, `b` and `alpha` by layer; tell too whether the names are peft's."""
    parts: dict[str, dict[str, Tensor]] = {}
    adapters: set[str | None] = set()
    for name, tensor in tensors.items():
        if match := _MATRIX.fullmatch(name):
            layer, role = match[1], _ROLES[match[2] or match[3]]
            adapters.add(match[4])
        elif name.endswith(".alpha"):
            layer, role = name.removesuffix(".alpha"), "alpha"
        elif _ADDED.fullmatch(name) and not bool(tensor.float().any()):
            continue
        else:
            raise CheckpointError(_foreign(name))
        own = parts.setdefault(_PREFIX.sub("", layer.removeprefix("base_model.model.")), {})
        if role in own:
            raise CheckpointError(f"{name}: the file has a second adapter of this layer")
        own[role] = tensor
    if len(adapters) > 1:
        names = ", ".join(sorted(map(str, adapters)))
        raise CheckpointError(f"it mixes several adapters ({names}): save the wanted one alone")
    if not parts:
        raise CheckpointError("the file has no tensors")
    return parts, any(name.startswith("base_model.model.") for name in tensors)


def _foreign(name: str) -> str:
    kinds = [kind for part, kind in _KINDS.items() if part in name]
    kind = kinds[0] if kinds else "what is no matrix of a LoRA, such as whole weights"
    return f"it holds {kind} (tensor {name}); only plain LoRA of a transformer can be used"


def _layer(layer: str, parts: Mapping[str, Tensor], strength: Strength | None) -> LayerAdapter:
    if absent := {"a", "b"} - parts.keys():
        names = " and ".join({"a": "A (down)", "b": "B (up)"}[role] for role in sorted(absent))
        raise CheckpointError(f"{layer} lacks its matrix {names}: the file is incomplete")
    for role, tensor in parts.items():
        if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
            raise CheckpointError(
                f"{layer}: its {role.upper()} ({tensor.dtype}) holds NaN, infinity or no "
                "floating-point numbers"
            )
    a, b = parts["a"].float(), parts["b"].float()
    if a.ndim < 2 or b.ndim != a.ndim or b.shape[1] != a.shape[0] or 0 in (*a.shape, *b.shape):
        raise CheckpointError(
            f"{layer}: A {list(a.shape)} and B {list(b.shape)} are no matrices of one rank"
        )
    scale = 1.0 if strength is None else strength(layer, a.shape[0])
    if "alpha" in parts:
        own = _scale_of(layer, parts["alpha"], a.shape[0])
        if strength is not None and not math.isclose(own, scale, rel_tol=1e-3):
            raise CheckpointError(
                f"{layer}: its alpha tensor says scale {own:g}, its configuration {scale:g}"
            )
        scale = own
    return LayerAdapter(a, b, scale)


def _scale_of(layer: str, alpha: Tensor, rank: int) -> float:
    if alpha.numel() != 1 or float(alpha) <= 0:
        raise CheckpointError(
            f"{layer}: alpha must be one number > 0 (trainers disagree on what 0 means), got "
            f"{alpha.flatten().tolist()[:3]}"
        )
    return float(alpha) / rank


def _diffusers_names(
    found: Collection[str], layers: Collection[str], rename: Rename
) -> dict[str, str]:
    """Return the diffusers name of each layer of an adapter.

    Raises:
        CheckpointError: The transformer has no such layer.
    """
    flat = {name.replace(".", "_"): name for name in layers}
    names = {name: name if name in layers else flat.get(name, "") for name in found}
    if original := [name for name, known in names.items() if not known]:
        names |= _renamed(original, rename)
    if absent := [name for name, known in names.items() if known not in layers]:
        raise CheckpointError(
            f"{len(absent)} of its {len(names)} layers are not in this transformer, first: "
            f"{', '.join(absent[:3])}; it was trained on another kind of model"
        )
    return names


def _renamed(original: Collection[str], rename: Rename) -> dict[str, str]:
    """Let diffusers rename layers that have their original names, alone and without alpha.

    With alpha its converters fail where an adapter has only some of the layers. They need a layer
    of a block, and only move values: a name stands for its tensor here.
    """
    block = "blocks.0.self_attn.q"
    dotted = {_dotted(name): name for name in original}
    values = {
        f"diffusion_model.{name}.lora_{matrix}.weight": dotted.get(name)
        for name in [*dotted, block]
        for matrix in "AB"
    }
    try:
        made = rename(values)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"diffusers knows no layer of this kind of model by some of its names, such as "
            f"{next(iter(original))} ({type(error).__name__}: {error})"
        ) from error
    return {
        value: name.removeprefix("transformer.").removesuffix(".lora_A.weight")
        for name, value in made.items()
        if value is not None and name.endswith(".lora_A.weight")
    }


def _dotted(name: str) -> str:
    """Put back the dots that kohya writes as `_`: `blocks_0_self_attn_q`, `head_head`."""
    if "." in name:
        return name
    name = re.sub(r"(?<=\d)_|_(?=\d)", ".", name)
    return re.sub(r"attn_(?=\w)", "attn.", name).replace("head_head", "head.head")
