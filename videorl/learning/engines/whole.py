"""Parameters that ZeRO 3 has cut, whole in the host memory of rank 0 for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_AT_ONCE = 500_000_000
"""Numbers that every rank's device holds whole at one time, unless one parameter has more."""


@contextmanager
def whole_on_first(parameters: Sequence[Tensor], *, write: bool) -> Iterator[None]:
    """Put whole values on the CPU into the parameters of rank 0; the other ranks only help.

    They are gathered a few at a time, so that no device needs room for all.

    Args:
        parameters: Those that are not cut are left as they are.
        write: Afterwards give every rank what rank 0 has made of them, cut or not.
    """
    import deepspeed

    is_first = torch.distributed.get_rank() == 0
    cut = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    found: list[Tensor] = []
    for piece in _pieces(cut):
        with deepspeed.zero.GatheredParameters(piece):
            if is_first:
                found += [parameter.detach().to("cpu", copy=True) for parameter in piece]
    shares = [parameter.data for parameter in cut]
    if is_first:
        for parameter, value in zip(cut, found, strict=True):
            parameter.data = value
    try:
        yield
    finally:
        for parameter, share in zip(cut, shares, strict=True):
            parameter.data = share
    if not write:
        return
    values = iter(found)
    for piece in _pieces(cut):
        with deepspeed.zero.GatheredParameters(piece, modifier_rank=0), torch.no_grad():
            if is_first:
                for parameter in piece:
                    parameter.copy_(next(values))
    for parameter in parameters:
        if not hasattr(parameter, "ds_id"):
            _take_over(parameter)


@torch.no_grad()
def _take_over(parameter: Tensor) -> None:
    """Give a parameter that is not cut rank 0's values, by way of a device that can send them."""
    from deepspeed.accelerator import get_accelerator

    accelerator: Any = get_accelerator()
    value = parameter.detach().to(accelerator.current_device_name(), copy=True)
    torch.distributed.broadcast(value, 0)
    parameter.copy_(value)


def _pieces(parameters: Sequence[Any]) -> Iterator[list[Any]]:
    piece: list[Any] = []
    for parameter in parameters:
        if piece and sum(one.ds_numel for one in (*piece, parameter)) > _AT_ONCE:
            yield piece
            piece = []
        piece.append(parameter)
    if piece:
        yield piece
