"""Values of tensors without numbers, where a model's code asks for them.

Some transformers look at their masks: which tokens are real decides how many there are. A tensor
that is made of constants alone (zeros, ones, ranges) has its values followed on the CPU, so that
such code runs on tensors without numbers too. Weights, and what is computed from them, have none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

aten: Any = torch.ops.aten
_DEVICE: Any = torch.ops.prim.device.default
_LARGEST = 8_000_000
"""Numbers of a tensor that is followed: masks, or 9 times the lack of a picture, are smaller."""
_DECIDED_BY_VALUES = {aten.nonzero.default, aten.masked_select.default, aten.index.Tensor}
_TAKE_MASKS = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""Operators whose second argument is a list of places or masks."""
_MADE_OF_NOTHING = {aten.zeros, aten.ones, aten.full, aten.arange, aten.scalar_tensor}


class KnownValues(TorchDispatchMode):
    """Follows the values of small tensors through every operator; stands above the fake mode."""

    def __init__(self) -> None:
        super().__init__()
        self._values: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and the same on the values if all of its inputs have some."""
        kwargs = kwargs or {}
        if func is _DEVICE:  # asked for several times by every operator
            return func(*args, **kwargs)
        is_constant = func.overloadpacket in _MADE_OF_NOTHING
        if not is_constant and not self._have_values((*args, *kwargs.values())):
            return self._unknown(func, args, kwargs)
        if func is aten._local_scalar_dense.default:
            return self._computed(func, args, kwargs)
        if func in _DECIDED_BY_VALUES:
            value = self._computed(func, args, kwargs)
            made = _like(value)
        else:
            made = func(*args, **kwargs)
            if not any(_is_small(leaf) for leaf in tree_leaves(made)):
                return made  # such as a mask of every pair of tokens, of gigabytes
            value = self._computed(func, args, kwargs)
        for leaf, values in zip(tree_leaves(made), tree_leaves(value), strict=True):
            if isinstance(leaf, FakeTensor) and _is_small(values):
                self._values[leaf] = values
        return made

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator on values."""
        with _disable_current_modes():
            known = tree_map(self._value, args)
            return func(*known, **{**tree_map(self._value, kwargs), **_on_cpu(kwargs)})

    def _unknown(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.overloadpacket in _TAKE_MASKS:
            args = (args[0], self._places(args[1]), *args[2:])
        if func._schema.is_mutable and isinstance(args[0], Tensor) and args[0] in self._values:
            self._forget(args[0])
        return func(*args, **kwargs)

    def _places(self, indices: Any) -> list[Any]:
        """Return places in the stead of known masks, whose number the fake mode cannot know."""
        found: list[Any] = []
        for each in indices:
            if isinstance(each, Tensor) and each.dtype == torch.bool and each in self._values:
                with _disable_current_modes():
                    places = self._values[each].nonzero().unbind(1)
                found += _like(places)
            else:
                found.append(each)
        return found

    def _forget(self, changed: Tensor) -> None:
        """Drop the values of a tensor that is written to, and of all that share its memory."""
        memory = self._values[changed].untyped_storage().data_ptr()
        for each, value in list(self._values.items()):
            if value.untyped_storage().data_ptr() == memory:
                del self._values[each]

    def _have_values(self, given: Any) -> bool:
        """Tell whether there are tensors among some arguments, all of which have values."""
        found = False
        for each in given:  # flat, but for lists of tensors; this runs for every operator
            for leaf in each if isinstance(each, (list, tuple)) else (each,):
                if isinstance(leaf, Tensor):
                    if isinstance(leaf, FakeTensor) and leaf not in self._values:
                        return False
                    if leaf.device.type != "cpu":
                        return False
                    found = True
        return found

    def _value(self, leaf: Any) -> Any:
        """Return the values of a tensor; of one that has numbers, itself."""
        return self._values[leaf] if isinstance(leaf, FakeTensor) else leaf


def _is_small(leaf: Any) -> bool:
    return not isinstance(leaf, Tensor) or leaf.numel() <= _LARGEST


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"device": torch.device("cpu")} if "device" in kwargs else {}


def _like(value: Any) -> Any:
    return tree_map(lambda each: torch.empty(each.shape, dtype=each.dtype), value)
