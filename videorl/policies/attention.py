"""The kernel that attention computes with: one of diffusers' back ends, tried before it is used."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from videorl.errors import ConfigError

DEFAULT = "auto"
"""What diffusers takes where nothing is said: PyTorch's own attention."""


def check_backend(
    name: str, device: torch.device, dtype: torch.dtype, head_width: int, *, with_gradient: bool
) -> None:
    """Compute a little attention with a back end, before any weights are read.

    Args:
        name: Of the back end; `auto` is not tried.
        device: What it must compute on.
        dtype: Type of queries, keys and values.
        head_width: Width of each attention head of the model.
        with_gradient: Whether it must have a backward pass too.

    Raises:
        ConfigError: It is unknown, its package is missing here, or it cannot compute this.
    """
    if name == DEFAULT:
        return
    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    if name not in _names():
        raise ConfigError(
            f"policy.attention_backend must be auto or a back end of diffusers "
            f"({', '.join(_names())}), got {name!r}"
        )
    tokens = torch.randn(1, 16, 2, head_width, device=device, dtype=dtype)
    tokens.requires_grad_(with_gradient)
    try:
        with dispatch.attention_backend(name):
            out = dispatch.dispatch_attention_fn(tokens, tokens, tokens)
        if with_gradient:
            out.sum().backward()
    except Exception as error:  # whatever a kernel that does not fit may raise
        raise ConfigError(
            f"policy.attention_backend={name} cannot compute {'with gradient ' * with_gradient}"
            f"on {device.type} in {dtype} here ({error}); of what is installed there is "
            f"{', '.join(installed())}, or auto"
        ) from error


def use_backend(transformer: Any, name: str) -> None:
    """Let the attention of a model, and of no other in this process, compute with a back end.

    Raises:
        ConfigError: The model does not attend through diffusers' dispatcher.
    """
    if name == DEFAULT:
        return
    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    processors = getattr(transformer, "attn_processors", {}).values()
    known = [hasattr(processor, "_attention_backend") for processor in processors]
    if not known or not all(known):
        raise ConfigError(
            f"policy.attention_backend must be auto for a {type(transformer).__name__}, whose "
            f"attention does not go through diffusers' choice of back ends, got {name!r}"
        )
    with dispatch.attention_backend(name):  # restores that of the process, which the next line sets
        transformer.set_attention_backend(name)


def _names() -> list[str]:
    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    return [name.value for name in dispatch.AttentionBackendName]


def installed() -> list[str]:
    """Return the back ends whose packages are here; those of the hub would be downloaded."""
    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    found = list[str]()
    for name in _names():
        try:
            if "hub" not in name:
                with dispatch.attention_backend(name):
                    found.append(name)
        except (ImportError, RuntimeError, ValueError):
            continue
    return found
