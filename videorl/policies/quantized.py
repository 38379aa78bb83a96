"""Weights in fewer bits than can be trained or sampled from here, told before they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

SUPPORTED = "weights in float32, bfloat16 or float16"
_TYPES = re.compile(r"F[4-8](_\w+)?|[IU](4|8)")
"""Of safetensors: F8_E4M3 and the like; in bytes, bitsandbytes and torchao keep 4 or 8 bits."""
_NAMES = re.compile(r"(^|[^a-z0-9])(fp8|f8|fp4|nf4|int8|int4|bnb|gptq|awq|svdq)", re.IGNORECASE)


def problem_of_names(place: str, names: Collection[str]) -> str | None:
    """Return what quantised files a place holds, where it has none that are not; else None.

    Args:
        place: Folder or hub id, for the message.
        names: Of its files.
    """
    weights = sorted(name for name in names if name.endswith((".safetensors", ".gguf")))
    small = [name for name in weights if name.endswith(".gguf") or _NAMES.search(name)]
    if not weights or len(small) < len(weights):
        return None
    kind = "GGUF files" if small[0].endswith(".gguf") else "quantised weights"
    return _problem(f"{place} holds its weights only as {kind} ({', '.join(small[:3])})")


def problem_of_config(place: str, config: Mapping[str, Any]) -> str | None:
    """Return how a model is quantised by its `config.json`; None if it is not."""
    settings = config.get("quantization_config")
    if not settings:
        return None
    method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
    return _problem(f"{place} is quantised: its config.json has quantization_config of {method}")


def problem_of_types(place: str, types: Iterable[str]) -> str | None:
    """Return in what quantised types a file holds tensors, as safetensors names them."""
    found = sorted({each for each in types if _TYPES.fullmatch(each)})
    return _problem(f"{place} holds tensors of {', '.join(found)}") if found else None


def _problem(found: str) -> str:
    return (
        f"{found}, which cannot be aligned: supported are {SUPPORTED}, in safetensors; give the "
        "model as it was published"
    )
