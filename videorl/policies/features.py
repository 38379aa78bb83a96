"""The tokens after the last blocks of a policy's transformers, for rewards on noisy latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from videorl.errors import ConfigError
from videorl.policies.experts import models_of
from videorl.policies.family import Family


def blocks_of(family: Family, module: nn.Module) -> nn.ModuleList:
    """Return the blocks of what predicts; of two transformers, those of the first come first."""
    first, *others = (family.blocks(model) for model in models_of(module).values())
    return torch.nn.ModuleList([*first, *others[0]]) if others else first


def keep_blocks(family: Family, module: nn.Module, count: int) -> None:
    """Remove all blocks after the first `count` of each transformer.

    Raises:
        ConfigError: A transformer has fewer.
    """
    fewest = min(len(family.blocks(model)) for model in models_of(module).values())
    if not 1 <= count <= fewest:
        raise ConfigError(
            f"num_layers must be 1 ... {fewest}, the blocks of a transformer, got {count}"
        )
    for model in models_of(module).values():
        family.keep_blocks(model, count)


@contextmanager
def tokens_instead(family: Family, module: nn.Module) -> Iterator[None]:
    """Inside the block, let what predicts return the tokens [B, N, D] after its last blocks.

    Of two transformers each returns those of its own items, which are put together as predictions
    are.
    """
    with ExitStack() as hooks:
        for model in models_of(module).values():
            for handle in _hooks(model, family.blocks(model)[-1]):
                hooks.callback(handle.remove)
        yield


def _hooks(model: Any, last: nn.Module) -> list[Any]:
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    return [
        last.register_forward_hook(keep),
        model.register_forward_hook(lambda *_: (seen.pop(),)),
    ]
