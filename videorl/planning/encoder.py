"""Memory and work of the text encoders, whatever kind they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from videorl.planning.counting import Counted, count, held, make_fake, without_numbers
from videorl.planning.memory import PolicyCounts
from videorl.planning.sizes import Memory
from videorl.policies import load_family
from videorl.policies.checkpoints import models
from videorl.policies.stock_pipeline import IMAGE_ENCODER_DTYPE

_LAYERS = ("num_layers", "num_hidden_layers")
"""What configurations call the number of layers."""
_INNER = "text_config"
"""Where they are of a model that also sees pictures; it is one that returns every layer."""
_PER_LAYER = ("layer_types",)
"""Lists in configurations with an entry per layer."""


@dataclass(frozen=True, slots=True)
class Encoders:
    """What the encoder's process holds and does."""

    memory: Memory
    prompt: Counted
    """Of one prompt, which the encoders read one after the other."""
    numbers: Mapping[str, float]
    """Parameters of each encoder, by its name in `model_index.json`."""


def count_encoder(counts: PolicyCounts) -> Encoders:
    """Count all that is loaded with the text encoder: a second one, and what encodes pictures."""
    weights, most, flops, numbers = 0.0, 0.0, 0.0, dict[str, float]()
    for name in models(counts.configs.index, {"text_encoder"}):
        settings = dict(counts.configs.parts[name])
        parameters = list(_build(counts, name, settings).parameters())
        numbers[name] = float(sum(each.numel() for each in parameters))
        weights += held(parameters)
        needs = _work(counts, name, settings)
        most, flops = max(most, needs.num_bytes), flops + needs.flops
    if load_family(counts.recipe.policy.family).takes_images:
        weights += counts.vae_bytes
        most = max(most, counts.picture.num_bytes)
        flops += counts.picture.flops
    return Encoders(Memory(weights, activations=most), Counted(most, flops), numbers)


def _work(counts: PolicyCounts, name: str, settings: Mapping[str, Any]) -> Counted:
    """Return the work of one prompt, counted on one layer and on two.

    Without gradient a layer's activations are gone before the next one's.
    """
    inner = settings.get(_INNER, settings)
    key = next((key for key in _LAYERS if key in inner), None)
    if key is None:  # several models in one
        return _encode(counts, name, settings)
    one, two = (_encode(counts, name, _cut(settings, key, number)) for number in (1, 2))
    # Of all that it hands on, a layer more is a tensor more.
    grows = one.towards(two, inner[key] - 1)
    return grows if _INNER in settings else Counted(one.num_bytes, grows.flops)


def _cut(settings: Mapping[str, Any], key: str, layers: int) -> Mapping[str, Any]:
    if inner := settings.get(_INNER):
        return {**settings, _INNER: _cut(inner, key, layers)}
    lists = {name: settings[name][:layers] for name in _PER_LAYER if settings.get(name)}
    return {**settings, **lists, key: layers}


def _build(counts: PolicyCounts, name: str, settings: Mapping[str, Any]) -> Any:
    kind = load_family(counts.recipe.policy.family).model_classes[name]
    is_of_diffusers = not hasattr(kind, "config_class")  # and not of transformers
    with torch.device("meta"):
        made: Any = kind.from_config if is_of_diffusers else _of_transformers(kind)
        model: Any = made(dict(settings))
        # Diffusers' own `to` warns of layers to keep in float32, of which there are none.
        torch.nn.Module.to(model, _dtype(counts, name))
    if not is_of_diffusers:
        model.tie_weights()  # which the cast undoes on the meta device
    return model


def _of_transformers(kind: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda settings: kind(kind.config_class.from_dict(settings))


def _dtype(counts: PolicyCounts, name: str) -> torch.dtype:
    return IMAGE_ENCODER_DTYPE if name == "image_encoder" else counts.dtype


def _encode(counts: PolicyCounts, name: str, settings: Mapping[str, Any]) -> Counted:
    sampling = counts.recipe.sampling
    model = _build(counts, name, settings)
    with without_numbers(), torch.no_grad():
        make_fake([model])
        if getattr(model, "main_input_name", None) == "pixel_values":
            side = model.config.image_size
            pixels = torch.zeros(1, 3, side, side, dtype=_dtype(counts, name))
            return count(lambda: model(pixel_values=pixels))
        family = load_family(counts.recipe.policy.family)
        given = family.encoder_arguments(name, settings, sampling, _dtype(counts, name))
        return count(lambda: model(**given))
