"""Compile the repeated blocks of a transformer (`torch.compile`), once for all versions."""

from __future__ import annotations

import importlib
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from videorl.errors import ConfigError
from videorl.policies.family import Family

logger = logging.getLogger(__name__)

NOT_COMPILED = "none"
_failures: list[weakref.ref[nn.Module]] = []
"""Models of this process that run uncompiled since their compilation failed."""


GENERATORS_UNCOMPILED = "generator/uncompiled"
"""Metric of a step: requests so far of generators whose compilation failed."""


def num_failures(models: Iterable[nn.Module] | None = None) -> int:
    """Return how many models run uncompiled since their compilation failed.

    Args:
        models: Which to ask about; None = all that this process ever had.
    """
    if models is None:
        return len(_failures)
    failed = {id(model) for failure in _failures if (model := failure()) is not None}
    return sum(id(model) in failed for model in models)


def check_compiler(name: str) -> None:
    """Check that there is such a compiler.

    Raises:
        ConfigError: It is none of those that `torch.compile` knows.
    """
    if name == NOT_COMPILED:
        return
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise ConfigError(
            f"policy.compile must be none or a back end of torch.compile "
            f"({', '.join(sorted(known))}), got {name!r}"
        )


def compile_blocks(family: Family, transformer: Any, name: str) -> None:
    """Compile each block of a transformer when it is first called.

    Weights that are loaded in place are used without compiling again; inputs of another shape,
    another role or the step from sampling to training compile once more. A failure is logged,
    counted, and all blocks run as they were from then on; that a block does not compile in one
    piece, or would be compiled again and again, is a failure too. The backward pass of a training
    step is compiled together with its forward pass, so that its failure is found in time.

    Args:
        family: Of the model.
        transformer: A diffusers model; its weights stay where they are.
        name: Back end of `torch.compile`, such as `inductor`; `none` = leave it as it is.
    """
    if name == NOT_COMPILED:
        return
    blocks = list(family.blocks(transformer))
    if not getattr(transformer, "_repeated_blocks", None):  # CogVideoX
        transformer._repeated_blocks = sorted({type(block).__name__ for block in blocks})
    transformer.compile_repeated_blocks(backend=name, fullgraph=True)

    def give_up(error: Exception) -> None:
        for block in blocks:
            block._compiled_call_impl = None
        # "backend=... raised:", and then what it raised.
        text = " ".join(f"{type(error).__name__}: {error}".splitlines()[:2])
        _failures.append(weakref.ref(transformer))
        logger.error(
            "policy.compile=%s failed, so this %s runs uncompiled, which is slower but right (%s)",
            name,
            type(transformer).__name__,
            text,
        )

    for block in blocks:
        compiled: Any = block._compiled_call_impl
        block._compiled_call_impl = _guarded(block, compiled, give_up)


def _guarded(
    block: Any, compiled: Callable[..., Any], give_up: Callable[[Exception], None]
) -> Callable[..., Any]:
    errors: Any = importlib.import_module("torch._dynamo.exc")
    autograd: Any = importlib.import_module("torch._functorch.config")
    # The second is raised where a block would be compiled more often than torch allows.
    failures = (errors.TorchDynamoException, errors.FailOnRecompileLimitHit)

    def call(*positional: Any, **named: Any) -> Any:
        try:
            # Else the backward pass is compiled when it is first run, in the middle of a gradient.
            with autograd.patch(force_non_lazy_backward_lowering=True):
                return compiled(*positional, **named)
        except failures as error:
            give_up(error)
            return block._call_impl(*positional, **named)

    return call
