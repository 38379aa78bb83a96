"""Which layers of a transformer adapters reach, and what those are called that they could."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

_NUMBERED = re.compile(r"(?P<list>[^.]+)\.(?P<number>\d+)\.(?P<inner>.+)")
_SHOWN = 3


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of a model's linear layers, with adapters or without."""
    found = (name for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    names = (name for name in found if ".lora_" not in name)
    return [name.removesuffix(".base_layer") for name in names]


def nearest(target: str, layers: Iterable[str]) -> list[str]:
    """Return up to three names, by which layers can be asked for, that are most like `target`.

    Args:
        target: What no layer is called.
        layers: Names of all layers; a number in them stands for any block.
    """
    inner = {match["inner"] if (match := _NUMBERED.match(name)) else name for name in layers}
    words = [name.split(".") for name in sorted(inner)]
    ends = dict.fromkeys(".".join(name[at:]) for name in words for at in range(len(name)))
    # A number alone, as of `to_out.0`, is no name.
    possible = [end for end in ends if not end.isdigit()]
    return difflib.get_close_matches(target, possible, n=_SHOWN, cutoff=0.0)


def coverage(model: Any, adapted: Collection[str], num_trained: int) -> str:
    """Return in words how much of a model its adapters reach.

    Args:
        model: The transformer, with its adapters.
        adapted: Names of the layers that have one.
        num_trained: Numbers that are trained.
    """
    blocks: dict[tuple[str, str], list[int]] = {}
    for name in linear_layers(model):
        if match := _NUMBERED.match(name):
            reached = blocks.setdefault((match["list"], match["number"]), [0, 0])
            reached[0] += name in adapted
            reached[1] += 1
    kinds = Counter((place, *reached) for (place, _), reached in blocks.items())
    parts = [
        f"{reached} of {layers} linear layers in each of {number} {place}"
        for (place, reached, layers), number in kinds.items()
    ]
    whole = sum(
        parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name
    )
    share = f"{num_trained / 1e6:.3g} M parameters, {num_trained / whole:.2%} of the transformer"
    return f"LoRA adapts {', '.join([*parts, share])}"
