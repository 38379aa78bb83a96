"""How many more workers find a place on the nodes of a cluster: a pure function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

_ROUNDING = 1e-4
"""Ray counts in ten-thousandths."""


def num_that_fit(bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> float:
    """Return how many workers fit, each on one node; infinite if they take nothing.

    GPUs are counted per node: shares that are free on different GPUs count together.

    Args:
        bundle: What a worker takes, by Ray's names.
        nodes: What each node has free.
    """
    if not bundle:
        return math.inf
    return sum(
        min(int((free.get(name, 0.0) + _ROUNDING) // amount) for name, amount in bundle.items())
        for free in nodes
    )
