"""How far the trained weights are from those that the run started with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

MOST_NUMBERS = 200_000_000
"""So many trained numbers are kept a second time, on rank 0's host, to compare with; adapters have
far fewer. Of more the drift is not measured."""


class Drift:
    """The distance of published weights from the first ones, relative to the size of these.

    Args:
        first: Tensors by name, as the run started; copied.
    """

    def __init__(self, first: Mapping[str, Tensor]) -> None:
        self._first = {name: tensor.clone() for name, tensor in first.items()}
        self._size = _norm(self._first.values())

    def __call__(self, weights: Mapping[str, Tensor]) -> float:
        """Return ‖weights − first‖ / ‖first‖ >= 0, over all tensors together."""
        # One tensor after another: the differences of all never lie in memory at once.
        apart = (weights[name].float() - tensor.float() for name, tensor in self._first.items())
        return _norm(apart) / self._size if self._size else 0.0


def _norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm over all tensors together."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def adapter_norm(weights: Mapping[str, Tensor]) -> float | None:
    """Return the norm of what low-rank adapters add, sqrt(sum over layers of ‖B A‖²).

    Before the scaling by alpha / rank, which is the same for all layers. None where there is no
    adapter. With rank r it costs r² numbers per layer: ‖B A‖² is the sum of the products of the
    entries of BᵀB and A Aᵀ.
    """
    squares = []
    for name, a_RI in weights.items():
        if "lora_A" not in name:
            continue
        b_OR = weights[name.replace("lora_A", "lora_B")].float().flatten(1)
        a_RI = a_RI.float().flatten(1)
        squares.append(float(((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum()))
    return sum(squares) ** 0.5 if squares else None
