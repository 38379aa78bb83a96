"""The next micro-batch is brought to the device while the one before it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from videorl.embedding import Embedding

T = TypeVar("T")
Make = Callable[[torch.device], T]
"""Makes a micro-batch on a device: it stacks, draws noise, and moves what it made."""


class Loader(Protocol[T]):
    """Says when a micro-batch is made."""

    def __call__(self, make: Make[T], device: torch.device, /) -> Callable[[], T]:
        """Return a function that gives the micro-batch; it is called once at the least."""
        ...


def load_when_needed(make: Make[T], device: torch.device) -> Callable[[], T]:
    """Make it when it is asked for."""
    return lambda: make(device)


class Ahead:
    """Makes it in a thread of its own, from the moment when it is named.

    On a GPU it is copied from pinned memory on a stream of its own, beside the kernels that compute
    with the last one. The numbers are the same: noise is drawn from the seed of each item.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "next-micro-batch")
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def __call__(self, make: Make[T], device: torch.device) -> Callable[[], T]:
        """Begin to make it; the function that is returned waits for that."""
        if device.type != "cuda":
            return self._thread.submit(make, device).result
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        side = self._streams[device]

        def made() -> tuple[T, Any]:
            with torch.cuda.stream(side):
                return make(device), side.record_event()

        future = self._thread.submit(made)

        def loaded() -> T:
            value, is_there = future.result()
            stream = torch.cuda.current_stream(device)
            stream.wait_event(is_there)
            for tensor in _tensors(value):
                tensor.record_stream(stream)  # so that its memory is not used again too early
            return value

        return loaded


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device; to a GPU from pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors of a dataclass, those in lists included."""
    found: list[Tensor] = []
    for field in dataclasses.fields(value):
        one = getattr(value, field.name)
        for part in one if isinstance(one, Sequence) else [one]:
            found += part.tensors.values() if isinstance(part, Embedding) else [part]
    return found
