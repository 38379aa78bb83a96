"""Ring attention of diffusers: tried before it is used, with a gradient of our own."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, distributed

from videorl.config import PolicyConfig
from videorl.errors import ConfigError

_OTHER_ARGUMENTS = 9
"""Of diffusers' `TemplatedRingAttention.forward`, beside queries, keys and values."""


def prepare_ring(config: PolicyConfig, parallel: Any, device: torch.device) -> None:
    """Attend to a few tokens in the ring, and go back: not every kernel can, or not on all devices.

    All ranks of a group call it, after `enable_parallelism`.

    Args:
        config: Of the policy.
        parallel: diffusers' `ContextParallelConfig`, set up.
        device: Of the transformer.

    Raises:
        ConfigError: The back end cannot compute it here.
    """
    from diffusers import ParallelConfig

    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    _mend_gradient(dispatch)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokens = torch.zeros(1, 16, 2, 64, device=device, dtype=dtype, requires_grad=True)
    shared = ParallelConfig(context_parallel_config=parallel)
    try:
        with torch.enable_grad():
            out = dispatch.dispatch_attention_fn(
                tokens, tokens, tokens, backend=config.attention_backend, parallel_config=shared
            )
            out.sum().backward()
    except Exception as error:  # whatever a kernel that does not fit may raise
        text = str(error).partition("\n")[0]
        raise ConfigError(
            f"policy.context_parallel=ring cannot be computed with policy.attention_backend="
            f"{config.attention_backend} on {device.type} here ({type(error).__name__}: {text:.200}"
            "); take another back end, or policy.context_parallel=ulysses"
        ) from error


class _Context:
    """What a forward pass left for the backward pass; saved tensors are read from it once."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.saved_tensors = context.saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _mend_gradient(dispatch: Any) -> None:
    """Give diffusers' ring attention a backward pass of our own.

    That of diffusers 0.42 is wrong for three processes and more: while process r computes a part of
    the gradient of share r + 1, it adds it to what it was sent for share r - 1. And it reads its
    saved tensors once per share, which gradient checkpointing refuses.
    """
    ring = dispatch.TemplatedRingAttention
    if hasattr(ring, "is_mended"):
        return

    class Ring(ring):
        is_mended = True

        @staticmethod
        def backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
            return (*_gradients(ctx, grad_out), *[None] * _OTHER_ARGUMENTS)

    dispatch.TemplatedRingAttention = Ring


def _gradients(context: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of this process's queries, keys and values [B, S, H, D].

    Each process finds what its queries say of the keys and values of all; their sum over the
    processes goes to the process whose keys and values they are.
    """
    sharing = context._parallel_config.context_parallel_config
    group, read = sharing._ring_mesh.get_group(), _Context(context)
    query, key, value, *_ = read.saved_tensors
    own = torch.stack((key, value))
    shares = own.new_empty(sharing.ring_degree * len(own), *own.shape[1:])
    distributed.all_gather_into_tensor(shares, own, group=group)
    grad_query = torch.zeros_like(query, dtype=torch.float32)
    grad_shares = torch.empty_like(shares, dtype=torch.float32)
    for start in range(0, len(shares), 2):
        found = context.backward_op(
            read,
            grad_out,
            query=query,
            key=shares[start],
            value=shares[start + 1],
            out=context.ring_out,
            lse=context.ring_lse,
        )
        grad_query += found[0]
        grad_shares[start], grad_shares[start + 1] = found[1], found[2]
    grad_own = torch.empty_like(own, dtype=torch.float32)
    distributed.reduce_scatter_tensor(grad_own, grad_shares, group=group)
    return tuple(each.to(grad_out.dtype) for each in (grad_query, *grad_own))
