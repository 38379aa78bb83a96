"""Bytes and floating-point operations of real code that runs on tensors without numbers.

Models are built on torch's meta device. To run them, each parameter is replaced by a fake tensor
that says it lies on the CPU: so autocast and the fused attention kernels are chosen as on a real
device, which plain meta tensors do not do. Nothing is computed and nothing is allocated.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from videorl.planning.known_values import KnownValues

aten: Any = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Counted:
    """What some work needs."""

    num_bytes: float
    """The most that it holds at one time, above what was held before."""
    flops: float
    """Floating-point operations of its matrix products, convolutions and attention."""
    host_bytes: float = 0.0
    """The most that waits in host memory, which stands on the meta device."""

    def towards(self, other: Counted, steps: float) -> Counted:
        """Return what is as far beyond this as `steps` times the way to `other`."""
        return Counted(
            self.num_bytes + steps * (other.num_bytes - self.num_bytes),
            self.flops + steps * (other.flops - self.flops),
            self.host_bytes + steps * (other.host_bytes - self.host_bytes),
        )


class _Counter(TorchDispatchMode):
    """Adds up the storages that are alive, each from its first appearance to its release, and work.

    `FlopCounterMode` would hold on to what gradient checkpointing computes again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self.host_now = self.host_peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and note what it made."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):  # was there before: a view of it is nothing new
                self._note(leaf, is_new=False)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf, is_new=True)
        if (formula := _FORMULAS.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result

    def _note(self, tensor: Tensor, *, is_new: bool) -> None:
        storage: Any = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if is_new else 0
        if key in self._seen:
            return
        self._seen.add(key)
        is_host = tensor.device.type == "meta"
        self._change(size, is_host)
        weakref.finalize(storage, self._release, key, size, is_host)

    def _release(self, key: int, size: int, is_host: bool) -> None:
        self._seen.discard(key)
        self._change(-size, is_host)

    def _change(self, size: int, is_host: bool) -> None:
        if is_host:
            self.host_now += size
            self.host_peak = max(self.host_peak, self.host_now)
        else:
            self.now += size
            self.peak = max(self.peak, self.now)


@contextmanager
def without_numbers() -> Iterator[None]:
    """Inside the block, new tensors have shapes and types but no numbers.

    Small tensors made of constants alone, such as masks, keep theirs: see `KnownValues`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), KnownValues():
        yield


def make_fake(modules: Iterable[nn.Module]) -> None:
    """Give modules of the meta device parameters and buffers that can run in the block above."""
    for module in {id(part): part for root in modules for part in root.modules()}.values():
        for name, old in module._parameters.items():
            if old is not None:
                fake = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = nn.Parameter(fake, requires_grad=old.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def count(work: Callable[[], object]) -> Counted:
    """Run some work in a block of `without_numbers`; return what it needs."""
    return count_halves(lambda: work)[1]


def count_halves(work: Callable[[], Callable[[], object]]) -> tuple[float, Counted]:
    """Run some work that returns its second half; return the bytes held between, and all needs."""
    with _Counter() as counter:
        rest = work()
        between = counter.now
        rest()
    return between, Counted(counter.peak, counter.flops, counter.host_peak)


def held(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, each counted once."""
    unique = {id(tensor): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in unique.values())


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # The fused kernels of the CPU, which torch's table lacks.
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
