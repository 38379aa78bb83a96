"""A low-rank adapter merged into the base for sampling, and taken out bit for bit."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from videorl.errors import WeightMismatchError
from videorl.weights import digest

logger = logging.getLogger(__name__)

LARGEST_LOSS = 0.1
"""Share of an adapter's effect that rounding may take; beyond it the adapter stays apart."""


class MergedAdapter:
    """Merges the adapter of a model that only samples, and removes it again.

    The layers that it adapts are kept once more in host memory, as they were: removal copies them
    back, and proves by their SHA-256 that the base is what it was (0.3 s per GB). The adapter's own
    tensors are never touched, so that their digest says what was merged.

    In half precision a merged weight is rounded once more. What an adapter changes by less than
    half a unit in the last place is lost: all of it, while it is small beside its base. An adapter
    that would lose more than `LARGEST_LOSS` of its effect (in the norm of the weights) therefore
    stays unmerged, with a warning.

    Args:
        transformer: Has one adapter, active, and takes no gradients.
    """

    def __init__(self, transformer: torch.nn.Module) -> None:
        layers = transformer.named_modules()
        self._layers: dict[str, Any] = {n: one for n, one in layers if isinstance(one, LoraLayer)}
        self._base = {name: weight.to("cpu", copy=True) for name, weight in self._weights().items()}
        self._digest = digest(self._base)
        self._is_tried = False
        self.loss = 0.0
        """Share of the adapter's effect that rounding took when it was last merged."""

    @property
    def is_merged(self) -> bool:
        """Whether the base holds the adapter now."""
        return any(layer.merged_adapters for layer in self._layers.values())

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the base, unless that was done or given up since the last `remove`."""
        if self._is_tried:
            return
        self._is_tried, effect, lost = True, 0.0, 0.0
        for layer in self._layers.values():
            weight: Tensor = layer.get_base_layer().weight
            change = layer.get_delta_weight("policy").float()
            exact = weight.float() + change
            weight.copy_(exact)
            layer.merged_adapters.append("policy")
            effect += float(change.double().square().sum())
            lost += float((weight.float() - exact).double().square().sum())
        self.loss = (lost / effect) ** 0.5 if effect else 0.0
        if self.loss <= LARGEST_LOSS:
            logger.info("adapter merged; rounding takes %.2g of its effect", self.loss)
            return
        logger.warning(
            "sampling.merge_lora: merged in %s the adapter would lose %.0f %% of its effect to "
            "rounding, so this version is sampled unmerged: slower, but right",
            next(iter(self._base.values())).dtype,
            100 * self.loss,
        )
        self._restore()

    def remove(self) -> None:
        """Bring the base back as it was, bit for bit; nothing happens if nothing is merged.

        Raises:
            WeightMismatchError: It is not as it was: the process must not sample any more.
        """
        self._is_tried = False
        if self.is_merged:
            self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for name, layer in self._layers.items():
            layer.get_base_layer().weight.copy_(self._base[name])
            layer.merged_adapters.clear()
        if (found := digest(self._weights())) != self._digest:
            raise WeightMismatchError(
                f"the base has digest {found[:12]} after its adapter was taken out, but had "
                f"{self._digest[:12]} before: its memory is damaged, start this worker again"
            )

    def _weights(self) -> dict[str, Tensor]:
        return {name: one.get_base_layer().weight.detach() for name, one in self._layers.items()}
